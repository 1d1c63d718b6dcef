package regress

import (
	"io"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// A lower file in whose place somebody has put a fifo made whoever read it wait for ever.
func TestLowerFileBecomesFifo(t *testing.T) {
	l := newLayers(t)
	l.Trust = true // it is changed on purpose
	low := l.Lowers[0] + "/f"
	write(t, low, "data")
	m := uniontest.Start(t, uniontest.Laminafs, l)
	var st unix.Stat_t
	must(t, unix.Stat(l.Merged+"/f", &st), os.Remove(low), unix.Mkfifo(low, 0o644))
	inTime(t, m, func() {
		f, err := os.Open(l.Merged + "/f")
		if err == nil {
			defer f.Close()
			_, err = io.ReadAll(f)
		}
		if err == nil {
			t.Error("a file that is not there any more is read")
		}
	})
}
