package copyup_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

func TestTempNames(t *testing.T) {
	s := copyup.NewStager(copyup.Options{Work: 7})
	seen := map[sys.At]bool{}
	for range 10_000 {
		a := s.Temp()
		if a.Dirfd != 7 || !sys.ValidName(a.Name) || strings.HasPrefix(a.Name, ".wh.") || seen[a] {
			t.Fatalf("bad or repeated %+v", a)
		}
		seen[a] = true
	}
}

// deep makes directories below the directory open as fd, each in the last, with a file and an empty directory in
// every one, and gives them the mode at the end.
func deep(t *testing.T, dirfd int, name string, depth int, mode uint32) {
	t.Helper()
	for range depth {
		at := sys.At{Dirfd: dirfd, Name: name}
		if err := sys.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := sys.Mknod(sys.At{Dirfd: fd, Name: ".wh.gone"}, unix.S_IFREG, 0); err != nil {
			t.Fatal(err)
		}
		if err := sys.Mkdir(sys.At{Dirfd: fd, Name: "empty"}, mode); err != nil {
			t.Fatal(err)
		}
		if err := sys.Chmod(sys.Fd(dirfd), 0o700); err != nil {
			t.Fatal(err)
		}
		if dirfd, name = fd, "next"; err != nil {
			t.Fatal(err)
		}
		defer func(fd int) {
			if err := sys.Chmod(sys.Fd(fd), mode); err != nil {
				t.Error(err)
			}
			sys.Close(fd)
		}(fd)
	}
}

func TestCleanRemovesEverything(t *testing.T) {
	onEachFilesystem(t, func(t *testing.T, _, workIn string) {
		e := newEnv(t, t.TempDir(), workIn)
		e.write(t, "kept", "data")
		work := func(name string) string { return filepath.Join(e.work, name) }
		// A leftover may have any name, also those that this Stager will think of.
		for i := range 40 {
			name := strconv.FormatInt(int64(i), 36)
			switch i % 3 {
			case 0:
				deep(t, e.workFd, name, 3, 0)
			case 1:
				if err := os.WriteFile(work(name), nil, 0); err != nil {
					t.Fatal(err)
				}
			case 2:
				if err := os.Mkdir(work(name), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, target := range map[string]string{"link": e.lower, "dangling": "nowhere", "up": ".."} {
			if err := os.Symlink(target, work(name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkfifo(work("fifo"), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(work(strings.Repeat("\xff", 255)), nil, 0); err != nil {
			t.Fatal(err)
		}
		deep(t, e.workFd, "deep", 300, 0)
		for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
			_ = sys.Setxattr(sys.Fd(e.workFd), acl, []byte(aclOfWork()), 0) // not every filesystem has them
		}

		frozen := freeze(t, e.lower)
		if err := e.s.Clean(); err != nil {
			t.Error(err)
		}
		e.workEmpty(t)
		frozen.check(t)
		for name := range xattrs(t, sys.Fd(e.workFd)) {
			if strings.HasPrefix(name, "system.") {
				t.Errorf("the staging directory still has %s", name)
			}
		}
	})
}

func aclOfWork() string { return acl(7, 7) }

// TestCleanVeryDeep has a tree that no path and no number of descriptors reaches the end of.
func TestCleanVeryDeep(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	name := strings.Repeat("d", 200)
	fd := e.workFd
	for i := range 3000 { // 600,000 bytes of path
		at := sys.At{Dirfd: fd, Name: name}
		if err := sys.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			sys.Close(fd)
		}
		fd = next
	}
	sys.Close(fd)

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	if err := e.s.Clean(); err != nil {
		t.Error(err)
	}
	e.workEmpty(t)
}

func TestCleanWithoutPrivilege(t *testing.T) {
	needRoot(t) // to give it up
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	deep(t, e.workFd, "deep", 20, 0)
	deep(t, e.workFd, "readable", 3, 0o500)
	err := filepath.WalkDir(e.work, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	asNobody(t, e.s.Clean)
	e.workEmpty(t)
}

// TestCleanStopsAtMounts shows that a filesystem mounted in a leftover is not emptied, and all else is.
func TestCleanStopsAtMounts(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	for _, name := range []string{"a", "with/point", "z"} {
		if err := os.MkdirAll(filepath.Join(e.work, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	point := filepath.Join(e.work, "with/point")
	if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(point, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(t, e.s.Clean(), unix.EBUSY, `clean staging directory: remove "with"`)
	if _, err := os.Stat(filepath.Join(point, "precious")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(e.work); len(entries) != 1 || err != nil {
		t.Errorf("entries %v, %v: want the one with the mount", entries, err)
	}
}

func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.s.Discard(sys.At{Dirfd: e.workFd, Name: "not there"})
	for i := range 3 {
		a := e.s.Temp()
		deep(t, e.workFd, a.Name, i+1, 0)
		e.s.Discard(a)
		e.workEmpty(t)
	}
	// A directory moved aside, with very many whiteouts in it.
	a := e.s.Temp()
	if err := sys.Mkdir(a, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(e.work, a.Name, fmt.Sprintf(".wh.%d", i)), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	e.s.Discard(a)
	e.workEmpty(t)
}
