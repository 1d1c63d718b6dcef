package sys_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

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

// TestRemoveAllNames: what is moved up finds its place, whatever the tree has there.
func TestRemoveAllNames(t *testing.T) {
	top := filepath.Join(t.TempDir(), "d")
	for i := range 20 {
		taken := filepath.Join(top, ".deep"+strconv.Itoa(i+1))
		if err := os.MkdirAll(taken, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(taken, "f"), "")
		deeper := filepath.Join(top, "n"+strconv.Itoa(i), strings.Repeat("/n", 100))
		if err := os.MkdirAll(deeper, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := sys.RemovePath(top); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

// TestRemoveAllReadOnly: directories that nobody may write to go, of any depth, also where no capability helps.
func TestRemoveAllReadOnly(t *testing.T) {
	top := filepath.Join(t.TempDir(), "d")
	if err := os.MkdirAll(filepath.Join(top, strings.Repeat("/n", 200)), 0o700); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Join(top, strings.Repeat("/n", 200)); d != top; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error)
	go func() {
		goruntime.LockOSThread() // never given back: it has lost its capabilities
		var none [2]unix.CapUserData
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		if err == nil {
			err = sys.RemovePath(top)
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

// TestRemoveAllOldKernel: without openat2(2) trees go all the same, and mounts stay.
func TestRemoveAllOldKernel(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "d/e/f"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "d/e/g"), "")
	mounted := filepath.Join(dir, "m/e")
	if err := os.MkdirAll(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	writeFile(t, filepath.Join(kept, "kept"), "")
	mountErr := unix.Mount(kept, mounted, "", unix.MS_BIND, "")
	if mountErr == nil {
		defer func() {
			if err := unix.Unmount(mounted, 0); err != nil {
				t.Error(err)
			}
		}()
	}
	type removed struct{ filter, tree, mount error }
	ended := make(chan removed)
	go func() {
		goruntime.LockOSThread() // never given back: the filter is for ever
		r := removed{filter: refuse(unix.SYS_OPENAT2)}
		if r.filter == nil {
			r.tree = sys.RemovePath(filepath.Join(dir, "d"))
			if mountErr == nil {
				r.mount = sys.RemovePath(filepath.Join(dir, "m"))
			}
		}
		ended <- r
	}()
	r := <-ended
	if err := errors.Join(r.filter, r.tree); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "d")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if mountErr != nil {
		t.Skipf("needs the right to mount: %v", mountErr)
	}
	if !errors.Is(r.mount, unix.EBUSY) {
		t.Errorf("%v, want EBUSY", r.mount)
	}
	if _, err := os.Lstat(filepath.Join(kept, "kept")); err != nil {
		t.Errorf("what is mounted was entered: %v", err)
	}
}

// refuse makes the system call fail with ENOSYS in this thread, for ever.
func refuse(call uint32) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}
