package regress

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/leak"
	"golang.org/x/sys/unix"
)

// hangLimit is how long anything here may take. Nothing that works needs a hundredth of it, but where it waits for the disk.
const hangLimit = time.Minute

var faultFile string

// maxFiles is the environment variable with the limit on descriptors for the servers to come.
const maxFiles = "REGRESS_MAX_FILES"

// TestMain has the server built so that its fault points can be armed, unless LAMINAFS names one that is.
func TestMain(m *testing.M) {
	os.Exit(leak.Run(func() int { return runAll(m) }))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "regress-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // servers of another user, too, are in there
	}
	if err == nil {
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return m.Run()
}

func prepare(dir string) error {
	binary := os.Getenv("LAMINAFS")
	if binary == "" {
		binary = filepath.Join(dir, "laminafs")
		argv, env := []string{"build", "-tags", "faults", "-o", binary}, append(os.Environ(), "CGO_ENABLED=0")
		if os.Getenv("LAMINA_RACE") == "1" {
			argv, env = append(argv, "-race"), append(os.Environ(), "CGO_ENABLED=1")
		}
		cmd := exec.Command("go", append(argv, "github.com/laminafs/lamina/cmd/laminafs")...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build -tags faults: %w\n%s", err, out)
		}
	}
	// A limit of the test process itself could not be lifted again without CAP_SYS_RESOURCE.
	limiting := fmt.Sprintf("#!/bin/sh\n[ -z \"$%s\" ] || ulimit -n \"$%s\" || exit\nexec '%s' \"$@\"\n", maxFiles, maxFiles, binary)
	script := filepath.Join(dir, "limited")
	faultFile = filepath.Join(dir, "armed")
	return errors.Join(os.WriteFile(script, []byte(limiting), 0o755), os.Setenv("LAMINAFS", script),
		os.Setenv("LAMINA_FAULT_FILE", faultFile))
}

func newLayers(t *testing.T) *uniontest.Layers {
	t.Helper()
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	return uniontest.NewLayers(t, 1)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

// inTime kills the server where f does not end, so that at least the test does.
func inTime(t *testing.T, m *uniontest.Mount, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(hangLimit):
		m.Kill()
		<-done
		t.Fatal("the server does not answer")
	}
}

// armed performs f with fault points armed.
func armed(t *testing.T, what string, f func() error) error {
	t.Helper()
	must(t, os.WriteFile(faultFile, []byte(what), 0o644))
	defer os.Remove(faultFile)
	return f()
}

// killedAt performs f, during which the server dies, and mounts again.
func killedAt(t *testing.T, m *uniontest.Mount, point string, f func() error) {
	t.Helper()
	if err := armed(t, point+"=kill", f); err == nil {
		t.Fatalf("the server has not died at %s", point)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Dir(), &st); err == nil {
		t.Fatalf("the server lives on at %s", point)
	}
	m.Kill()
	m.Remount()
}

// A removed directory that somebody has open was opened again by its name, which was that of another directory then:
// its former owner could change the mode and attributes of that one.
func TestRemovedDirIsNotTheNextOfItsName(t *testing.T) {
	l := newLayers(t)
	t.Setenv(maxFiles, "256")
	uniontest.Start(t, uniontest.Laminafs, l)
	const others = 200 // more than what the server then keeps open
	for n := range others {
		must(t, os.Mkdir(fmt.Sprintf("%s/other%d", l.Merged, n), 0o755))
	}
	x := l.Merged + "/x"
	must(t, os.Mkdir(x, 0o700))
	fd, err := unix.Open(x, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, os.Remove(x), os.Mkdir(x, 0o700))
	for n := range others { // the descriptor of the one removed goes
		write(t, fmt.Sprintf("%s/other%d/f", l.Merged, n), "")
	}
	// What these say of the removed one is open: the kernel's directories take both.
	_ = unix.Fchmod(fd, 0o777)
	_ = unix.Fsetxattr(fd, "user.evil", []byte("1"), 0)
	_ = unix.Fchown(fd, 1000, 1000)
	for _, path := range []string{x, l.Upper + "/x"} {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		if st.Mode&0o7777 != 0o700 || st.Uid != 0 {
			t.Errorf("%s: mode %o, owner %d", path, st.Mode&0o7777, st.Uid)
		}
		if _, err := unix.Getxattr(path, "user.evil", nil); !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s has the attribute of the other: %v", path, err)
		}
	}
}

// The kernel writes back what was written to a mapping without a lock on the file. The copy-up for that had made the
// directory of the file's first name ready; with that name gone it went on in another one, which was not.
func TestUnlinkDuringCopyUpOfWriteback(t *testing.T) {
	l := newLayers(t)
	l.Trust = true // the file is large, and is checked below
	must(t, os.Mkdir(l.Lowers[0]+"/p1", 0o755), os.Mkdir(l.Lowers[0]+"/p2", 0o755))
	const extents, each, apart = 10000, 4096, 16384
	low, err := os.Create(l.Lowers[0] + "/p1/a")
	must(t, err)
	defer low.Close()
	page := make([]byte, each)
	for n := range int64(extents) { // so that a copy takes its time
		_, err := low.WriteAt(page, n*apart)
		must(t, err)
	}
	must(t, os.Link(l.Lowers[0]+"/p1/a", l.Lowers[0]+"/p2/b"))

	m := uniontest.Start(t, uniontest.Laminafs, l)
	b := l.Merged + "/p2/b"
	inTime(t, m, func() {
		_, err1 := os.Stat(l.Merged + "/p1/a") // the first name
		fd, err2 := unix.Open(b, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		mem, err := unix.Mmap(fd, 0, each, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Munmap(mem)
		mem[0] = 'Z'
		var both sync.WaitGroup
		both.Go(func() {
			const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
			if err := unix.SyncFileRange(fd, 0, 0, all); err != nil {
				t.Errorf("write back: %v", err)
			}
		})
		for end := time.Now().Add(hangLimit / 2); time.Now().Before(end); {
			if staged, err := os.ReadDir(l.Work + "/work"); err != nil || len(staged) > 0 {
				break // the copy has begun
			}
		}
		if err := os.Remove(l.Merged + "/p1/a"); err != nil {
			t.Error(err)
		}
		both.Wait()
		if err := os.WriteFile(l.Merged+"/p2/new", nil, 0o644); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	m.Remount()
	f, err := os.Open(b)
	must(t, err)
	defer f.Close()
	got := make([]byte, 2)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "Z\x00" {
		t.Errorf("b begins with %q, %v", got, err)
	}
	if _, err := low.ReadAt(got, 0); err != nil || got[0] != 0 {
		t.Errorf("the lower file begins with %q, %v", got, err)
	}
}

// Two names of one file, looked up for the first time at the same moment: one could be found as the other's node
// before that had a nodeid, and nodeid 0 says that there is nothing. The moment is short: a server with this fault passes
// more often than not.
func TestLookupOfTwoNamesAtOnce(t *testing.T) {
	for _, where := range []string{"lower", "upper"} {
		t.Run(where, func(t *testing.T) {
			l := newLayers(t)
			dir := map[string]string{"lower": l.Lowers[0], "upper": l.Upper}[where]
			must(t, os.Mkdir(dir+"/x", 0o755), os.Mkdir(dir+"/y", 0o755))
			const pairs = 1500
			for n := range pairs {
				name := fmt.Sprint("/", n)
				write(t, dir+"/x"+name, "1")
				must(t, os.Link(dir+"/x"+name, dir+"/y"+name))
			}
			m := uniontest.Start(t, uniontest.Laminafs, l)
			inTime(t, m, func() {
				for n := range pairs {
					var both sync.WaitGroup
					begin := make(chan struct{})
					for _, d := range []string{"x", "y"} {
						both.Go(func() {
							<-begin
							if _, err := os.Stat(fmt.Sprintf("%s/%s/%d", l.Merged, d, n)); err != nil {
								t.Error(err)
							}
						})
					}
					close(begin)
					both.Wait()
				}
			})
		})
	}
}

// Without redirects a directory moves by copy. With many files of two names each in it, one name was taken to be in the
// upper because the other was, and the move gave EIO.
func TestMoveDirOfHardLinks(t *testing.T) {
	l := newLayers(t)
	const pairs = 400
	must(t, os.Mkdir(l.Lowers[0]+"/d", 0o755))
	for n := range pairs {
		a := fmt.Sprintf("%s/d/a%d", l.Lowers[0], n)
		write(t, a, fmt.Sprint(n))
		must(t, os.Link(a, fmt.Sprintf("%s/d/b%d", l.Lowers[0], n)))
	}
	m := uniontest.Start(t, uniontest.Laminafs, l)
	mv := func(from, to string) { uniontest.Run(t, m, "mv", "-T", m.Dir()+"/"+from, m.Dir()+"/"+to) }
	mv("d", "e")
	mv("e", "d")
	mv("d", "e")
	m.Remount()
	for n := range pairs {
		var a, b unix.Stat_t
		must(t, unix.Stat(fmt.Sprintf("%s/e/a%d", l.Merged, n), &a), unix.Stat(fmt.Sprintf("%s/e/b%d", l.Merged, n), &b))
		if a.Ino != b.Ino || a.Nlink != 2 {
			t.Errorf("pair %d: inodes %d and %d, %d links", n, a.Ino, b.Ino, a.Nlink)
		}
		wantContent(t, fmt.Sprintf("%s/e/b%d", l.Merged, n), fmt.Sprint(n))
	}
}

// An open with O_TRUNC copies nothing, because all would go away. When it then failed, an empty copy was left where
// the other names look for one.
func TestFailedTruncOfHardLinkKeepsContent(t *testing.T) {
	l := newLayers(t)
	write(t, l.Lowers[0]+"/a", "precious")
	must(t, os.Link(l.Lowers[0]+"/a", l.Lowers[0]+"/b"))
	m := uniontest.Start(t, uniontest.Laminafs, l)
	err := armed(t, "unionfs.copyup.indexed=ENOSPC", func() error { return os.WriteFile(l.Merged+"/a", nil, 0) })
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("truncate: %v, want ENOSPC", err)
	}
	for range 2 {
		wantContent(t, l.Merged+"/a", "precious")
		wantContent(t, l.Merged+"/b", "precious")
		m.Remount()
	}
	write(t, l.Merged+"/b", "new")
	wantContent(t, l.Merged+"/a", "new")
}

// After a crash in the middle of link(2) of a file that is in the index, the last of its names took the new content
// along when the others were removed.
func TestKilledInLinkOfHardLink(t *testing.T) {
	l := newLayers(t)
	write(t, l.Lowers[0]+"/a", "old")
	must(t, os.Link(l.Lowers[0]+"/a", l.Lowers[0]+"/b"))
	m := uniontest.Start(t, uniontest.Laminafs, l)
	write(t, l.Merged+"/a", "new")
	killedAt(t, m, "unionfs.link.linked", func() error { return os.Link(l.Merged+"/a", l.Merged+"/c") })
	var st unix.Stat_t
	names := uint64(2)
	if unix.Stat(l.Merged+"/c", &st) == nil {
		names++
	}
	must(t, unix.Stat(l.Merged+"/b", &st))
	if uint64(st.Nlink) != names {
		t.Errorf("%d links, want %d", st.Nlink, names)
	}
	must(t, os.Remove(l.Merged+"/a"))
	_ = os.Remove(l.Merged + "/c") // the link may have been made, or not
	for range 2 {
		wantContent(t, l.Merged+"/b", "new")
		m.Remount()
	}
}

// A rename over a directory that was moved itself, and emptied: after a crash before the rename that directory was
// full again, because the whiteouts were gone but not the redirect.
func TestKilledInRenameOverEmptiedMovedDir(t *testing.T) {
	l := newLayers(t)
	must(t, os.Mkdir(l.Lowers[0]+"/d", 0o755), os.Mkdir(l.Lowers[0]+"/s", 0o755))
	write(t, l.Lowers[0]+"/d/f", "1")
	write(t, l.Lowers[0]+"/s/g", "2")
	m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")
	must(t, os.Rename(l.Merged+"/d", l.Merged+"/d2"), os.Remove(l.Merged+"/d2/f"))
	killedAt(t, m, "unionfs.rename.prepared", func() error { return unix.Rename(l.Merged+"/s", l.Merged+"/d2") })
	left, err := os.ReadDir(l.Merged + "/d2")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("d2 holds %s", left[0].Name())
	}
	must(t, unix.Rename(l.Merged+"/s", l.Merged+"/d2"))
	wantContent(t, l.Merged+"/d2/g", "2")
}
