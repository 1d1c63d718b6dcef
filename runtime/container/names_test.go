package container

import (
	"strconv"
	"testing"
)

// TestIDIsNoNumber: one in 280 IDs would begin with a number, and be a hostname that is taken for an address.
func TestIDIsNoNumber(t *testing.T) {
	for range 20000 {
		id := newID()
		if len(id) != 64 {
			t.Fatalf("%q has not 64 digits", id)
		}
		if _, err := strconv.ParseUint(id[:shortLength], 10, 64); err == nil {
			t.Fatalf("%s begins with a number", id)
		}
	}
}
