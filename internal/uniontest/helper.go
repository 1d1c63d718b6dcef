package uniontest

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sysmon"
)

// Identity is who mounts a union and works on it.
type Identity string

const (
	Root   Identity = "root"   // root of the machine
	UserNS Identity = "userns" // root of a user namespace, with ids mapped by newuidmap(1)
	User   Identity = "user"   // an ordinary user, who mounts through fusermount3(1)
)

// TestUser is the ordinary user that tests run by root change to. Set-up creates it, with a range in /etc/subuid.
const TestUser = "lamina-test"

// Helper is a process that acts under an Identity: it starts servers, mounts and unmounts, runs commands, and makes
// single system calls on a mount. It is this test binary, executed again, so that a call that a broken server never
// answers hangs the helper and not the test, and so that namespaces and ids are a whole process's.
//
// A nil Helper is the test process itself.
type Helper struct {
	who  Identity
	dir  string // private to the identity; XDG_RUNTIME_DIR and HOME of what runs here
	uid  int    // as the machine sees it; in a user namespace of its root
	gid  int
	cmd  *exec.Cmd
	in   io.WriteCloser
	errs *os.File // stderr of the helper and of nothing else

	mu      sync.Mutex
	enc     *gob.Encoder // to in
	next    int
	waiting map[int]chan response // by request; nil once the helper is gone
}

type request struct {
	ID   int
	Op   string
	Args []byte
}

type response struct {
	ID    int
	Data  []byte
	Err   string
	Errno syscall.Errno // of Err, where it has one
}

// helperEnv in the environment makes this binary a helper. Its value is the helper's Identity.
const helperEnv = "UNIONTEST_HELPER"

// none is the result of an operation that has no other.
type none bool

// handlers are the operations of a helper. Package-level variables are ready before any init runs.
var handlers = map[string]func([]byte) ([]byte, error){
	"exec":    handle(runCommand),
	"serve":   handle(serve),
	"waitup":  handle(waitUp),
	"wait":    handle(waitServer),
	"kill":    handle(killServer),
	"overlay": handle(mountOverlay),
	"unmount": handle(unmount),
	"hash":    handle(hashTree),
	"build":   handle(buildLayer),
	"script":  handle(scriptOp),
}

func handle[In, Out any](f func(In) (Out, error)) func([]byte) ([]byte, error) {
	return func(raw []byte) ([]byte, error) {
		var in In
		if err := unpack(raw, &in); err != nil {
			return nil, err
		}
		out, err := f(in)
		if err != nil {
			return nil, err
		}
		return pack(out)
	}
}

// pack and unpack turn a value into bytes and back. JSON would not do: names and contents are bytes, not text.
func pack(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func unpack(raw []byte, v any) error { return gob.NewDecoder(bytes.NewReader(raw)).Decode(v) }

func init() {
	sysmon.Watch(nil, nil) // a test that stands still for a minute takes the mount for hung
	if ids := os.Getenv(stageEnv); ids != "" {
		os.Unsetenv(stageEnv)
		fmt.Fprintln(os.Stderr, become(ids))
		os.Exit(1)
	}
	if who := os.Getenv(helperEnv); who != "" {
		os.Unsetenv(helperEnv)
		helperMain(who)
		os.Exit(0)
	}
}

// stageEnv in the environment makes this binary become a helper: its value is UID:GID of the helper.
const stageEnv = "UNIONTEST_STAGE"

// become executes this binary as the helper.
//
// Root gives every helper a mount namespace of its own, because a mount lives for as long as any namespace has it: the
// copy that another test's user namespace makes of the machine's mounts would keep ours from ending. For the same
// reason it first leaves out what other tests have mounted. It returns on failure only.
func become(ids string) error {
	argv := []string{"/proc/self/fd/4"}
	if os.Getenv(helperEnv) == string(UserNS) {
		argv = append([]string{"unshare", "--map-root-user", "--map-auto", "--mount", "--"}, argv...)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if os.Getuid() == 0 {
		for _, dir := range mountsBelow("/") {
			if strings.Contains(dir, "/"+layersPrefix) {
				_ = unix.Unmount(dir, unix.MNT_DETACH) // gone by itself, perhaps
			}
		}
		u, g, _ := strings.Cut(ids, ":")
		uid, err1 := strconv.Atoi(u)
		gid, err2 := strconv.Atoi(g)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if uid != 0 {
			err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid))
			if err != nil {
				return err
			}
		}
	}
	return syscall.Exec(path, argv, os.Environ())
}

// helperMain answers requests until its standard input ends, which it also does when the test process dies. Then
// it takes its servers along.
func helperMain(who string) {
	// A second descriptor, so that nothing that prints to standard output can get between two answers.
	out := os.NewFile(3, "answers")
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	var mu sync.Mutex
	enc := gob.NewEncoder(out)
	dec := gob.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var req request
		if err := dec.Decode(&req); err != nil {
			break
		}
		go func() {
			res := response{ID: req.ID}
			var err error
			if res.Data, err = handlers[req.Op](req.Args); err != nil {
				res.Err = err.Error()
				errors.As(err, &res.Errno)
			}
			mu.Lock()
			defer mu.Unlock()
			_ = enc.Encode(res) // a reader that is gone has closed standard input too
		}()
	}
	servers.Range(func(_, v any) bool {
		s := v.(*server)
		_ = s.cmd.Process.Kill()
		<-s.done
		_, _ = unmount(unmountRequest{Dir: s.dir, Lazy: true, Fusermount: Identity(who) == User})
		return true
	})
}

// As starts a helper that acts as who until the test ends.
func As(t testing.TB, who Identity) *Helper {
	t.Helper()
	h := &Helper{who: who, uid: os.Getuid(), gid: os.Getgid(), waiting: map[int]chan response{}}
	switch who {
	case Root:
		NeedRoot(t)
	case UserNS, User:
		h.uid, h.gid = NeedUser(t)
	default:
		t.Fatalf("unknown identity %q", who)
	}
	if err := h.start(); err != nil {
		t.Fatalf("start helper as %s: %v", who, err)
	}
	t.Cleanup(func() { h.stop(t) })
	return h
}

func (h *Helper) start() error {
	var err error
	if h.dir, err = os.MkdirTemp("", "uniontest-helper-"); err != nil {
		return err
	}
	if err := os.Chown(h.dir, h.uid, h.gid); err != nil {
		return err
	}
	if h.errs, err = os.Create(h.dir + ".stderr"); err != nil {
		return err
	}
	// By descriptor, because the go command keeps test binaries where only their owner may go.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()

	h.cmd = exec.Command("/proc/self/fd/4")
	h.cmd.Dir = "/"
	h.cmd.Env = append(os.Environ(), stageEnv+"="+strconv.Itoa(h.uid)+":"+strconv.Itoa(h.gid),
		helperEnv+"="+string(h.who), "XDG_RUNTIME_DIR="+h.dir, "HOME="+h.dir)
	h.cmd.Stderr = h.errs
	h.cmd.ExtraFiles = []*os.File{out, self}
	if os.Getuid() == 0 {
		h.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return err
	}
	h.enc = gob.NewEncoder(h.in)
	if err := h.cmd.Start(); err != nil {
		return err
	}
	go h.receive(answers)
	return nil
}

// receive hands answers to those who wait for them, and tells all of them when the helper is gone.
func (h *Helper) receive(answers *os.File) {
	defer answers.Close()
	dec := gob.NewDecoder(bufio.NewReader(answers))
	for {
		var res response
		if err := dec.Decode(&res); err != nil {
			break
		}
		h.mu.Lock()
		ch := h.waiting[res.ID]
		delete(h.waiting, res.ID)
		h.mu.Unlock()
		if ch != nil {
			ch <- res
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ch := range h.waiting {
		close(ch)
	}
	h.waiting = nil
}

// stop ends the helper. One that hangs in a call on a mount is killed, and is an error of the test.
func (h *Helper) stop(t testing.TB) {
	h.in.Close()
	done := make(chan error, 1)
	go func() { done <- h.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("helper as %s: %v", h.who, err)
		}
	case <-time.After(2 * time.Minute):
		t.Errorf("helper as %s hangs", h.who)
		_ = h.cmd.Process.Kill()
	}
	if b, _ := os.ReadFile(h.errs.Name()); len(b) > 0 {
		t.Logf("helper as %s wrote to stderr:\n%s", h.who, b)
	}
	h.errs.Close()
	_ = os.Remove(h.errs.Name())
	_ = os.RemoveAll(h.dir)
}

// remoteError is an error that a helper had.
type remoteError struct {
	msg   string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.msg }

func (e *remoteError) Is(target error) bool {
	errno, ok := target.(syscall.Errno)
	return ok && e.errno != 0 && errno == e.errno
}

// errHung is returned when a helper did not answer: the call it makes hangs in the filesystem under test.
var errHung = errors.New("no answer: the call hangs")

// call performs op with in, and stores its result in out, in the helper or, for none, in this process. A limit of
// 0 is none.
func (h *Helper) call(limit time.Duration, op string, in, out any) error {
	raw, err := pack(in)
	if err != nil {
		return err
	}
	var data []byte
	if h == nil {
		data, err = handlers[op](raw)
	} else {
		data, err = h.roundTrip(limit, op, raw)
	}
	if err != nil || out == nil {
		return err
	}
	return unpack(data, out)
}

func (h *Helper) roundTrip(limit time.Duration, op string, raw []byte) ([]byte, error) {
	ch := make(chan response, 1)
	h.mu.Lock()
	if h.waiting == nil {
		h.mu.Unlock()
		return nil, errors.New("helper is gone")
	}
	h.next++
	id := h.next
	h.waiting[id] = ch
	err := h.enc.Encode(request{ID: id, Op: op, Args: raw})
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var timeout <-chan time.Time
	if limit > 0 {
		timeout = time.After(limit)
	}
	select {
	case res, ok := <-ch:
		if !ok {
			return nil, errors.New("helper died")
		}
		if res.Err != "" {
			return nil, &remoteError{res.Err, res.Errno}
		}
		return res.Data, nil
	case <-timeout:
		return nil, errHung
	}
}

// identity tells whom h acts as.
func (h *Helper) identity() Identity {
	if h == nil {
		if os.Getuid() == 0 {
			return Root
		}
		return User
	}
	return h.who
}

// Command is a program run under an identity. An empty Dir is "/", and Env adds to what the helper has.
type Command struct {
	Argv  []string
	Dir   string
	Env   []string
	Stdin []byte
}

// Result is what a Command left.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status, 128 + signal where one ended it
}

// Exec runs c. The error says that it could not be run at all.
func (h *Helper) Exec(c Command) (Result, error) {
	var r Result
	err := h.call(0, "exec", c, &r)
	return r, err
}

func runCommand(c Command) (Result, error) {
	if c.Dir == "" {
		c.Dir = "/"
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &stdout, &stderr
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.Code = exit.ExitCode()
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			r.Code = 128 + int(ws.Signal())
		}
		err = nil
	}
	return r, err
}

// NeedRoot skips the test unless it runs as root of the machine.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil && len(strings.Fields(string(m))) == 3 &&
		strings.Fields(string(m))[2] != "4294967295" {
		t.Skip("needs root of the machine, is root of a user namespace")
	}
}

// NeedFuse skips the test where /dev/fuse cannot be opened.
func NeedFuse(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse, readable and writable: %v", err)
	}
	unix.Close(fd)
}

// NeedUser skips the test unless there is an ordinary user to run as, with subordinate ids and the set-id programs
// that rootless mounts take. It returns the user's ids.
func NeedUser(t testing.TB) (uid, gid int) {
	t.Helper()
	name := TestUser
	if os.Getuid() != 0 {
		me, err := user.Current()
		if err != nil {
			t.Skipf("needs an entry for uid %d in /etc/passwd: %v", os.Getuid(), err)
		}
		name = me.Username
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("needs the user %s: %v", name, err)
	}
	for _, prog := range []string{"fusermount3", "newuidmap", "newgidmap", "unshare"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Skipf("needs %s: %v", prog, err)
		}
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		b, _ := os.ReadFile(file)
		if !strings.Contains("\n"+string(b), "\n"+name+":") {
			t.Skipf("needs a range for %s in %s", name, file)
		}
	}
	if fi, err := os.Stat("/dev/fuse"); err != nil || fi.Mode().Perm()&0o006 != 0o006 {
		t.Skip("needs /dev/fuse with mode 0666")
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// moduleRoot is the directory of go.mod, above the working directory of the test.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LAMINAFS"); path != "" {
		return filepath.Abs(path)
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "uniontest-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // also for the ordinary user
		return "", err
	}
	if err := removeAtExit(dir); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "laminafs")
	cmd := exec.Command("go", "build", "-o", out, "./cmd/laminafs")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("LAMINA_RACE") == "1" {
		cmd.Args = []string{"go", "build", "-race", "-o", out, "./cmd/laminafs"}
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, b)
	}
	return out, nil
})

// removeAtExit removes dir when this process has ended, however it does: a package of tests has no place of its own
// for that. A shell waits for the end of a pipe that only this process holds open.
func removeAtExit(dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", `trap "" INT TERM HUP; read -r _; rm -rf -- "$0"`, dir)
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		return err
	}
	keepOpen = append(keepOpen, w)
	return nil
}

var keepOpen []*os.File

// Binary returns the path of laminafs, built once for each test process: with the race detector where LAMINA_RACE=1
// is set. LAMINAFS names one to use instead.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatalf("build laminafs: %v", err)
	}
	return path
}
