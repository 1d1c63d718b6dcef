package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/unionfs/transport"
)

// roleEnv tells a process that we start what it is: ROLE:FD:PID:NS:TARGET, the fields of role.
const roleEnv = "_LAMINAFS_ROLE"

type roleKind int

const (
	roleFirst   roleKind = iota // started by the user
	roleServer                  // serves
	roleMounter                 // mounts and ends
	roleGuest                   // serves a mounter that lives as long, in a mount namespace of its own, and says later what: a container's monitor
)

type role struct {
	kind    roleKind
	sock    int    // to the other process
	mounter int    // pid of the mounter where it is the server's child, else 0
	left    uint64 // the mount namespace that the server has left, else 0
	target  string // the checked mount point, from anywhere; of a guest it is told with the command line
}

func (r role) env() string {
	kind := map[roleKind]string{roleServer: "server", roleMounter: "mounter", roleGuest: "guest"}[r.kind]
	return fmt.Sprintf("%s=%s:%d:%d:%d:%s", roleEnv, kind, r.sock, r.mounter, r.left, r.target)
}

// takeRole reads the role and hides it from processes that we start.
func takeRole() (role, error) {
	s, ok := os.LookupEnv(roleEnv)
	if !ok {
		return role{}, nil
	}
	_ = os.Unsetenv(roleEnv) // only fails for a name that is none
	// Executed through /proc we would be called "exe" in ps(1) and by pkill(1).
	_ = os.WriteFile("/proc/self/comm", []byte("laminafs"), 0)
	f := strings.SplitN(s, ":", 5)
	if len(f) != 5 {
		return role{}, fmt.Errorf("%s=%s: want ROLE:FD:PID:NS:TARGET", roleEnv, s)
	}
	kind, ok := map[string]roleKind{"server": roleServer, "mounter": roleMounter, "guest": roleGuest}[f[0]]
	sock, err1 := strconv.Atoi(f[1])
	pid, err2 := strconv.Atoi(f[2])
	left, err3 := strconv.ParseUint(f[3], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil || !ok {
		return role{}, fmt.Errorf("%s=%s: want ROLE:FD:PID:NS:TARGET", roleEnv, s)
	}
	unix.CloseOnExec(sock)
	return role{kind: kind, sock: sock, mounter: pid, left: left, target: f[4]}, nil
}

// The messages between mounter and server: one byte, with the text of an error behind msgFailed.
const (
	msgLayers = 'l'
	msgReady  = 'r'
	msgSyncs  = 's' // before msgClosed, to a mounter that lives as long
	msgClosed = 'c'
	msgFailed = 'e'
)

// maxMessage is the longest message in bytes.
const maxMessage = 64 << 10

// maxCommandLine is the longest command line of a guest in bytes: what a socket takes, unless it is told otherwise (socket(7),
// wmem_default).
const maxCommandLine = 208 << 10

func send(sock int, kind byte, text string) error {
	return packet.Send(sock, append([]byte{kind}, text[:min(len(text), maxMessage-1)]...), -1)
}

// errGone is returned when the process at the other end has ended without a word.
var errGone = errors.New("it ended without a word")

// expect waits for the message kind and turns msgFailed into an error.
func expect(sock int, kind byte) error {
	buf := make([]byte, maxMessage)
	n, _, err := packet.Receive(sock, buf)
	switch {
	case err == io.EOF:
		return errGone
	case err != nil:
		return err
	case buf[0] == msgFailed:
		return errors.New(string(buf[1:n]))
	case buf[0] != kind:
		return fmt.Errorf("message %q, want %q", buf[0], kind)
	}
	return nil
}

// commandLine is what a guest serves. A mounter that starts it before it knows sends the arguments, each with a zero byte
// behind it, in the first message; the last one is the checked mount point.
//
// Errors: errGone of a mounter that does not need it in the end.
func commandLine(sock int) ([]string, error) {
	buf := make([]byte, maxCommandLine)
	n, _, err := packet.Receive(sock, buf)
	switch {
	case err == io.EOF:
		return nil, errGone
	case err == unix.EMSGSIZE || err == nil && buf[n-1] != 0:
		return nil, fmt.Errorf("mounter: want a command line, of at most %d bytes", maxCommandLine)
	case err != nil:
		return nil, fmt.Errorf("mounter: %w", err)
	}
	return strings.Split(string(buf[:n-1]), "\x00"), nil
}

// self is how we execute ourselves again, wherever the binary is by now.
const self = "/proc/self/exe"

// childSock is the descriptor of the socket in a child, the first of exec.Cmd.ExtraFiles.
const childSock = 3

// start executes ourselves in a role. theirs is its end of the socket.
func (cmd *command) start(r role, theirs int, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	f := os.NewFile(uintptr(theirs), "socket")
	defer f.Close()
	r.sock = childSock
	c := exec.Command(self, cmd.args...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), r.env())
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.ExtraFiles = []*os.File{f}
	c.SysProcAttr = attr
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	return c, nil
}

// background is the mounter and starts the server. It returns once the mount answers.
func background(cmd *command) error {
	target, err := transport.CheckTarget(cmd.target)
	if err != nil {
		return err
	}
	ours, theirs, err := packet.Pair()
	if err != nil {
		return err
	}
	if err := sys.KeepInherited(false); err != nil {
		return err
	}
	r := role{kind: roleServer, left: mustLeave(), target: target}
	attr := &syscall.SysProcAttr{Setsid: true}
	if r.left != 0 {
		attr.Unshareflags = syscall.CLONE_NEWNS // package syscall makes all mounts of the new namespace private
	}
	c, err := cmd.start(r, theirs, attr)
	if err != nil {
		return err
	}
	if err := cmd.mountFor(ours, target); err != nil {
		_ = unix.Close(ours) // so that the server gives up
		state := c.Wait()
		if errors.Is(err, errGone) && state != nil {
			return fmt.Errorf("server: %w", state)
		}
		return err
	}
	return nil
}

// mountRole is the mounter of a server in the foreground.
func mountRole(cmd *command, r role) error {
	// What it has to say is told to the server, which has the error line.
	if err := cmd.mountFor(r.sock, r.target); err != nil && !errors.Is(err, errGone) {
		_ = send(r.sock, msgFailed, oneLine(err)) // a server that has failed by itself does not listen
	}
	return nil
}

// mountFor mounts on the checked target when the server at the other end of sock has its layers, and returns when the
// mount answers. After an error nothing is mounted.
func (cmd *command) mountFor(sock int, target string) error {
	if err := expect(sock, msgLayers); err != nil {
		return err
	}
	// Once it is mounted we must not go before we know whether it stays.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	m, err := transport.NewOn(target, cmd.target, cmd.opts.Mount)
	if err != nil {
		return err
	}
	err = m.Send(sock)
	_ = unix.Close(m.Fd) // the server has its own
	if err == nil {
		err = expect(sock, msgReady)
	}
	if err == nil && m.Target != "" {
		var st unix.Statfs_t
		if err = unix.Statfs(m.Target, &st); err != nil {
			err = fmt.Errorf("mountpoint %s: it does not answer: %w", cmd.target, err)
		}
	}
	if err != nil && m.Target != "" {
		_ = m.Unmount(true) // the error at hand says more
	}
	return err
}

// foreground serves in this process.
func foreground(cmd *command) error {
	target, err := transport.CheckTarget(cmd.target)
	if err != nil {
		return err
	}
	ns := mustLeave()
	if ns == 0 || target == "" {
		return serve(cmd, localMounter{cmd, target}, false)
	}
	ours, theirs, err := packet.Pair()
	if err != nil {
		return err
	}
	c, err := cmd.start(role{kind: roleMounter, target: target}, theirs, nil)
	if err != nil {
		return err
	}
	// The process keeps its pid and its children; of its threads only this one goes on, with its new namespace.
	goruntime.LockOSThread()
	if err := leave(); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(ours), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	env := append(os.Environ(), role{kind: roleServer, sock: ours, mounter: c.Process.Pid, left: ns, target: target}.env())
	err = unix.Exec(self, append([]string{os.Args[0]}, cmd.args...), env)
	return fmt.Errorf("execute %s: %w", self, err)
}
