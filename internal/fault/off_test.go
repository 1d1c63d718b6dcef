//go:build !faults

package fault_test

import (
	"testing"

	"github.com/laminafs/lamina/internal/fault"
)

var point = fault.New("fault.test")

func TestOffByDefault(t *testing.T) {
	t.Setenv("LAMINA_FAULT", "fault.test=EIO")
	if err := point.Hit(); err != nil || fault.Enabled {
		t.Errorf("hit: %v, enabled %v: want a build without points", err, fault.Enabled)
	}
	if n := testing.AllocsPerRun(100, func() { _ = point.Hit() }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
