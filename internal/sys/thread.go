package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions in this file change the calling thread only, where package syscall changes all threads of the
// process: the caller is about to replace the process by another program (execve(2) keeps the credentials of the
// thread that calls it), and has locked its goroutine to the thread.

// SetThreadGroups sets the supplementary groups of the calling thread (setgroups(2)).
func SetThreadGroups(gids []uint32) error {
	var p unsafe.Pointer
	if len(gids) > 0 {
		p = unsafe.Pointer(&gids[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}

// SetThreadIDs sets real, effective and saved group and then user id of the calling thread.
func SetThreadIDs(uid, gid uint32) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return e
	}
	return nil
}

// SetSeccompFilter gives the calling thread a filter (seccomp(2), SECCOMP_SET_MODE_FILTER).
//
// Preconditions: no_new_privs is set, or the thread has CAP_SYS_ADMIN.
func SetSeccompFilter(flags uint, prog []unix.SockFilter) error {
	if len(prog) == 0 {
		return unix.EINVAL
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return e
	}
	return nil
}

// Execveat executes the program that fd is open on, in place of this process (execveat(2), AT_EMPTY_PATH). It
// returns only if it fails.
func Execveat(fd int, argv, env []string) error {
	argp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	_, _, e := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argp[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	return e
}
