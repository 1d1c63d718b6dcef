package copyup_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as in the server
	os.Exit(m.Run())
}

// env is a lower directory and a staging directory.
type env struct {
	lower, work     string
	lowerFd, workFd int
	s               *copyup.Stager
}

// newEnv makes a lower directory in lowerIn and a staging directory in workIn. At its end the test has left nothing
// in the staging directory and the lower as it was frozen.
func newEnv(t testing.TB, lowerIn, workIn string) *env {
	t.Helper()
	e := &env{lower: mkdirTemp(t, lowerIn), work: mkdirTemp(t, workIn)}
	e.lowerFd, e.workFd = openDir(t, e.lower), openDir(t, e.work)
	e.s = copyup.NewStager(copyup.Options{Work: e.workFd, Sync: true})
	return e
}

func mkdirTemp(t testing.TB, in string) string {
	t.Helper()
	dir, err := os.MkdirTemp(in, "")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func openDir(t testing.TB, dir string) int {
	t.Helper()
	fd, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: dir}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return fd
}

func (e *env) path(name string) string    { return filepath.Join(e.lower, name) }
func (e *env) lowerAt(name string) sys.At { return sys.At{Dirfd: e.lowerFd, Name: name} }

func (e *env) source(t testing.TB, name string) copyup.Source {
	t.Helper()
	return copyup.Source{At: e.lowerAt(name), Stat: stat(t, e.lowerAt(name))}
}

// write makes a lower file.
func (e *env) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(e.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// workEmpty fails the test if something is left in the staging directory.
func (e *env) workEmpty(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(e.work)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("left in the staging directory: %s", entry.Name())
	}
}

// object copies the lower object name whole, checks that the copy is the same and that the lower was not touched.
func (e *env) object(t testing.TB, name string) copyup.Copy {
	t.Helper()
	src := e.source(t, name)
	return e.objectAs(t, src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1})
}

// objectAs is object with other metadata and options. Data is compared up to the limit.
func (e *env) objectAs(t testing.TB, src copyup.Source, m copyup.Meta, opt copyup.ObjectOptions) copyup.Copy {
	t.Helper()
	frozen := freeze(t, e.lower)
	c, err := e.s.Object(src, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.s.Discard(c.At) })
	frozen.check(t)
	got := stat(t, c.At)
	if got.Ino != c.Ino {
		t.Errorf("Copy.Ino is %d, stat(2) says %d", c.Ino, got.Ino)
	}
	checkMeta(t, &got, m)
	switch m.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sameData(t, src, c.At, opt.Limit)
	case unix.S_IFLNK:
		want, err1 := sys.Readlink(src.At)
		got, err2 := sys.Readlink(c.At)
		if got != want || err1 != nil || err2 != nil {
			t.Errorf("target %q, %v; want %q, %v", got, err2, want, err1)
		}
	}
	return c
}

func checkMeta(t testing.TB, st *unix.Stat_t, m copyup.Meta) {
	t.Helper()
	type meta struct {
		owner, mode  string
		rdev         uint64
		atime, mtime unix.Timespec
	}
	got := meta{fmt.Sprintf("%d:%d", st.Uid, st.Gid), fmt.Sprintf("%o", st.Mode), st.Rdev, st.Atim, st.Mtim}
	want := meta{fmt.Sprintf("%d:%d", m.UID, m.GID), fmt.Sprintf("%o", m.Mode), m.Rdev, m.Atime, m.Mtime}
	if got != want {
		t.Errorf("the copy has %+v, want %+v", got, want)
	}
}

// maxCompared is how many bytes of data sameData compares; files with more are compared by the test itself.
const maxCompared = 64 << 20

// sameData compares the copy with the first limit bytes of the source.
func sameData(t testing.TB, src copyup.Source, copy sys.At, limit int64) {
	t.Helper()
	size := src.Stat.Size
	if limit >= 0 {
		size = min(size, limit)
	}
	if got := stat(t, copy).Size; got != size {
		t.Errorf("size %d, want %d", got, size)
	}
	if size > maxCompared {
		return
	}
	if hash(t, copy, size) != hash(t, src.At, size) {
		t.Error("the data differs")
	}
}

// hash is the checksum of the first size bytes of a regular file. Its access time does not move.
func hash(t testing.TB, a sys.At, size int64) [32]byte {
	t.Helper()
	fd, err := sys.OpenNoAtime(a, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, size)); err != nil || n != size {
		t.Errorf("read %d of %d bytes, %v", n, size, err)
	}
	return [32]byte(h.Sum(nil))
}

func stat(t testing.TB, a sys.At) unix.Stat_t {
	t.Helper()
	st, err := sys.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func xattrs(t testing.TB, a sys.At) map[string]string {
	t.Helper()
	names, err := sys.XattrNames(a)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range names {
		v, err := sys.XattrValue(a, name)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = string(v)
	}
	return got
}

// frozen is what all objects below a directory were: attributes, times included, xattrs and data.
type frozen struct {
	dir     string
	objects map[string]string
}

func freeze(t testing.TB, dir string) frozen {
	t.Helper()
	f := frozen{dir, map[string]string{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		a := sys.At{Dirfd: unix.AT_FDCWD, Name: path}
		st := stat(t, a)
		st.Blocks = 0 // ext4 and XFS count them anew when they write a file back
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			st.Atim = unix.Timespec{} // readlink(2) moves it, and has no O_NOATIME
		case unix.S_IFDIR:
			st.Atim = unix.Timespec{} // this walk moves it
		}
		f.objects[path] = fmt.Sprintf("%+v %q", st, xattrs(t, a))
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size <= maxCompared {
			f.objects[path] += fmt.Sprintf(" %x", hash(t, a, st.Size))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// check fails the test where something changed since.
func (f frozen) check(t testing.TB) {
	t.Helper()
	now := freeze(t, f.dir)
	if maps.Equal(now.objects, f.objects) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(f.objects)) {
		if now.objects[path] != f.objects[path] {
			t.Errorf("lower changed: %s\nwas %s\nis  %s", path, f.objects[path], now.objects[path])
		}
	}
	if len(now.objects) != len(f.objects) {
		t.Errorf("lower has %d objects, had %d", len(now.objects), len(f.objects))
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// mount mounts a filesystem on a new directory. Failure skips the test: it is the machine that lacks something.
func mount(t testing.TB, args ...string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Skipf("cannot mount %s: %v: %s", strings.Join(args, " "), err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mountImage makes a filesystem of the type in a file of size bytes and mounts it.
func mountImage(t testing.TB, fstype string, size int64, options string) string {
	t.Helper()
	needRoot(t)
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("no mkfs.%s on this machine", fstype)
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v: %s", fstype, err, out)
	}
	return mount(t, "-t", fstype, "-o", "loop"+options, image)
}

// onEachFilesystem runs the test with lower and staging directory on one filesystem of every kind, and with the
// lower on another one.
func onEachFilesystem(t *testing.T, test func(t *testing.T, lowerIn, workIn string)) {
	t.Run("here", func(t *testing.T) {
		dir := t.TempDir()
		test(t, dir, dir)
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := mount(t, "-t", "tmpfs", "tmpfs")
		test(t, dir, dir)
	})
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			dir := mountImage(t, fstype, 512<<20, "")
			test(t, dir, dir)
			t.Run("from-other", func(t *testing.T) { test(t, t.TempDir(), dir) })
		})
	}
}

// nobody is a user without any privilege.
const nobody = 12345

// asNobody runs fn on a thread of its own that has no privilege. The thread ends with fn. fn must not end the test.
func asNobody(t testing.TB, fn func() error) {
	t.Helper()
	needRoot(t)
	done := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked: the thread must not run anything else
		for _, call := range []func() (uintptr, uintptr, unix.Errno){
			func() (uintptr, uintptr, unix.Errno) { return unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0) },
			func() (uintptr, uintptr, unix.Errno) {
				return unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
			},
			func() (uintptr, uintptr, unix.Errno) {
				return unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
			},
		} {
			if _, _, e := call(); e != 0 {
				done <- fmt.Errorf("give up privilege: %w", e)
				return
			}
		}
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// wantErr fails the test unless err answers for errno and says what was being done.
func wantErr(t testing.TB, err error, errno unix.Errno, text string) {
	t.Helper()
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %v and %q in it", err, errno, text)
	}
}
