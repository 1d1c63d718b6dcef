package uring

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ring is a ring of this test's thread.
func ring(t *testing.T, entries int) *Ring {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := New(entries)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		t.Skipf("needs io_uring of Linux 6.1 or newer: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// null is a device that takes any command and does nothing (drivers/char/mem.c, uring_cmd_null).
func null(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestCommandsComeBack(t *testing.T) {
	r, fd := ring(t, 4), null(t)
	defer r.Close()
	next := uint64(0) // more commands than the queues are long
	for range 10 {
		for i := range uint64(3) {
			if !r.Queue(&Command{Fd: fd, UserData: next + i}) {
				t.Fatal("no room for 3 of 4")
			}
		}
		seen := map[uint64]bool{}
		for len(seen) < 3 {
			if errno := r.Enter(-1); errno != 0 {
				t.Fatal(errno)
			}
			for {
				data, res, ok := r.Completion()
				if !ok {
					break
				}
				if res == -int32(unix.EOPNOTSUPP) {
					t.Skip("needs a /dev/null that takes commands")
				}
				if res != 0 || data < next || data >= next+3 || seen[data] {
					t.Fatalf("completion of %d with %d, want one of %d and the next two with 0", data, res, next)
				}
				seen[data] = true
			}
		}
		next += 3
	}
}

func TestFullQueue(t *testing.T) {
	r, fd := ring(t, 2), null(t)
	defer r.Close()
	for range 2 {
		if !r.Queue(&Command{Fd: fd}) {
			t.Fatal("no room for 2 of 2")
		}
	}
	if r.Queue(&Command{Fd: fd}) {
		t.Error("room for 3 of 2")
	}
}

func TestRefusedCommand(t *testing.T) {
	r := ring(t, 1)
	defer r.Close()
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r.Queue(&Command{Fd: fd, UserData: 7})
	if errno := r.Enter(0); errno != 0 {
		t.Fatal(errno)
	}
	if data, res, ok := r.Completion(); !ok || data != 7 || res != -int32(unix.EOPNOTSUPP) {
		t.Errorf("a directory answers %d, %d, %v", data, res, ok)
	}
}

func TestEnterGivesUp(t *testing.T) {
	r := ring(t, 1)
	defer r.Close()
	if errno := r.Enter(0); errno != 0 {
		t.Errorf("without waiting: %v", errno)
	}
	if errno := r.Enter(10 * time.Millisecond); errno != unix.ETIME {
		t.Errorf("after the timeout: %v, want ETIME", errno)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	ring(t, 8).Close() // whatever the first one makes for good
	before := held(t)
	for range 5 {
		ring(t, 8).Close()
	}
	if after := held(t); after != before {
		t.Errorf("descriptors and mappings of rings: %d, before %d", after, before)
	}
}

// held counts descriptors, and mappings of rings.
func held(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds) + strings.Count(string(maps), "[io_uring]")
}
