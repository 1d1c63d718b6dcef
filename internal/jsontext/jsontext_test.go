package jsontext

import (
	"strings"
	"testing"
	"time"
)

type inner struct {
	Names []string
	by    map[string]*inner
	any   any
}

func TestCheck(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		v    any
		want string // what the error names; empty for none
	}{
		"nil":            {nil, ""},
		"nil pointer":    {(*inner)(nil), ""},
		"text":           {"a\u00e9\ufffd\x00", ""},
		"byte":           {"a\xffb", `"a\xffb"`},
		"cut":            {"\xe2\x82", `"\xe2\x82"`},
		"surrogate":      {"\xed\xa0\x80", `"\xed\xa0\x80"`},
		"element":        {[2]string{"a", "\xfe"}, `"\xfe"`},
		"key":            {map[string]bool{"\xfe": true}, `"\xfe"`},
		"field of field": {&inner{by: map[string]*inner{"k": {Names: []string{"ok", "\xfd"}}}}, `"\xfd"`},
		"interface":      {inner{any: []any{1, "\xfc"}}, `"\xfc"`},
		"time":           {struct{ At *time.Time }{&now}, ""},
		"bytes":          {[]byte("\xff"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check("fine", tt.v)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.want+" is not valid UTF-8") {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
