package regress

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// FIFREEZE and FITHAW of linux/fs.h: nobody writes to a filesystem between the two.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// frozen performs f while nothing can be written to the disk mounted on mnt.
func frozen(t *testing.T, mnt string, f func()) {
	t.Helper()
	fd, err := unix.Open(mnt, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, fiFreeze, 0); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	defer func() {
		if err := unix.IoctlSetInt(fd, fiThaw, 0); err != nil {
			t.Errorf("thaw: %v", err)
		}
	}()
	f()
}

type descriptors []int

// keepUnnamed makes so many files in the directory open as dirfd, and unlinks them while they are open.
func keepUnnamed(dirfd, n int) (open descriptors) {
	for ; n > 0; n-- {
		name := fmt.Sprintf("unnamed%d.%d", dirfd, n)
		fd, err := unix.Openat(dirfd, name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			break
		}
		_, _ = unix.Write(fd, []byte("content"))
		_ = unix.Unlinkat(dirfd, name, 0)
		open = append(open, fd)
	}
	return open
}

func (d descriptors) close() {
	for _, fd := range d {
		_ = unix.Close(fd)
	}
}

// changes makes changes of every kind in the directory open as dirfd until stop is closed, and 300 at least.
func changes(dirfd int, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			if n >= 300 {
				return
			}
		default:
		}
		// What these answer is the business of other tests.
		a, b := fmt.Sprintf("a%d", n%50), fmt.Sprintf("b%d", n%50)
		if fd, err := unix.Openat(dirfd, a, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err == nil {
			_, _ = unix.Write(fd, []byte(a))
			_ = unix.Close(fd)
		}
		low := fmt.Sprintf("low%d", n%300)
		_ = unix.Fchmodat(dirfd, low, uint32(0o600+n%64), 0)
		if n%10 > 0 {
			continue
		}
		_ = unix.Renameat(dirfd, a, dirfd, b)
		_ = unix.Mkdirat(dirfd, "d"+a, 0o755)
		_ = unix.Renameat(dirfd, low, dirfd, "d"+a+"/moved")
		_ = unix.Unlinkat(dirfd, "d"+a+"/moved", 0)
		_ = unix.Unlinkat(dirfd, "d"+a, unix.AT_REMOVEDIR)
		_ = unix.Unlinkat(dirfd, fmt.Sprintf("low%d", n%50), 0)
	}
}

// unmountings are the ways in which a mount ends. Each returns when the mount is gone, after changes that lasted until
// just before.
var unmountings = []struct {
	name string
	opts []string
	end  func(t *testing.T, m *uniontest.Mount)
}{
	{"umount", nil, endByUmount},
	{"umount, writeback", []string{"writeback"}, func(t *testing.T, m *uniontest.Mount) {
		changeAll(t, m, 0, 200)
		must(t, unix.Unmount(m.Dir(), 0))
	}},
	{"umount, whiteout=overlay", []string{"whiteout=overlay", "redirect_dir=on"}, endByUmount},
	{"umount -l under load", nil, func(t *testing.T, m *uniontest.Mount) {
		endUnderLoad(t, m, func() { must(t, unix.Unmount(m.Dir(), unix.MNT_DETACH)) })
	}},
	{"SIGTERM under load", []string{"writeback"}, func(t *testing.T, m *uniontest.Mount) {
		endUnderLoad(t, m, func() {
			must(t, unix.Kill(m.Pid(), unix.SIGTERM))
			wantUnmounted(t, m)
		})
	}},
	{"SIGTERM", nil, func(t *testing.T, m *uniontest.Mount) {
		changeAll(t, m, 400, 200)
		must(t, unix.Kill(m.Pid(), unix.SIGTERM))
		wantUnmounted(t, m)
	}},
	{"umount -l, then its users are killed", nil, func(t *testing.T, m *uniontest.Mount) {
		var users []*exec.Cmd
		for n := range 3 { // one process each: the children of a shell would outlive it
			c := exec.Command("python3", "-c", endlessChanges, fmt.Sprint(n))
			c.Dir = m.Dir()
			if err := c.Start(); err != nil {
				t.Skipf("needs python3: %v", err)
			}
			users = append(users, c)
		}
		changeAll(t, m, 400, 100)
		must(t, unix.Unmount(m.Dir(), unix.MNT_DETACH))
		for _, c := range users {
			must(t, c.Process.Kill())
		}
		for _, c := range users {
			_ = c.Wait() // it was killed
		}
	}},
}

const endlessChanges = `
import os, sys
while True:
    for i in range(100):
        name, new = "low%d" % (i * 3 + int(sys.argv[1])), "k" + sys.argv[1]
        for f in (lambda: open(new, "w").write("x" * 10000), lambda: os.chmod(name, 0o600 + i), lambda: os.rename(name, new),
                  lambda: os.rename(new, name), lambda: os.mkdir("d" + new), lambda: os.rmdir("d" + new)):
            try:
                f()
            except OSError:
                pass
`

// changeAll keeps so many files without a name open while it makes changes for some milliseconds, and lets go of all.
func changeAll(t *testing.T, m *uniontest.Mount, keep int, milliseconds time.Duration) {
	t.Helper()
	fd, err := unix.Open(m.Dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	unnamed := keepUnnamed(fd, keep)
	stop := make(chan struct{})
	time.AfterFunc(milliseconds*time.Millisecond, func() { close(stop) })
	changes(fd, stop)
	unnamed.close()
	must(t, unix.Close(fd))
}

// endByUmount leaves the server a lot to forget.
func endByUmount(t *testing.T, m *uniontest.Mount) {
	changeAll(t, m, 5000, 100)
	must(t, unix.Unmount(m.Dir(), 0))
}

// endUnderLoad has changes made by four at once while the mount is taken off its place, and a while after.
func endUnderLoad(t *testing.T, m *uniontest.Mount, unmount func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 4 {
		fd, err := unix.Open(m.Dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		all.Go(func() {
			unnamed := keepUnnamed(fd, 100)
			changes(fd, stop)
			unnamed.close()
			_ = unix.Close(fd)
		})
	}
	unmount()
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	all.Wait()
}

// wantUnmounted waits until nothing is mounted at the mount point.
func wantUnmounted(t *testing.T, m *uniontest.Mount) {
	t.Helper()
	for end := time.Now().Add(hangLimit); ; {
		b, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		if !strings.Contains(string(b), " "+m.Dir()+" ") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("still mounted")
		}
	}
}

// When an unmount has returned, the upper and the work directory are what they will be: who looks at the upper then, or
// copies it, sees all of it.
func TestNothingIsWrittenAfterUnmount(t *testing.T) {
	for _, u := range unmountings {
		t.Run(u.name, func(t *testing.T) {
			mnt := disk(t, "ext4", 64, "noatime")
			rounds := 1
			if os.Getenv("LAMINA_LONG") != "" {
				rounds = 10
			}
			for round := range rounds {
				l := newLayers(t)
				l.Trust = true // many of them, and hashed by every other test
				must(t, os.Mkdir(fmt.Sprintf("%s/%d", mnt, round), 0o755))
				upperOn(t, l, fmt.Sprintf("%s/%d", mnt, round))
				for n := range 300 {
					write(t, fmt.Sprintf("%s/low%d", l.Lowers[0], n), "lower")
				}
				t.Setenv(maxFiles, "256") // some of what has no name is kept by name, in the work directory
				m := uniontest.Start(t, uniontest.Laminafs, l, u.opts...)
				u.end(t, m)
				var before, after uniontest.TreeState
				frozen(t, mnt, func() { before = uniontest.StateOf(t, l.Upper, l.Work) })
				m.Ended()
				after = uniontest.StateOf(t, l.Upper, l.Work)
				for _, d := range before.Diff(after) {
					t.Errorf("written after the unmount: %s", d)
				}
				if before.Len() < 50 {
					t.Errorf("only %d objects in upper and work directory: nothing was changed", before.Len())
				}
			}
		})
	}
}
