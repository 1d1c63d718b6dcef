package unionfs

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The kernel's table of descriptors is as large as ours may become from the start: no request waits for it to grow.
func TestDescriptorsAreReserved(t *testing.T) {
	fs, err := New(Config{Lowers: []string{t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	<-fs.reserved
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "\nFDSize:")
	var size int
	if _, err := fmt.Sscan(line, &size); err != nil {
		t.Fatalf("FDSize: %v", err)
	}
	if want := min(fdBound(), maxReserved); size < want {
		t.Errorf("the kernel has room for %d descriptors, want %d", size, want)
	}
}
