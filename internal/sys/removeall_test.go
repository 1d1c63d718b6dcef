package sys_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uniontest/deep"
)

// TestRemoveAllDeep: a tree that is deeper than a process has descriptors.
func TestRemoveAllDeep(t *testing.T) {
	dir := t.TempDir()
	const depth = 500
	top := filepath.Join(dir, "d")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = deep.Descend(t, top, "n", depth, true).Close() // read only
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: depth / 2, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err := sys.RemovePath(top)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

// TestRemoveAllMount: what is mounted in a tree is not entered, and named.
func TestRemoveAllMount(t *testing.T) {
	dir, dirfd := openDir(t)
	mounted := filepath.Join(dir, "d/e/m")
	if err := os.MkdirAll(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	writeFile(t, filepath.Join(kept, "kept"), "")
	if err := unix.Mount(kept, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(mounted, 0); err != nil {
			t.Error(err)
		}
	}()
	for path, remove := range map[string]func() error{
		"d/e/m":                     func() error { return sys.RemoveAll(sys.At{Dirfd: dirfd, Name: "d"}) },
		filepath.Join(dir, "d/e/m"): func() error { return sys.RemovePath(filepath.Join(dir, "d")) },
	} {
		var at *fs.PathError
		if err := remove(); !errors.Is(err, unix.EBUSY) || !errors.As(err, &at) || at.Path != path {
			t.Errorf("%v, want EBUSY of %s", err, path)
		}
	}
	if _, err := os.Lstat(filepath.Join(kept, "kept")); err != nil {
		t.Errorf("what is mounted was entered: %v", err)
	}
}
