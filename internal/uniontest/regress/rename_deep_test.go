package regress

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// descend opens what lies depth directories called name below dir, making them where make is set. The path may be longer
// than a path can be.
func descend(t *testing.T, dir, name string, depth int, make bool) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	must(t, err)
	for range depth {
		if make {
			must(t, r.Mkdir(name, 0o755))
		}
		next, err := r.OpenRoot(name)
		must(t, err, r.Close())
		r = next
	}
	t.Cleanup(func() { _ = r.Close() }) // closed before, where the mount has to go
	return r
}

// A lower directory so deep that no redirect can say where it was is moved with all that is in it.
func TestRenameOfDeepDir(t *testing.T) {
	const depth = 30
	name := strings.Repeat("n", 200) // so that the path has 6,030 bytes
	for _, fstype := range []string{"", "xfs"} {
		t.Run("on "+fstype, func(t *testing.T) {
			l := newLayers(t)
			l.Trust = true // the path is too long for who compares lowers
			if fstype != "" {
				upperOn(t, l, disk(t, fstype, 300, "defaults"))
			}
			low := descend(t, l.Lowers[0], name, depth, true)
			must(t, low.MkdirAll("d/sub/s", 0o755), low.WriteFile("d/file", []byte("deep"), 0o644), low.WriteFile("d/sub/s/f", []byte("f"), 0o644),
				low.Mkdir("e", 0o755), low.WriteFile("e/file", []byte("e"), 0o644))
			must(t, os.Mkdir(l.Lowers[0]+"/top", 0o755), os.WriteFile(l.Lowers[0]+"/top/file", []byte("top"), 0o644))
			m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")

			deep := descend(t, l.Merged, name, depth, false)
			from, err := deep.Open(".")
			must(t, err)
			to, err := os.Open(l.Merged)
			must(t, err)
			must(t, unix.Renameat2(int(from.Fd()), "d", int(to.Fd()), "moved", 0),
				unix.Renameat2(int(from.Fd()), "e", int(to.Fd()), "top", unix.RENAME_EXCHANGE),
				os.Rename(l.Merged+"/moved/sub", l.Merged+"/sub"), to.Close(), from.Close())
			look := func(deep *os.Root) {
				t.Helper()
				wantContent(t, l.Merged+"/moved/file", "deep")
				wantContent(t, l.Merged+"/sub/s/f", "f")
				wantContent(t, l.Merged+"/top/file", "e")
				if b, err := deep.ReadFile("e/file"); string(b) != "top" {
					t.Errorf("e/file: %q, %v", b, err)
				}
				if _, err := deep.Lstat("d"); err == nil {
					t.Error("d is still there")
				}
				must(t, deep.Close())
			}
			look(deep)
			m.Remount()
			look(descend(t, l.Merged, name, depth, false))
			var names []string
			for _, dir := range []string{"moved", "sub", "top"} {
				must(t, filepath.WalkDir(l.Merged+"/"+dir, func(path string, _ fs.DirEntry, err error) error {
					names = append(names, strings.TrimPrefix(path, l.Merged+"/"))
					return err
				}))
			}
			if want := []string{"moved", "moved/file", "sub", "sub/s", "sub/s/f", "top", "top/file"}; !slices.Equal(names, want) {
				t.Errorf("there are %q, want %q", names, want)
			}
		})
	}
}
