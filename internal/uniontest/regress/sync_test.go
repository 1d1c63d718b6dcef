package regress

import (
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// syncs counts the calls by which the server waits for the disk while f runs and the mount ends.
func syncs(t *testing.T, m *uniontest.Mount, f func()) int {
	t.Helper()
	trace := traced(t, m, "trace=fsync,fdatasync,sync_file_range,syncfs,sync,msync", func() {
		f()
		m.Unmount()
	})
	n := 0
	for line := range strings.Lines(trace) {
		if strings.Contains(line, "sync") && strings.Contains(line, "(") && !strings.Contains(line, "resumed") {
			n++
		}
	}
	return n
}

// A volatile mount waits for the disk never, by whatever name the option goes; another one when it is asked to, when
// data was copied up, and at the end.
func TestVolatileDoesNotSync(t *testing.T) {
	for _, opt := range []string{"", "volatile", "fsync=0", "sync=0"} {
		t.Run(opt, func(t *testing.T) {
			l := newLayers(t)
			write(t, l.Lowers[0]+"/f", strings.Repeat("x", 1<<20))
			// From one filesystem to another: blocks that are shared need no sync.
			upperOn(t, l, disk(t, "ext4", 32, "defaults"))
			opts := []string{}
			if opt != "" {
				opts = append(opts, opt)
			}
			m := uniontest.Start(t, uniontest.Laminafs, l, opts...)
			asked := 0
			got := syncs(t, m, func() {
				f, err := os.OpenFile(l.Merged+"/f", os.O_RDWR, 0)
				must(t, err)
				defer f.Close()
				for range 3 {
					_, err = f.WriteString("new")
					must(t, err, f.Sync())
					asked++
				}
				d, err := os.Open(l.Merged)
				must(t, err)
				defer d.Close()
				must(t, d.Sync(), os.Mkdir(l.Merged+"/d", 0o755), d.Sync())
				asked += 2
			})
			if want := asked + 2; opt == "" && got != want { // one for the copy, one for the end
				t.Errorf("%d calls, want %d", got, want)
			}
			if opt != "" && got != 0 {
				t.Errorf("%d calls, want none", got)
			}
		})
	}
}
