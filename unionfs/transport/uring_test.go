package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

const enableUringFile = "/sys/module/fuse/parameters/enable_uring"

// enableUring has the kernel offer FUSE over io_uring to mounts made from now on.
func enableUring(t testing.TB) {
	t.Helper()
	setUntilEnd(t, enableUringFile, "Y", "FUSE over io_uring")
}

// setUntilEnd writes to a parameter of the kernel, and what it was at the end of the test.
func setUntilEnd(t testing.TB, file, value, what string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("needs a kernel with %s: %v", what, err)
	}
	if strings.TrimSpace(string(b)) == value {
		return
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Skipf("needs to set %s to %s: %v", file, value, err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, bytes.TrimSpace(b), 0); err != nil {
			t.Error(err)
		}
	})
}

// slowfs is a memfs where "slow..." is found only when somebody closes release, "long..." too but says so, and
// "patient..." never, but it can be interrupted.
type slowfs struct {
	*memfs
	notifier *Notifier
	began    chan string
}

func (s *slowfs) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case strings.HasPrefix(name, "long"):
		s.notifier.Blocking()
		fallthrough
	case strings.HasPrefix(name, "slow"):
		s.began <- name
		<-s.release
		return fuse.ENOENT
	case strings.HasPrefix(name, "patient"):
		s.began <- name
		<-cancel
		return fuse.EINTR
	}
	return s.memfs.Lookup(cancel, h, name, out)
}

// overUring mounts a slowfs by io_uring, or it is no test.
func overUring(t *testing.T) (*mounted, *slowfs) {
	t.Helper()
	enableUring(t)
	dir := t.TempDir()
	m, err := New(dir, Options{Transport: Uring})
	if err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	fs := &slowfs{memfs: newMemfs(), notifier: m.Notifier(), began: make(chan string, 1000)}
	x := serve(t, m, fs, fs.memfs)
	if name := x.Info().Transport; name != Uring {
		if strings.Contains(x.log.String(), "does not offer") || strings.Contains(x.log.String(), "io_uring_setup") {
			t.Skipf("needs io_uring: %s", x.log)
		}
		t.Fatalf("transport %s: %s", name, x.log)
	}
	return x, fs
}

// pinned calls f in a thread that stays on one processor.
func pinned(cpu int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread() // the thread ends with the goroutine
		var set unix.CPUSet
		set.Set(cpu)
		_ = unix.SchedSetaffinity(0, &set)
		f()
	}()
	<-done
}

// However many requests of one processor wait, the next one is answered.
func TestUringWaitingRequests(t *testing.T) {
	for name, many := range map[string]int{"slow": depth - 2, "long": 4 * depth} {
		t.Run(name, func(t *testing.T) {
			x, fs := overUring(t)
			if _, err := x.read(); err != nil { // a file is known from now on
				t.Fatal(err)
			}
			var wait sync.WaitGroup
			for i := range many {
				wait.Go(func() {
					pinned(0, func() {
						var st unix.Stat_t
						if err := unix.Stat(fmt.Sprintf("%s/%s%d", x.dir, name, i), &st); err != unix.ENOENT {
							t.Errorf("%s%d: %v", name, i, err)
						}
					})
				})
				<-fs.began
				pinned(0, func() {
					var st unix.Stat_t
					if err := unix.Stat(fmt.Sprintf("%s/no%d", x.dir, i), &st); err != unix.ENOENT {
						t.Errorf("another name: %v", err)
					}
				})
			}
			close(fs.release)
			wait.Wait()
			if x.log.String() != "" {
				t.Error(x.log)
			}
		})
	}
}

// All processors at once, with and without data in the request.
func TestUringInParallel(t *testing.T) {
	x, _ := overUring(t)
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			pinned(i%goruntime.NumCPU(), func() {
				for j := range 300 {
					var st unix.Stat_t
					if err := unix.Stat(fmt.Sprintf("%s/no%d.%d", x.dir, i, j), &st); err != unix.ENOENT {
						t.Errorf("no such name: %v", err)
					}
					if s, err := x.read(); err != nil || s != helloText {
						t.Errorf("read %q, %v", s, err)
					}
				}
			})
		})
	}
	wait.Wait()
	if x.log.String() != "" {
		t.Error(x.log)
	}
}

// A process that waits for an answer can be killed.
func TestUringInterrupt(t *testing.T) {
	x, fs := overUring(t)
	for i := range 20 {
		cmd := exec.Command("stat", fmt.Sprintf("%s/patient%d", x.dir, i))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-fs.began
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(limit):
			t.Fatal("it was killed, and still waits")
		}
	}
}

// An INTERRUPT that is read before the request is begun is not lost: over io_uring the kernel says it only once.
func TestEarlyInterrupt(t *testing.T) {
	for _, debug := range []bool{false, true} { // with it, go-fuse handles the request
		t.Run(fmt.Sprintf("debug %v", debug), func(t *testing.T) {
			fs := newWaitfs()
			d := newDispatcher(fs, &fuse.MountOptions{Debug: debug, Logger: log.New(&logged{}, "", 0)})
			w := d.worker()
			defer d.drop(w)
			out := make([]byte, 8192)
			for i := range uint64(40) {
				unique := 2*i + 2
				if _, status, _ := w.handle(interrupt(unique)[:inSizes[codeInterrupt]], nil, out); status != fuse.EAGAIN {
					t.Fatalf("interrupt of a request that is to come: %v", status)
				}
				msg := lookup(unique, "patient")
				if _, status, _ := w.handle(msg[:headerSize], msg[headerSize:], out); status != fuse.EINTR {
					t.Fatalf("the request: %v", status)
				}
				<-fs.began
			}
		})
	}
}

// What the kernel has for io_uring in this process: rings and their mappings, descriptors, threads that are bound to one
// processor. Other threads are Go's own, which come when they are needed and stay.
type holdings struct{ mappings, fds, threads int }

func held(t *testing.T) (h holdings) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	h.mappings = strings.Count(string(maps), "[io_uring]")
	fds, err1 := os.ReadDir("/proc/self/fd")
	threads, err2 := os.ReadDir("/proc/self/task")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	h.fds = len(fds)
	for _, e := range threads {
		var set unix.CPUSet
		tid, err := strconv.Atoi(e.Name())
		if err == nil && unix.SchedGetaffinity(tid, &set) == nil && set.Count() == 1 {
			h.threads++
		}
	}
	return h
}

// Nothing is left, however a mount ends.
func TestUringLeavesNothing(t *testing.T) {
	ends := map[string]func(x *mounted) error{
		"unmount":      func(x *mounted) error { return x.m.Unmount(false) },
		"lazy unmount": func(x *mounted) error { return x.m.Unmount(true) },
		"abort":        func(x *mounted) error { return unix.Unmount(x.dir, unix.MNT_FORCE|unix.MNT_DETACH) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			x, _ := overUring(t)
			if name == "abort" && os.Geteuid() != 0 {
				t.Skip("needs root: umount -f")
			}
			rings := goruntime.NumCPU() * atFirst(goruntime.NumCPU())
			during := held(t)
			if during.mappings == 0 || during.threads < rings {
				t.Fatalf("during the mount %+v, want %d rings and as many threads", during, rings)
			}
			if _, err := x.read(); err != nil {
				t.Fatal(err)
			}
			if err := end(x); err != nil {
				t.Fatal(err)
			}
			x.waitEnd(t)
			after := held(t)
			if after.mappings != 0 || after.fds >= during.fds-rings {
				t.Errorf("after the mount %+v, during it %+v", after, during)
			}
			// The threads end a moment later than what they did.
			for until := time.Now().Add(limit); goruntime.NumCPU() > 1 && held(t).threads > during.threads-rings; {
				if time.Now().After(until) {
					t.Fatalf("after the mount %+v, during it %+v", held(t), during)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A request that is at work when the connection is aborted ends, and so does the server.
func TestUringAbortUnderRequest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: umount -f")
	}
	x, fs := overUring(t)
	answer := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		answer <- unix.Stat(x.dir+"/patient", &st)
	}()
	<-fs.began
	if err := unix.Unmount(x.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("a request of an aborted connection succeeds")
	}
	x.waitEnd(t)
}

// Processors that are offline have one thread together. Here all but the first pass for offline, and do send requests.
func TestUringOfflineProcessors(t *testing.T) {
	if goruntime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	real := processors
	defer func() { processors = real }()
	processors = func() (cpuSets, error) {
		s, err := real()
		s.online = map[int]bool{0: true}
		return s, err
	}
	x, _ := overUring(t)
	for cpu := range goruntime.NumCPU() {
		pinned(cpu, func() {
			for i := range 50 {
				var st unix.Stat_t
				if err := unix.Stat(fmt.Sprintf("%s/no%d.%d", x.dir, cpu, i), &st); err != unix.ENOENT {
					t.Errorf("processor %d: %v", cpu, err)
				}
			}
		})
	}
}

// What works best is io_uring, where it is allowed.
func TestAutoTakesUring(t *testing.T) {
	overUring(t) // it works here
	x := mount(t, Options{})
	if i := x.Info(); i.Transport != Uring {
		t.Errorf("info %+v: %s", i, x.log)
	}
}

// Where the kernel does not go along there is another transport. It is a warning where io_uring was asked for.
func TestUringFallsBack(t *testing.T) {
	tests := map[string]struct{ file, value, log string }{
		"not offered": {enableUringFile, "N", "the kernel does not offer it"},
		"forbidden":   {"/proc/sys/kernel/io_uring_disabled", "2", "io_uring_setup: operation not permitted"},
	}
	for name, tt := range tests {
		for _, transport := range []string{Uring, Auto} {
			t.Run(name+", "+transport, func(t *testing.T) {
				enableUring(t)
				setUntilEnd(t, tt.file, tt.value, "io_uring")
				before := held(t)
				x := mount(t, Options{Transport: transport})
				if b, err := x.read(); err != nil || b != helloText {
					t.Errorf("read %q, %v", b, err)
				}
				if i := x.Info(); i.Transport == Uring || transport == Uring && i.Transport != Loop {
					t.Errorf("info %+v", i)
				}
				log := x.log.String()
				if transport == Auto && log != "" {
					t.Errorf("log %q", log)
				}
				if transport == Uring && (!strings.Contains(log, "warning: no FUSE over io_uring") || !strings.Contains(log, tt.log)) {
					t.Errorf("log %q, want %q", log, tt.log)
				}
				if n := strings.Count(log, "\n"); n > 1 {
					t.Errorf("a warning of %d lines: %q", n, log)
				}
				if err := x.m.Unmount(false); err != nil {
					t.Fatal(err)
				}
				x.waitEnd(t)
				if after := held(t); after.fds != before.fds || after.mappings != before.mappings {
					t.Errorf("after the mount %+v, before %+v", after, before)
				}
			})
		}
	}
}

// What offers io_uring and then takes no entry is served without.
func TestUringRefusesEntries(t *testing.T) {
	before := held(t)
	k, _ := newFakeKernel(t, Options{Transport: Uring}, newWaitfs())
	k.send(lookup(2, "x"))
	k.expect(2, fuse.OK)
	if i := k.s.Info(); i.Transport != Loop {
		t.Errorf("info %+v", i)
	}
	if !strings.Contains(k.log.String(), "warning: no FUSE over io_uring") {
		t.Errorf("log %q", k.log)
	}
	k.close()
	if after := held(t); after.fds != before.fds || after.mappings != before.mappings {
		t.Errorf("after the mount %+v, before %+v", after, before)
	}
}

// The same refusal by the real kernel, after some entries were taken: it must not wait for the others.
func TestUringWithdraws(t *testing.T) {
	real := processors
	defer func() { processors = real }()
	enableUring(t)
	processors = func() (cpuSets, error) {
		s, err := real()
		s.possible++ // of which the kernel knows nothing
		return s, err
	}
	x := mount(t, Options{Transport: Uring})
	if b, err := x.read(); err != nil || b != helloText {
		t.Errorf("read %q, %v", b, err)
	}
	if i := x.Info(); i.Transport != Loop {
		t.Errorf("info %+v", i)
	}
}

// What a large request has touched is given back.
func TestUringMemory(t *testing.T) {
	enableUring(t)
	m, err := New(t.TempDir(), Options{Transport: Uring})
	if err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	s, err := m.Serve(numberfs{fuse.NewDefaultRawFileSystem()}, log.New(&logged{}, "", 0), false, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(true); err != nil {
			t.Error(err)
		}
		<-s.Done()
	}()
	u, ok := s.carrier.(*ringLoop)
	if !ok {
		t.Skip("needs io_uring")
	}
	fd, err := unix.Open(m.Target+"/1", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for i := range int64(8) {
		if n, err := unix.Pwrite(fd, make([]byte, 1<<20), i<<20); n != 1<<20 {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	// When there has been nothing to do for a while, nothing of it is left.
	for until := time.Now().Add(limit); u.resident(t) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d pages are still there", u.resident(t))
		}
	}
	for tries := 1; ; tries++ { // where this thread is held up for a second, it is given back before it is seen
		if n, err := unix.Pwrite(fd, make([]byte, 1<<20), 0); n != 1<<20 {
			t.Fatalf("write: %d, %v", n, err)
		}
		if u.resident(t) > 0 {
			return
		}
		if tries == 10 {
			t.Fatal("a write of 1 MiB has used no memory")
		}
	}
}

// resident is how many pages of the entries' memory are there, of those that are to be given back (proc_pid_pagemap(5)).
func (u *ringLoop) resident(t *testing.T) (n int) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, th := range u.threads() {
		for _, e := range th.entries {
			given := e.payload[keptSize:]
			pages := make([]byte, len(given)/pageSize*8)
			if _, err := f.ReadAt(pages, int64(sys.Address(given)/pageSize*8)); err != nil {
				t.Fatal(err)
			}
			for ; len(pages) > 0; pages = pages[8:] {
				n += int(binary.NativeEndian.Uint64(pages) >> 63)
			}
		}
	}
	return n
}

func TestThreadsAtFirst(t *testing.T) {
	for processors, want := range map[int]int{1: 4, 2: 4, 16: 4, 32: 2, 64: 1, 1024: 1} {
		if got := atFirst(processors); got != want {
			t.Errorf("%d processors: %d threads each, want %d", processors, got, want)
		}
	}
}

// The structures are those of include/uapi/linux/fuse.h.
func TestUringStructures(t *testing.T) {
	if n := sys.SizeOf[entInOut](); n != 32 {
		t.Errorf("struct fuse_uring_ent_in_out: %d bytes", n)
	}
	if n := sys.SizeOf[ringCmd](); n != 24 {
		t.Errorf("struct fuse_uring_cmd_req: %d bytes", n)
	}
	for code, n := range inSizes {
		if n-headerSize > opInSize {
			t.Errorf("opcode %d has %d bytes, the kernel has room for %d", code, n-headerSize, opInSize)
		}
	}
}

// No privilege is needed beyond those for the mount: an ordinary user has the rings, and so has root of a user namespace.
func TestUringUnprivileged(t *testing.T) {
	ordinary(t) // is there
	enableUring(t)
	dir := t.TempDir()
	open(t, dir)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	prog := dir + "/transport.test" // where everybody gets at it
	if err := os.WriteFile(prog, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, argv := range map[string][]string{
		"by fusermount3":      {"runuser", "-u", "lamina-test", "--", prog},
		"in a user namespace": {"runuser", "-u", "lamina-test", "--", "unshare", "-Urm", prog},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(argv[0], append(argv[1:], "-test.v", "-test.run", "^TestUringInParallel$")...)
			cmd.Dir = "/"
			out, err := cmd.CombinedOutput()
			switch {
			case bytes.Contains(out, []byte("--- SKIP")):
				t.Skipf("%s", out)
			case err != nil || !bytes.Contains(out, []byte("--- PASS: TestUringInParallel")):
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
