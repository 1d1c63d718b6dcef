package regress

import (
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/deep"
	"golang.org/x/sys/unix"
)

// A directory that was moved with all that is in it, since no redirect could say where it was, is one of the upper. What
// was moved into it by a redirect lost its lower content when it was moved on.
func TestMoveThroughDirThatWasMovedWhole(t *testing.T) {
	const depth = 30
	name := strings.Repeat("n", 200) // so that the path has 6,030 bytes
	t.Run("meanwhile", func(t *testing.T) {
		l := newLayers(t)
		l.Trust = true // the path is too long for who compares lowers
		low := deep.Descend(t, l.Lowers[0], name, depth, true)
		must(t, low.Mkdir("d", 0o755), low.WriteFile("d/file", []byte("deep"), 0o644),
			os.MkdirAll(l.Lowers[0]+"/g/s", 0o755), os.WriteFile(l.Lowers[0]+"/g/s/file", []byte("g"), 0o644))
		m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")
		bottom := deep.Descend(t, l.Merged, name, depth, false)
		from, to := twoDirs(t, bottom, l.Merged)
		rename := func() error { return unix.Renameat2(int(from.Fd()), "d", int(from.Fd()), "moved", 0) }
		must(t, held(t, m, "unionfs.copyup.tree#1", "", rename, func() {
			must(t, unix.Renameat2(int(to.Fd()), "g", int(from.Fd()), "d/g", 0))
		}))
		must(t, to.Close(), from.Close())
		look := func(bottom *os.Root) {
			t.Helper()
			for name, want := range map[string]string{"moved/file": "deep", "moved/g/s/file": "g"} {
				if b, err := bottom.ReadFile(name); string(b) != want {
					t.Errorf("%s: %q, %v, want %q", name, b, err, want)
				}
			}
			must(t, bottom.Close())
		}
		look(bottom)
		m.Remount()
		look(deep.Descend(t, l.Merged, name, depth, false))
	})
	t.Run("on", func(t *testing.T) {
		l := newLayers(t)
		l.Trust = true // as above
		low := deep.Descend(t, l.Lowers[0], name, depth, true)
		must(t, low.Mkdir("d", 0o755), os.MkdirAll(l.Lowers[0]+"/g/s", 0o755),
			os.WriteFile(l.Lowers[0]+"/g/s/file", []byte("g"), 0o644))
		m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")
		bottom := deep.Descend(t, l.Merged, name, depth, false)
		from, to := twoDirs(t, bottom, l.Merged)
		must(t, unix.Renameat2(int(from.Fd()), "d", int(to.Fd()), "moved", 0), os.Rename(l.Merged+"/g", l.Merged+"/moved/g"),
			os.Rename(l.Merged+"/moved/g", l.Merged+"/h"), to.Close(), from.Close(), bottom.Close())
		wantContent(t, l.Merged+"/h/s/file", "g")
		m.Remount()
		wantContent(t, l.Merged+"/h/s/file", "g")
	})
}
