package sys_test

import (
	"slices"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
)

func TestParseCPUs(t *testing.T) {
	tests := map[string][]int{"0": {0}, "0-3": {0, 1, 2, 3}, "0,2-3,8": {0, 2, 3, 8}}
	for s, want := range tests {
		if got, err := sys.ParseCPUs(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "3-1", "0-", "0,,1", "-1"} {
		if got, err := sys.ParseCPUs(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
