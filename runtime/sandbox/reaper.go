package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// ReaperMain is PID 1 of a container with Options.Init: it runs the command as its child, hands signals on to it,
// reaps whatever ends, and ends with the command, and its exit code. It has the command's own credentials and
// filter; its arguments are the command's file and then the command's arguments. It does not return.
func ReaperMain() {
	// All that can be caught. SIGCHLD is looked at, not forwarded; SIGURG is the Go runtime's own.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	signal.Reset(unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU)
	signal.Ignore(unix.SIGTTIN, unix.SIGTTOU) // as tini: a terminal must not stop who is not in its foreground
	pid, err := startBelow(os.Args[1], os.Args[2:])
	if err != nil {
		e := execError(os.Args[2], err)
		fmt.Fprintln(os.Stderr, "lamina:", e)
		os.Exit(e.Code)
	}
	for s := range signals {
		switch s {
		case unix.SIGCHLD:
			if status, ended := reapAll(pid); ended {
				os.Exit(exitCode(status))
			}
		case unix.SIGURG:
		default:
			_ = unix.Kill(pid, s.(syscall.Signal)) // it may have ended this moment
		}
	}
}

// startBelow starts the command in a process group of its own: what it sends to its group does not come back here.
// With a terminal, that group is the foreground one.
func startBelow(file string, args []string) (int, error) {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil {
		attr.Sys.Setpgid, attr.Sys.Foreground, attr.Sys.Ctty = false, true, 0
	}
	pid, err := syscall.ForkExec(file, args, attr)
	if errors.Is(err, syscall.ENOTTY) {
		attr.Sys = &syscall.SysProcAttr{Setpgid: true}
		pid, err = syscall.ForkExec(file, args, attr)
	}
	return pid, err
}

// reapAll waits for all that has ended; SIGCHLD is one for many. ended says that the command is among them.
func reapAll(command int) (status unix.WaitStatus, ended bool) {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return status, ended
		case pid == command:
			status, ended = s, true
		}
	}
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
