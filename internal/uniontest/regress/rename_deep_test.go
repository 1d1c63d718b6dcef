package regress

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/deep"
	"golang.org/x/sys/unix"
)

// twoDirs opens the directory bottom and the one at top, between which something is renamed. They are to be closed.
func twoDirs(t *testing.T, bottom *os.Root, top string) (from, to *os.File) {
	t.Helper()
	from, err := bottom.Open(".")
	must(t, err)
	to, err = os.Open(top)
	must(t, err)
	return from, to
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
			low := deep.Descend(t, l.Lowers[0], name, depth, true)
			must(t, low.MkdirAll("d/sub/s", 0o755), low.WriteFile("d/file", []byte("deep"), 0o644), low.WriteFile("d/sub/s/f", []byte("f"), 0o644),
				low.Mkdir("e", 0o755), low.WriteFile("e/file", []byte("e"), 0o644))
			must(t, os.Mkdir(l.Lowers[0]+"/top", 0o755), os.WriteFile(l.Lowers[0]+"/top/file", []byte("top"), 0o644))
			m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")

			bottom := deep.Descend(t, l.Merged, name, depth, false)
			from, to := twoDirs(t, bottom, l.Merged)
			must(t, unix.Renameat2(int(from.Fd()), "d", int(to.Fd()), "moved", 0),
				unix.Renameat2(int(from.Fd()), "e", int(to.Fd()), "top", unix.RENAME_EXCHANGE),
				os.Rename(l.Merged+"/moved/sub", l.Merged+"/sub"), to.Close(), from.Close())
			look := func(bottom *os.Root) {
				t.Helper()
				wantContent(t, l.Merged+"/moved/file", "deep")
				wantContent(t, l.Merged+"/sub/s/f", "f")
				wantContent(t, l.Merged+"/top/file", "e")
				if b, err := bottom.ReadFile("e/file"); string(b) != "top" {
					t.Errorf("e/file: %q, %v", b, err)
				}
				if _, err := bottom.Lstat("d"); err == nil {
					t.Error("d is still there")
				}
				must(t, bottom.Close())
			}
			look(bottom)
			m.Remount()
			look(deep.Descend(t, l.Merged, name, depth, false))
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
