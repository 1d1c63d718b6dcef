package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	goruntime "runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
)

// Names under which our own executable is run in a container; main hands over to the function of that name.
const (
	RoleInit   = "lamina-init"   // InitMain
	RoleExec   = "lamina-exec"   // ExecMain
	RoleReaper = "lamina-reaper" // ReaperMain
)

// The program in a container keeps to its first thread: what is true of a process, as the cgroup that its memory counts
// in, is true of that one.
func init() {
	switch os.Args[0] {
	case RoleInit, RoleExec, RoleReaper:
		goruntime.LockOSThread()
	}
}

// Main runs the role that the process was started for, if it is one of this package's, and does not return then.
// Programs that use the package call it before anything else.
func Main() {
	switch os.Args[0] {
	case RoleInit:
		InitMain()
	case RoleExec:
		ExecMain()
	case RoleReaper:
		ReaperMain()
	}
}

// An initProcess is the container's first process before it becomes the command.
type initProcess struct {
	conn   conn
	config initConfig
	root   root
	proc   int // the container's own procfs, or -1: no path leads astray in it

	cgroups map[string]string // see ownCgroups
}

// InitMain is the first process of a container. It does not return.
func InitMain() {
	in := &initProcess{proc: -1}
	conn, err := childStart(&in.config)
	if err == nil {
		in.conn = conn
		err = in.run()
	}
	childFailed(conn, err)
}

// childStart is what init and exec begin with. The calling thread is the one that will execute the command.
func childStart(config any) (conn, error) {
	goruntime.LockOSThread()
	c := conn{packet.Inherited(fdSocket)}
	// Until the credentials are those of the container, nobody in it may look into this process, or trace it: it has
	// more capabilities than they. Undumpable it is already, if that was possible (sys.Spawn).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return c, staged("start", err)
	}
	if err := sys.SetThreadIDs(0, 0); err != nil {
		return c, staged("start", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return c, staged("start", err)
	}
	if c.hungUp() {
		return c, io.EOF
	}
	if err := sys.CloseOnExec(fdSocket); err != nil {
		return c, staged("start", err)
	}
	f := os.NewFile(fdConfig, "config")
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err == nil {
		err = decodeConfig(b, config)
	}
	_ = f.Close() // read only
	return c, staged("start", err)
}

// decodeConfig reads what encodeConfig has written.
func decodeConfig(b []byte, config any) error {
	v := versioned{Config: config}
	err := json.Unmarshal(b, &v)
	if v.Version != wireVersion {
		return fmt.Errorf("lamina and lamina-init are of different versions (%d and %d): install both anew", v.Version, wireVersion)
	}
	return err
}

// childFailed reports the error and ends the process: with the code that a shell would give, for those who only see
// that.
func childFailed(c conn, err error) {
	code := 125
	if errors.Is(err, io.EOF) {
		os.Exit(code) // nobody is there to be told
	}
	var s *stageError
	stage := "start"
	if errors.As(err, &s) {
		stage, err = s.stage, s.err
	}
	var exec *ExecError
	if errors.As(err, &exec) {
		code = exec.Code
	}
	if c.send(message{Failed: newFailure(stage, err)}, -1) != nil {
		fmt.Fprintf(os.Stderr, "lamina: %s: %v\n", stage, err) // the parent is gone: perhaps somebody reads this
	}
	os.Exit(code)
}

// A stageError is a StageError on our side of the socket.
type stageError struct {
	stage string
	err   error
}

func (e *stageError) Error() string { return e.stage + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func staged(stage string, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{stage, err}
}

// run follows the picture in the package comment.
func (in *initProcess) run() error {
	// Before anything else: no mount of ours is seen outside, and none of outside's is seen in here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return staged("private mounts", err)
	}
	unix.Umask(0)
	if err := in.identity(); err != nil {
		return err
	}
	prepared, err := in.prepareMounts(false)
	if err != nil {
		return staged("mount", err)
	}
	if _, err := in.conn.expect(wordJoined); err != nil {
		return staged("join", err)
	}
	if err := in.enterCgroups(); err != nil {
		return staged("cgroup", err)
	}
	if in.cgroups, err = ownCgroups(); err != nil { // as they are called outside of the namespace
		return staged("cgroup namespace", err)
	}
	if in.config.Cgroup {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return staged("cgroup namespace", err)
		}
	}
	cgroups, err := in.prepareMounts(true)
	if err != nil {
		return staged("mount", err)
	}
	for i, m := range cgroups {
		prepared[i] = m
	}
	if err := in.enterRoot(); err != nil {
		return staged("pivot_root", err)
	}
	if in.root, err = openRoot(); err != nil {
		return staged("pivot_root", err)
	}
	if err := in.attachMounts(prepared); err != nil {
		return staged("mount", err)
	}
	if err := in.makeDevices(); err != nil {
		return staged("devices", err)
	}
	master, err := in.makeConsole()
	if err != nil {
		return staged("console", err)
	}
	if err := in.setSysctls(); err != nil {
		return staged("sysctl", err)
	}
	if err := in.seal(); err != nil {
		return err
	}
	if err := in.conn.send(message{Word: wordReady}, master); err != nil {
		return io.EOF
	}
	sys.Close(master)
	if _, err := in.conn.expect(wordRelease); err != nil {
		return io.EOF
	}
	return in.config.Process.become(in.conn, in.root, in.config.InitNS)
}

// identity sets the names of the machine that the container sees, and a keyring that is not the caller's.
func (in *initProcess) identity() error {
	if h := in.config.Hostname; h != "" {
		if err := unix.Sethostname([]byte(h)); err != nil {
			return staged("hostname", fmt.Errorf("%q: %w", h, err))
		}
	}
	if d := in.config.Domain; d != "" {
		if err := unix.Setdomainname([]byte(d)); err != nil {
			return staged("domainname", fmt.Errorf("%q: %w", d, err))
		}
	}
	return staged("keyring", newKeyring())
}

// newKeyring leaves the caller's session keyring: keyrings know no namespaces (session-keyring(7)).
func newKeyring() error {
	_, err := unix.KeyctlJoinSessionKeyring("_ses")
	if err == unix.ENOSYS || err == unix.EPERM {
		return nil // a kernel without keys, or a filter around us that keeps the container from them too
	}
	return err
}

// seal makes read-only and hides what is to be.
func (in *initProcess) seal() error {
	for _, p := range in.config.Readonly {
		if err := in.makeReadonly(p); err != nil {
			return staged("read-only path", fmt.Errorf("%s: %w", p, err))
		}
	}
	if err := in.maskAll(); err != nil {
		return staged("masked path", err)
	}
	if in.config.Root.Readonly {
		if err := setReadonly(in.root.fd, false, in.proc); err != nil {
			return staged("read-only rootfs", err)
		}
	}
	if p := in.config.Root.Propagation; p != 0 {
		if err := unix.Mount("", "/", "", uintptr(p), ""); err != nil {
			return staged("rootfs propagation", err)
		}
	}
	return nil
}

// setSysctls writes below /proc/sys of a procfs that is our own, and follows nothing there.
func (in *initProcess) setSysctls() error {
	if len(in.config.Sysctl) == 0 {
		return nil
	}
	if in.proc < 0 {
		return errors.New("the container has no /proc")
	}
	for key, value := range in.config.Sysctl {
		name := key
		if !strings.Contains(key, "/") {
			name = strings.ReplaceAll(key, ".", "/")
		}
		if err := in.writeProc(path.Join("sys", name), value); err != nil {
			return fmt.Errorf("%s=%s: %w", key, value, err)
		}
	}
	return nil
}

func (in *initProcess) writeProc(name, value string) error {
	fd, err := sys.OpenBeneath(in.proc, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
