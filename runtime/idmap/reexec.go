package idmap

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// envIdentity carries the Identity to the process that Reexec or StartProgram starts.
const envIdentity = "_LAMINA_IDENTITY"

// Reexec runs this program again, with the same arguments but argv0 for the first, as root of a new user namespace,
// and returns its exit code when it ends: 128+n after signal n. Standard files and environment are inherited, signals are
// passed on, and the program is killed when this process dies. The mount namespace stays the caller's: who mounts makes one
// of its own, and the end of one takes the kernel milliseconds, which would be waited for here.
//
// Errors: code is 125, and err says what is missing and how to get it.
func (id *Identity) Reexec(argv0 string) (code int, err error) {
	return id.reexec(argv0, func(cmd *exec.Cmd) error { return Start(cmd, id.UIDs, id.GIDs, 0) })
}

// ReexecBeside is Reexec into the user namespace that the process pid is in, one of the caller's: over what was made in
// it no other one has power.
func (id *Identity) ReexecBeside(argv0 string, pid int) (code int, err error) {
	return id.reexec(argv0, func(cmd *exec.Cmd) error { return StartBeside(cmd, pid) })
}

func (id *Identity) reexec(argv0 string, start func(*exec.Cmd) error) (code int, err error) {
	if id.Kind == Root {
		return 125, errors.New("run in a user namespace: already root")
	}
	self, err := executable()
	if err != nil {
		return 125, err
	}
	env, err := id.environ(os.Environ())
	if err != nil {
		return 125, err
	}
	cmd := &exec.Cmd{
		Path: self, Args: append([]string{argv0}, os.Args[1:]...), Env: env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	// The signal comes when the thread ends, not the process (prctl(2)): this one lives as long as we wait.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()

	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := start(cmd); err != nil {
		return 125, err
	}
	done := make(chan struct{})
	defer close(done)
	go forward(cmd.Process, signals, done)
	return exitCode(cmd.Wait(), cmd.ProcessState)
}

// environ is env with what tells Inside of the identity, in place of what tells it of another one: of two the first would count.
func (id *Identity) environ(env []string) ([]string, error) {
	told, err := json.Marshal(id)
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, envIdentity+"=") })
	return append(env, envIdentity+"="+string(told)), err
}

// executable is the program's path. /proc/self/exe would do, but leads into the mount namespace it was executed in,
// and what is executed through it could not make a mount of its own file (open_tree(2) wants the caller's own).
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("run in a user namespace: %w", err)
	}
	var at, exe unix.Stat_t
	if unix.Stat(path, &at) != nil || unix.Stat("/proc/self/exe", &exe) != nil || at.Dev != exe.Dev || at.Ino != exe.Ino {
		return "/proc/self/exe", nil // replaced or removed since
	}
	return path, nil
}

func exitCode(err error, state *os.ProcessState) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 125, err
	}
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// forwarded are the signals that a program is told something by. Job control's (TSTP, TTIN, TTOU, CONT) are left to
// do what they do: they go to the whole process group, which both processes are in.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGWINCH,
	unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR,
}

// typed are the signals that a terminal sends to its whole foreground process group.
var typed = map[os.Signal]bool{unix.SIGINT: true, unix.SIGQUIT: true, unix.SIGWINCH: true}

func forward(p *os.Process, signals <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if typed[s] && inForeground() {
				continue // the child, in the same group, has it already
			}
			_ = p.Signal(s) // it has ended: then nobody needs it
		case <-done:
			return
		}
	}
}

// inForeground reports whether this process has a terminal and is in its foreground process group. What the
// terminal sends then goes to parent and child alike, and the parent cannot see who sent it.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// Inside returns the Identity of the caller in the process that Reexec has started, and what Discover finds in any
// other. Kind is how much is mapped: an Inside of a SubIDs caller is SubIDs, although the process is root now.
func Inside() *Identity {
	if told := os.Getenv(envIdentity); told != "" && os.Geteuid() == 0 {
		id := &Identity{}
		if err := json.Unmarshal([]byte(told), id); err == nil && id.holds() {
			return id
		}
	}
	id, err := Discover()
	if err != nil {
		id = &Identity{Kind: Single, UID: os.Geteuid(), GID: os.Getegid(), Missing: []string{err.Error()}}
	}
	return id
}

// holds reports whether the process's map is the one that the identity says: the environment is the caller's to
// write, or inherited by something further in.
func (id *Identity) holds() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") == strings.Join(strings.Fields(mapText(id.UIDs)), " ")
}
