package unionfs

import (
	"testing"
	"unsafe"
)

// An image has a hundred thousand files, and a node stays for each that the kernel has seen.
func TestNodeIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(node{}); size > 128 {
		t.Errorf("a node takes %d bytes", size)
	}
	if size := unsafe.Sizeof(entry{}); size > 40 {
		t.Errorf("an entry takes %d bytes", size)
	}
}
