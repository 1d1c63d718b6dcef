package volume

import (
	"fmt"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		opts string // key=value;...
		want string // type source options, or a part of the error after "!"
	}{
		{"", "none"},
		{"type=none;device=/a/../b;o=bind", "bind /b []"},
		{"type=;device=/b;o=bind", `!"type"`},
		{"type=none;o=bind", `!"device"`},
		{"type=ext4;device=/b;o=rbind,ro,noexec", "bind /b [ro noexec]"},
		{"type=none;device=b;o=bind", "!absolute"},
		{"type=none;device=/b;o=bind,suid", "!o=suid"},
		{"type=none;device=/b", "!type=none"},
		{"type=nfs;device=:/b;o=addr=192.0.2.1", "!type=nfs"},
		{"type=tmpfs;device=tmpfs", "tmpfs  []"},
		{"type=tmpfs;device=tmpfs;o=size=1m,uid=5,rw", "tmpfs  [size=1m uid=5]"},
		{"type=tmpfs;device=tmpfs;o=huge=always", "!o=huge"},
		{"size=1m", `!"size"`},
	} {
		opts := map[string]string{}
		for _, kv := range strings.FieldsFunc(tt.opts, func(r rune) bool { return r == ';' }) {
			k, v, _ := strings.Cut(kv, "=")
			opts[k] = v
		}
		name := fmt.Sprintf("v%d", i)
		v, err := s.Create(name, nil, opts)
		if part, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", tt.opts, err, part)
			}
			if _, err := s.Get(name); err == nil {
				t.Errorf("%s: it is there all the same", tt.opts)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.opts, err)
			continue
		}
		if v, err = s.Get(v.Name); err != nil { // as another command sees it
			t.Fatal(err)
		}
		got := "none"
		m, err := v.Mount()
		if m != nil {
			got = fmt.Sprintf("%s %s %v", m.Type, m.Source, m.Options)
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.opts, got, err, tt.want)
		}
	}
	// A second Create of the same is none; of another one is an error.
	if _, err := s.Create("v9", nil, map[string]string{"type": "tmpfs", "device": "tmpfs"}); err != nil {
		t.Error(err)
	}
	if _, err := s.Create("v9", nil, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}); err == nil {
		t.Error("the same name with other options")
	}
	for name, want := range map[string]bool{"v9": false, "v10": false, "other": true, "a/b": false} {
		if err := s.Check(name, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}); (err == nil) != want {
			t.Errorf("check of %s with other options: %v", name, err)
		}
		if _, err := s.Get("other"); err == nil {
			t.Error("a check has made a volume")
		}
	}
	if err := s.Check("other", map[string]string{"type": "nfs"}); err == nil {
		t.Error("check of options that none can have")
	}
	if _, err := s.Create("v9", nil, nil); err != nil {
		t.Errorf("as a container asks for it: %v", err)
	}
}
