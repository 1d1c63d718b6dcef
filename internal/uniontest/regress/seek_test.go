package regress

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// What was written through a mapping is data, whether the kernel has written it back or not: cp(1) and tar(1) would leave
// it out.
func TestSeekFindsWhatWasMapped(t *testing.T) {
	for _, opts := range [][]string{nil, {"threaded=0"}, {"writeback"}, {"transport=gofuse"}, {"transport=loop"}} {
		l := newLayers(t)
		must(t, os.WriteFile(filepath.Join(l.Lowers[0], "lower"), nil, 0o644), os.Truncate(filepath.Join(l.Lowers[0], "lower"), 1<<20))
		m := uniontest.Start(t, uniontest.Laminafs, l, opts...)
		for _, name := range []string{"lower", "new"} {
			f, err := os.OpenFile(filepath.Join(m.Dir(), name), os.O_RDWR|os.O_CREATE, 0o644)
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(1<<20))
			mem, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			mem[500_000] = 'x'
			inTime(t, m, func() {
				at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
				if err != nil || at > 500_000 {
					t.Errorf("%v, %s: data begins at %d, %v", opts, name, at, err)
				}
			})
			if mem[500_000] != 'x' {
				t.Errorf("%v, %s: the mapping has lost what was written", opts, name)
			}
			must(t, unix.Munmap(mem))
		}
	}
}
