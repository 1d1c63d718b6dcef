package volume

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// bound makes a volume that is a directory of the machine.
func bound(t *testing.T, dir, o string) *Volume {
	t.Helper()
	v, err := open(t).Create("data", nil, map[string]string{"type": "none", "device": dir, "o": o})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPopulateBind(t *testing.T) {
	src := image(t)
	want := describe(t, src)
	same := func(t *testing.T, dir string) {
		t.Helper()
		if got := describe(t, dir); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	t.Run("empty", func(t *testing.T) {
		dir := t.TempDir()
		var before, after unix.Stat_t
		if err := unix.Stat(dir, &before); err != nil {
			t.Fatal(err)
		}
		v := bound(t, dir, "bind")
		populate(t, v, src)
		same(t, dir)
		if err := unix.Stat(dir, &after); err != nil || after.Ino != before.Ino {
			t.Errorf("inode %d, %v; was %d", after.Ino, err, before.Ino)
		}
		// Only once.
		if err := os.Remove(filepath.Join(dir, "also")); err != nil {
			t.Fatal(err)
		}
		populate(t, v, src)
		if _, err := os.Lstat(filepath.Join(dir, "also")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("filled again: %v", err)
		}
	})
	for name, prepare := range map[string]func(p func(string) string) error{
		"not empty": func(p func(string) string) error { return os.WriteFile(p("mine"), nil, 0o600) },
		"not empty, and a kill once": func(p func(string) string) error {
			return errors.Join(os.Mkdir(p(filling), 0), os.Mkdir(p("mine"), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := prepare(func(n string) string { return filepath.Join(dir, n) }); err != nil {
				t.Fatal(err)
			}
			populate(t, bound(t, dir, "bind"), src)
			if got := listing(t, dir); !slices.Equal(got, []string{"mine"}) {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("read-only", func(t *testing.T) {
		dir := t.TempDir()
		populate(t, bound(t, dir, "bind,ro"), src)
		if got := listing(t, dir); len(got) != 0 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("killed while it copied", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, filling, "half"), 0o700); err != nil {
			t.Fatal(err)
		}
		populate(t, bound(t, dir, "bind"), src)
		same(t, dir)
	})
	t.Run("killed while it moved", func(t *testing.T) {
		dir := t.TempDir()
		populate(t, bound(t, dir, "bind"), src)
		// Half of it is above, and nothing of the directory's own; and somebody has used it since.
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(dir, 1, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(dir, filled), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"sub", "also"} {
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, filled, name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{filled + "/mine", "mine"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		populate(t, bound(t, dir, "bind"), src)
		if b, err := os.ReadFile(filepath.Join(dir, "mine")); err != nil || string(b) != "mine" {
			t.Errorf("mine is %q, %v", b, err)
		}
		if err := os.Remove(filepath.Join(dir, "mine")); err != nil {
			t.Fatal(err)
		}
		populateTimes(t, src, dir)
		same(t, dir)
	})
	t.Run("two volumes at once", func(t *testing.T) {
		for range 20 {
			dir := t.TempDir()
			var wg sync.WaitGroup
			for range 3 {
				v := bound(t, dir, "bind")
				wg.Go(func() {
					f, err := os.Open(src)
					if err == nil {
						_, err = v.Populate(t.Context(), f)
						_ = f.Close() // read-only
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			same(t, dir)
		}
	})
	t.Run("locked by who uses it", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		populate(t, bound(t, dir, "bind"), src)
	})
	t.Run("a link in place of the copy", func(t *testing.T) {
		dir, outside := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "secret"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{filling, filled} {
			if err := os.Symlink(outside, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Open(src)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := bound(t, dir, "bind").Populate(t.Context(), f); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("%v, want %v", err, unix.ELOOP)
		}
		if got := listing(t, outside); !slices.Equal(got, []string{"secret"}) {
			t.Errorf("outside is %q", got)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		dir := t.TempDir()
		f, err := os.Open(src)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := bound(t, dir, "bind").Populate(ctx, f); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want %v", err, context.Canceled)
		}
		if got := listing(t, dir); len(got) != 0 {
			t.Errorf("left %q", got)
		}
	})
	t.Run("not ours to write", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to mount a filesystem read-only")
		}
		dir := t.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
			t.Skipf("needs to mount a tmpfs: %v", err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		populate(t, bound(t, dir, "bind"), src)
	})
	t.Run("not ours to read", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to become another user")
		}
		for _, mode := range []os.FileMode{0o711, 0o733, 0o755} { // of a directory of root's
			dir := t.TempDir()
			f, err := os.Open(src)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, mode); err != nil {
				t.Fatal(err)
			}
			asNobody(t, func() error {
				_, err := fillBind(t.Context(), dir, f)
				return err
			})
			_ = f.Close() // read-only
			if got := listing(t, dir); len(got) != 0 {
				t.Errorf("mode %o: left %q", mode, got)
			}
		}
	})
}

// asNobody calls a function in a thread without power over the files of others.
func asNobody(t *testing.T, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // and it ends with the goroutine
		if err := sys.SetThreadIDs(65534, 65534); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// populateTimes gives the directory the times of the other: a test has changed it.
func populateTimes(t *testing.T, from, to string) {
	t.Helper()
	fi, err := os.Stat(from)
	if err == nil {
		err = os.Chtimes(to, fi.ModTime(), fi.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestRenameNew: nothing is replaced, also where the kernel cannot say so.
func TestRenameNew(t *testing.T) {
	test := func(t *testing.T, dir string) {
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for _, name := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := renameNew(sys.At{Dirfd: fd, Name: "a"}, sys.At{Dirfd: fd, Name: "b"}); err != unix.EEXIST {
			t.Errorf("%v, want %v", err, unix.EEXIST)
		}
		if err := renameNew(sys.At{Dirfd: fd, Name: "a"}, sys.At{Dirfd: fd, Name: "c"}); err != nil {
			t.Error(err)
		}
		if got := listing(t, dir); !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("got %q", got)
		}
	}
	t.Run("here", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("without RENAME_NOREPLACE", func(t *testing.T) {
		if _, err := exec.LookPath("unionfs"); err != nil || os.Geteuid() != 0 {
			t.Skip("needs root, and unionfs-fuse, which knows no flags of renameat2(2)")
		}
		below, dir := t.TempDir(), t.TempDir()
		if out, err := exec.Command("unionfs", below+"=RW", dir).CombinedOutput(); err != nil {
			t.Skipf("needs a mount of unionfs-fuse: %v: %s", err, out)
		}
		defer func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		test(t, dir)
	})
}
