package transport

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// limit is how long a test waits for what happens at once.
const limit = 30 * time.Second

// logged is a log that several goroutines write to.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// eachTransport runs a test on every transport there is.
func eachTransport(t *testing.T, f func(t *testing.T, o Options)) {
	for _, name := range []string{Gofuse, Loop, Uring} {
		t.Run(name, func(t *testing.T) {
			if name == Uring {
				enableUring(t)
			}
			f(t, Options{Transport: name})
		})
	}
}

// mounted is a memfs on a directory.
type mounted struct {
	*Server
	m   *Mount
	fs  *memfs
	dir string
	log *logged

	gone atomic.Int32 // how often it was said that the mount is gone
}

// mount mounts a memfs for the time of the test.
func mount(t *testing.T, o Options) *mounted {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "mount here, please") // the space and the comma are part of the test
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := New(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	mem := newMemfs()
	return serve(t, m, mem, mem)
}

// serve serves a mount by fs, which is mem or has it inside, and unmounts it at the end of the test if it is still there.
func serve(t *testing.T, m *Mount, fs fuse.RawFileSystem, mem *memfs) *mounted {
	t.Helper()
	x := &mounted{m: m, fs: mem, dir: m.Target, log: &logged{}}
	var err error
	if x.Server, err = m.Serve(fs, log.New(x.log, "", 0), false, func() { x.gone.Add(1) }); err != nil {
		_ = m.Unmount(true)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, ours, _ := mountedOn(x.dir); ours {
			if err := x.m.Unmount(true); err != nil {
				t.Error(err)
			}
		}
		x.waitEnd(t)
	})
	return x
}

func (x *mounted) waitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-x.Done():
	case <-time.After(limit):
		t.Fatal("it still serves after the unmount")
	}
	x.fs.mu.Lock()
	defer x.fs.mu.Unlock()
	if !x.fs.gone {
		t.Error("the filesystem does not know that it is unmounted")
	}
	if n := x.gone.Load(); n != 1 {
		t.Errorf("it was said %d times that the mount is gone", n)
	}
}

// count is how many requests with this opcode came.
func (x *mounted) count(t *testing.T, op string) int {
	t.Helper()
	var b strings.Builder
	if err := x.WriteRequests(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), op+" "); ok {
			i, err := strconv.Atoi(n)
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			return i
		}
	}
	return 0
}

// read reads hello by plain system calls. Package os would wait in epoll_ctl(2) for an answer that this very process
// is to give, without letting go of the processor that the answer needs.
func (x *mounted) read() (string, error) { return readHello(x.dir) }

func readHello(dir string) (string, error) {
	fd, err := unix.Open(dir+"/hello", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

// mountinfo is the line of the mount in /proc/self/mountinfo.
func mountinfo(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && sys.UnescapeOctal(f[4]) == dir {
			return line
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return ""
}

func TestServe(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		if b, err := x.read(); err != nil || b != helloText {
			t.Fatalf("read %q, %v", b, err)
		}
		if n := x.count(t, "LOOKUP"); n != 1 {
			t.Errorf("%d LOOKUP, want 1", n)
		}
		if n := x.count(t, "READ"); n != 1 {
			t.Errorf("%d READ, want 1", n)
		}
		if n := x.count(t, "INIT"); n != 1 {
			t.Errorf("%d INIT, want 1", n)
		}
		line := mountinfo(t, x.dir)
		for _, want := range []string{" - fuse.laminafs laminafs ", "default_permissions", "max_read=1048576"} {
			if !strings.Contains(line, want) {
				t.Errorf("mountinfo %q: no %q", line, want)
			}
		}
		if err := x.m.Unmount(false); err != nil {
			t.Fatal(err)
		}
		x.waitEnd(t)
	})
}

func TestOptionsOfTheMount(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.FSName, o.Set, o.MaxWrite = `a,b\c`, unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NOATIME, 65536
		x := mount(t, o)
		line := mountinfo(t, x.dir)
		for _, want := range []string{" - fuse.laminafs a,b\\134c ", "max_read=65536", " ro,", "noexec", "noatime"} {
			if !strings.Contains(line, want) {
				t.Errorf("mountinfo %q: no %q", line, want)
			}
		}
		if _, err := unix.Open(x.dir+"/new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644); err != unix.EROFS {
			t.Errorf("create in a read-only mount: %v", err)
		}
	})
}

func TestDefaultFlags(t *testing.T) {
	tests := []struct {
		name         string
		o            Options
		root, userns bool
		want         string
	}{
		{"root", Options{}, true, false, "none"},
		{"root of a user namespace", Options{}, true, true, "nodev"},
		{"user", Options{}, false, false, "nosuid,nodev"},
		{"nosuid", Options{Set: unix.MS_NOSUID}, true, false, "nosuid"},
		{"dev", Options{Clear: unix.MS_NODEV}, true, true, "none"},
		{"ro", Options{Set: unix.MS_RDONLY}, false, false, "ro,nosuid,nodev"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := flagNames(tt.o.flags(tt.root, tt.userns)); got != tt.want {
				t.Errorf("flags %s, want %s", got, tt.want)
			}
		})
	}
}

func TestPanicIsEIO(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		if _, err := os.Stat(x.dir + "/panic"); !errors.Is(err, unix.EIO) {
			t.Errorf("stat: %v, want EIO", err)
		}
		if _, err := x.read(); err != nil {
			t.Errorf("after a panic: %v", err)
		}
		for _, want := range []string{"panic in LOOKUP: as asked", "transport.(*memfs).Lookup"} {
			if !strings.Contains(x.log.String(), want) {
				t.Errorf("log has no %q:\n%s", want, x.log)
			}
		}
	})
}

// A request that takes its time holds up no other.
func TestConcurrent(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		slow := make(chan error, 1)
		go func() {
			var st unix.Stat_t
			slow <- unix.Stat(x.dir+"/slow", &st)
		}()
		if _, err := x.read(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-slow:
			t.Errorf("slow was not slow: %v", err)
		default:
		}
		close(x.fs.release)
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}

func TestUnmountedByOthers(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		for name, argv := range map[string][]string{
			"umount": {"umount"}, "umount -l": {"umount", "-l"}, "fusermount3": {"fusermount3", "-u"},
		} {
			t.Run(name, func(t *testing.T) {
				x := mount(t, o)
				if out, err := exec.Command(argv[0], append(argv[1:], x.dir)...).CombinedOutput(); err != nil {
					if os.Geteuid() != 0 && argv[0] == "umount" {
						t.Skipf("needs root: umount: %s", out)
					}
					t.Fatalf("%v: %s", err, out)
				}
				x.waitEnd(t)
			})
		}
	})
}

// Lazily unmounted, it is served as long as somebody uses it.
func TestLazyUnmountInUse(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		fd, err := unix.Open(x.dir+"/hello", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := x.m.Unmount(false); err == nil {
			t.Error("unmounted although it is in use")
		}
		if err := x.m.Unmount(true); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		if n, err := unix.Read(fd, b); err != nil || string(b[:max(n, 0)]) != helloText {
			t.Errorf("read after the lazy unmount: %q, %v", b[:max(n, 0)], err)
		}
		select {
		case <-x.Done():
			t.Error("ended although a file is open")
		default:
		}
		_ = unix.Close(fd)
		fd = -1
		x.waitEnd(t)
	})
}

func TestUnmountLeavesOthersAlone(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		if os.Geteuid() != 0 {
			t.Skip("needs root to mount a tmpfs")
		}
		if err := unix.Mount("tmpfs", x.dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := x.m.Unmount(true); !errors.Is(err, unix.EINVAL) {
			t.Errorf("unmount with something on top: %v", err)
		}
		if err := unix.Unmount(x.dir, 0); err != nil {
			t.Fatalf("what was on top is gone: %v", err)
		}
	})
}

func TestTargetErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]error{
		dir + "/absent": unix.ENOENT, file: unix.ENOTDIR, "/dev/fd/9999": unix.EBADF,
	} {
		_, err := New(target, Options{})
		if !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "mountpoint "+target+": ") {
			t.Errorf("mount on %s: %v, want %v", target, err, want)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := New(fmt.Sprintf("/dev/fd/%d", r.Fd()), Options{}); err == nil {
		t.Error("a pipe passes for /dev/fuse")
	}
}

// The caller may mount by itself and pass the descriptor.
func TestPassedDescriptor(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		if os.Geteuid() != 0 {
			t.Skip("needs root to mount")
		}
		dir := t.TempDir()
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
		if err != nil {
			t.Skipf("needs /dev/fuse: %v", err)
		}
		data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
		if err := unix.Mount("passed", dir, "fuse", 0, data); err != nil {
			t.Fatal(err)
		}
		unmounted := false
		unmount := func() {
			if !unmounted {
				unmounted = true
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}
		}
		defer unmount()
		m, err := New(fmt.Sprintf("/dev/fd/%d", fd), o)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Serve(newMemfs(), log.Default(), false, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := readHello(dir); err != nil || b != helloText {
			t.Errorf("read %q, %v", b, err)
		}
		if err := m.Unmount(false); err == nil {
			t.Error("unmounted without knowing where")
		}
		unmount()
		select {
		case <-s.Done():
		case <-time.After(limit):
			t.Error("it still serves")
		}
	})
}

// ordinary is the credential of the test user, who exists where the tests are set up.
func ordinary(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 || inUserNamespace() {
		t.Skip("needs root of the machine to act as somebody else")
	}
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Skipf("needs the user lamina-test: %v", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// open opens the directories above dir to everybody.
func open(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // the mount's own root cannot be changed, and need not
	}
}

// catAs reads hello as another user.
func (x *mounted) catAs(c *syscall.Credential) error {
	cmd := exec.Command("cat", x.dir+"/hello")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	out, err := cmd.CombinedOutput()
	if err == nil && string(out) != helloText {
		return fmt.Errorf("it says %q", out)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestRootsMountIsForAll(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		other := ordinary(t)
		x := mount(t, o)
		open(t, filepath.Dir(x.dir))
		if err := x.catAs(other); err != nil {
			t.Error(err)
		}
	})
}

// Nobody but root and the owner gets in, not even to what the kernel has in its caches.
func TestAllowRoot(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		other := ordinary(t)
		o.AllowRoot = true
		x := mount(t, o)
		open(t, filepath.Dir(x.dir))
		if _, err := x.read(); err != nil {
			t.Fatal(err)
		}
		if err := x.catAs(other); err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("a stranger reads: %v", err)
		}
		if _, err := x.read(); err != nil {
			t.Errorf("root does not get in any more: %v", err)
		}
	})
}
