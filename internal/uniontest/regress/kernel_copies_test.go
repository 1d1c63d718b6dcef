package regress

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// Kernel overlayfs takes a mark that we wrote in the user namespace for data, and copies it up with the directory. There it was
// read as a mark again: a redirect led to another place than the kernel's, an opaque mark hid what is below.
func TestMarksThatTheKernelCopied(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	uniontest.NeedOverlay(t)
	l := uniontest.NewLayers(t, 3)
	l.Trust = true // two of the lowers are made by the mounts of this test
	bottom := l.Lowers[2]
	must(t, os.MkdirAll(bottom+"/d/s", 0o755), os.MkdirAll(bottom+"/o", 0o755), os.Mkdir(bottom+"/p", 0o755))
	for _, name := range []string{"d/s/f", "o/deleted"} {
		write(t, bottom+"/"+name, name)
	}
	dir := t.TempDir()
	ours := uniontest.Layers(*l)
	ours.Lowers, ours.Upper, ours.Work = []string{bottom}, l.Lowers[1], t.TempDir()
	m := uniontest.Start(t, uniontest.Laminafs, &ours, "whiteout=overlay", "redirect_dir=on")
	must(t, os.RemoveAll(m.Dir()+"/o"), os.Mkdir(m.Dir()+"/o", 0o755), os.Rename(m.Dir()+"/d/s", m.Dir()+"/p/s"))
	write(t, m.Dir()+"/o/new", "new")
	write(t, m.Dir()+"/p/s/own", "own")
	m.Unmount()

	opts := fmt.Sprintf("lowerdir=%s:%s,upperdir=%s,workdir=%s,redirect_dir=on", l.Lowers[1], bottom, l.Lowers[0], t.TempDir())
	must(t, unix.Mount("overlay", dir, "overlay", 0, opts))
	err := func() error {
		for _, name := range []string{"o", "p/s"} {
			if err := os.Chmod(dir+"/"+name, 0o700); err != nil { // copied up
				return err
			}
		}
		return nil
	}()
	must(t, unix.Unmount(dir, 0), err)

	uniontest.Start(t, uniontest.Laminafs, l)
	for name, want := range map[string]string{"p/s/f": "d/s/f", "p/s/own": "own", "o/new": "new"} {
		wantContent(t, l.Merged+"/"+name, want)
	}
	if _, err := os.Lstat(l.Merged + "/o/deleted"); !os.IsNotExist(err) {
		t.Errorf("o/deleted: %v", err)
	}
}
