package transport

import (
	"os"
	"strings"
	"testing"
)

const enableUringFile = "/sys/module/fuse/parameters/enable_uring"

// enableUring has the kernel offer FUSE over io_uring to mounts made from now on.
func enableUring(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(enableUringFile)
	if err != nil {
		t.Skipf("needs a kernel with FUSE over io_uring: %v", err)
	}
	if strings.TrimSpace(string(b)) == "Y" {
		return
	}
	if err := os.WriteFile(enableUringFile, []byte("Y"), 0); err != nil {
		t.Skipf("needs fuse.enable_uring=Y, or to be allowed to set it: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(enableUringFile, b, 0); err != nil {
			t.Error(err)
		}
	})
}
