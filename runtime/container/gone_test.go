package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStoreIsFree: when a run has returned, no process holds on to a file of the store, though laminafs may be about to end: whoever
// unmounts a disk then is not told that it is in use.
func TestStoreIsFree(t *testing.T) {
	b := newBox(t)
	for range 10 {
		if _, errs, code := b.run(words("true"), autoRemove); code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		open, _ := filepath.Glob("/proc/[0-9]*/fd/*")
		dirs, _ := filepath.Glob("/proc/[0-9]*/cwd")
		for _, link := range append(open, dirs...) {
			comm, _ := os.ReadFile(filepath.Join(link, "../comm"))
			if strings.Contains(link, "/fd/") {
				comm, _ = os.ReadFile(filepath.Join(link, "../../comm"))
			}
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, b.root) {
				t.Errorf("%s of %s is %s", link, strings.TrimSpace(string(comm)), to)
			}
		}
	}
}
