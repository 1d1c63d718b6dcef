package sys

import (
	"os"
	goruntime "runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// StartProgram executes a program in a new process, as os.StartProcess does, and returns its pid, which is to be waited for
// (WaitProgram). files become descriptors 0, 1, 2, ...
//
// Package os starts a process of its own first, once, to learn what the kernel knows of pidfds. That takes a third of
// the time that a program takes to begin, where each waits for the next.
func StartProgram(path string, args, env []string, dir string, files []*os.File, attr *syscall.SysProcAttr) (pid int, err error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fd, err := Descriptor(f)
		if err != nil {
			return 0, err
		}
		fds[i] = uintptr(fd)
	}
	pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Dir: dir, Env: env, Files: fds, Sys: attr})
	goruntime.KeepAlive(files)
	if err != nil {
		return 0, &os.PathError{Op: "fork/exec", Path: path, Err: err}
	}
	return pid, nil
}

// Descriptor is that of a file, which is to be kept alive. Unlike File.Fd it leaves it as it is, blocking or not.
func Descriptor(f *os.File) (n int, err error) {
	c, err := f.SyscallConn()
	if err == nil {
		err = c.Control(func(fd uintptr) { n = int(fd) })
	}
	return n, err
}

// WaitProgram waits until the process has ended, and reaps it.
func WaitProgram(pid int) (status unix.WaitStatus, err error) {
	err = retry(func() error { _, err := unix.Wait4(pid, &status, 0, nil); return err })
	return status, err
}
