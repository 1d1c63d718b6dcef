package sys_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "...": true, ".a": true, "\xff\n": true, strings.Repeat("n", 300): true, // the filesystem says how long
		"": false, ".": false, "..": false, "/": false, "a/b": false, "a/": false, "a\x00": false,
	} {
		if got := sys.ValidName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// objects makes one object of every kind that needs no privilege, and returns it by name and by O_PATH descriptor.
func objects(t *testing.T) (dirfd int, all map[string][]sys.At) {
	t.Helper()
	dir, dirfd := openDir(t)
	writeFile(t, filepath.Join(dir, "file"), "data")
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "dir"), 0o700),
		os.Symlink("file", filepath.Join(dir, "link")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		sys.Mknod(sys.At{Dirfd: dirfd, Name: "fifo"}, unix.S_IFIFO|0o600, 0),
		sys.Mknod(sys.At{Dirfd: dirfd, Name: "socket"}, unix.S_IFSOCK|0o600, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	all = map[string][]sys.At{}
	for _, name := range []string{"file", "dir", "link", "dangling", "fifo", "socket"} {
		at := sys.At{Dirfd: dirfd, Name: name}
		fd, err := sys.Open(at, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sys.Close(fd) })
		all[name] = []sys.At{at, sys.Fd(fd)}
	}
	return dirfd, all
}

// TestChangesReachTheObjectItself: by name and by descriptor, and never what a symbolic link leads to.
func TestChangesReachTheObjectItself(t *testing.T) {
	_, all := objects(t)
	for name, ats := range all {
		link := name == "link" || name == "dangling"
		for i, at := range ats {
			var target unix.Stat_t
			if name == "link" {
				target, _ = sys.Stat(all["file"][0])
			}
			atime, mtime := unix.Timespec{Sec: int64(i) + 1, Nsec: 1}, unix.Timespec{Sec: int64(i) + 5, Nsec: 999999999}
			if err := sys.Utimens(at, atime, mtime); err != nil {
				t.Errorf("%s: utimens: %v", name, err)
			}
			mode := uint32(0o640 + i)
			if err := sys.Chmod(at, mode); link != (err == unix.EOPNOTSUPP) || !link && err != nil {
				t.Errorf("%s: chmod: %v", name, err)
			}
			if err := sys.Chown(at, os.Getuid(), -1); err != nil {
				t.Errorf("%s: chown: %v", name, err)
			}
			st, err := sys.Stat(at)
			if err != nil || st.Atim != atime || st.Mtim != mtime || !link && st.Mode&0o7777 != mode {
				t.Errorf("%s: mode %o, times %v %v, %v", name, st.Mode, st.Atim, st.Mtim, err)
			}
			if link && st.Mode&unix.S_IFMT != unix.S_IFLNK {
				t.Errorf("%s: stat followed it: mode %o", name, st.Mode)
			}
			sx, err := sys.Statx(at, unix.STATX_BASIC_STATS|unix.STATX_BTIME)
			if err != nil || sx.Ino != st.Ino || uint32(sx.Mode) != st.Mode {
				t.Errorf("%s: statx: inode %d mode %o, %v", name, sx.Ino, sx.Mode, err)
			}
			if name == "link" {
				now, _ := sys.Stat(all["file"][0])
				if now.Blocks = target.Blocks; now != target { // the disk counts its blocks anew when it writes it back
					t.Errorf("the link's target changed: %+v", now)
				}
			}
		}
	}
}

func TestOpenDoesNotFollow(t *testing.T) {
	dirfd, all := objects(t)
	if fd, err := sys.Open(all["link"][0], unix.O_RDONLY, 0); err != unix.ELOOP {
		t.Errorf("open a link: %d, %v; want ELOOP", fd, err)
	}
	fd, err := sys.Open(all["file"][1], unix.O_RDWR, 0) // more than the descriptor at hand has
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	if _, err := unix.Write(fd, []byte("new")); err != nil {
		t.Error(err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v: not close-on-exec", flags, err)
	}

	for name, want := range map[string]error{"..": unix.EXDEV, "link": unix.ELOOP, "/": unix.EXDEV, "none": unix.ENOENT} {
		if fd, err := sys.OpenBeneath(dirfd, name, unix.O_RDONLY); err != want {
			t.Errorf("open %s beneath: %d, %v; want %v", name, fd, err, want)
		}
	}
}

func TestOpenBeneathStopsAtMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir, dirfd := openDir(t)
	point := filepath.Join(dir, "point")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	if fd, err := sys.OpenBeneath(dirfd, "point", unix.O_RDONLY|unix.O_DIRECTORY); err != unix.EXDEV {
		t.Errorf("open a mount point: %d, %v; want EXDEV", fd, err)
	}
}

func TestOpenNoAtime(t *testing.T) {
	_, all := objects(t)
	file := all["file"][0]
	old := unix.Timespec{Sec: 1}
	if err := sys.Utimens(file, old, unix.Timespec{Sec: 2}); err != nil {
		t.Fatal(err)
	}
	fd, err := sys.OpenNoAtime(file, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	if n, err := unix.Read(fd, make([]byte, 10)); n != 4 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if st, err := sys.Stat(file); st.Atim != old || err != nil {
		t.Errorf("atime %v, %v: it moved", st.Atim, err)
	}
}

func TestReadlink(t *testing.T) {
	dir, dirfd := openDir(t)
	for i, target := range []string{"a", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x/", 1000)} {
		name := fmt.Sprint(i)
		if err := sys.Symlink(target, sys.At{Dirfd: dirfd, Name: name}); err != nil {
			t.Fatal(err)
		}
		fd, err := sys.Open(sys.At{Dirfd: dirfd, Name: name}, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []sys.At{{Dirfd: dirfd, Name: name}, sys.Fd(fd)} {
			if got, err := sys.Readlink(at); got != target || err != nil {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(target))
			}
		}
		sys.Close(fd)
	}
	writeFile(t, filepath.Join(dir, "file"), "")
	if _, err := sys.Readlink(sys.At{Dirfd: dirfd, Name: "file"}); err != unix.EINVAL {
		t.Errorf("of a file: %v, want EINVAL", err)
	}
}

func TestLinkOfAFileWithoutName(t *testing.T) {
	_, dirfd := openDir(t)
	fd, err := sys.Open(sys.At{Dirfd: dirfd, Name: "."}, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err == unix.EOPNOTSUPP {
		t.Skip("the filesystem has no O_TMPFILE")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	to := sys.At{Dirfd: dirfd, Name: "named"}
	if err := sys.Link(sys.Fd(fd), to); err != nil {
		t.Fatal(err)
	}
	if err := sys.Link(to, sys.At{Dirfd: dirfd, Name: "again"}); err != nil {
		t.Fatal(err)
	}
	a, err1 := sys.Stat(sys.Fd(fd))
	b, err2 := sys.Stat(to)
	if a != b || a.Nlink != 2 || err1 != nil || err2 != nil {
		t.Errorf("%+v, %v and %+v, %v: not one file with two names", a, err1, b, err2)
	}
}

func TestRenameFlags(t *testing.T) {
	dir, dirfd := openDir(t)
	writeFile(t, filepath.Join(dir, "a"), "a")
	writeFile(t, filepath.Join(dir, "b"), "b")
	a, b := sys.At{Dirfd: dirfd, Name: "a"}, sys.At{Dirfd: dirfd, Name: "b"}
	if err := sys.Rename(a, b, unix.RENAME_NOREPLACE); err != unix.EEXIST {
		t.Errorf("no replace: %v, want EEXIST", err)
	}
	if err := sys.Rename(a, b, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a")); string(got) != "b" || err != nil {
		t.Errorf("after the exchange: %q, %v", got, err)
	}
}

func TestReadDir(t *testing.T) {
	dir, fd := openDir(t)
	want := map[string]uint8{}
	for i := range 3000 { // more than one buffer holds
		name := fmt.Sprintf("%0100d", i)
		writeFile(t, filepath.Join(dir, name), "")
		want[name] = unix.DT_REG
	}
	if err := os.Symlink("x", filepath.Join(dir, "\xff\n")); err != nil {
		t.Fatal(err)
	}
	want["\xff\n"] = unix.DT_LNK
	// Each time from the beginning; but the last, which goes on at the end.
	for i, read := range []func(int, func(sys.Dirent)) error{sys.ReadDirOn, sys.ReadDir, sys.ReadDir, sys.ReadDirOn} {
		seen := 0
		if i == 3 {
			clear(want)
		}
		err := read(fd, func(e sys.Dirent) {
			seen++
			if typ, ok := want[e.Name]; !ok || e.Type != typ && e.Type != unix.DT_UNKNOWN || e.Ino == 0 {
				t.Errorf("entry %+v", e)
			}
		})
		if err != nil || seen != len(want) {
			t.Errorf("%d entries, %v; want %d", seen, err, len(want))
		}
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	if _, err := sys.ListDir(fd, 64<<10); err != sys.ErrManyDirents {
		t.Errorf("all at once, with a limit: %v, want ErrManyDirents", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	all, err := sys.ListDir(fd, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = all.Each(func(e sys.Dirent) { seen[e.Name] = true })
	if n, err := all.Count(); n != 3001 || err != nil || len(seen) != n || !seen["\xff\n"] || all.Size() < 3000*(20+100) {
		t.Errorf("all at once: %d entries, %v, %d names, %d bytes", n, err, len(seen), all.Size())
	}
	if err != nil {
		t.Error(err)
	}
	file, err := sys.Open(sys.At{Dirfd: fd, Name: fmt.Sprintf("%0100d", 0)}, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(file)
	if err := sys.ReadDir(file, func(sys.Dirent) {}); err != unix.ENOTDIR {
		t.Errorf("of a file: %v, want ENOTDIR", err)
	}
}

func TestRemoveAll(t *testing.T) {
	dir, dirfd := openDir(t)
	outside := t.TempDir()
	writeFile(t, filepath.Join(outside, "kept"), "")
	if err := os.MkdirAll(filepath.Join(dir, "d/e/f"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "d/e/f/file"), "")
	writeFile(t, filepath.Join(dir, "d/file"), "")
	if err := os.Symlink(outside, filepath.Join(dir, "d/link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d/e/f", "d/e", "d"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // what is not there is no error
		if err := sys.RemoveAll(sys.At{Dirfd: dirfd, Name: "d"}); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "d")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}
