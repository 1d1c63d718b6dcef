package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// UringSetup makes an io_uring with room for that many submissions (io_uring_setup(2)). params is struct
// io_uring_params, which the kernel completes. The descriptor is close-on-exec.
func UringSetup(entries uint32, params []byte) (fd int, err error) {
	r, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(unsafe.SliceData(params))), 0)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// UringEnter submits, and waits for that many completions (io_uring_enter(2)). arg is what flags say it is, nil for
// nothing. It returns how many were submitted; EINTR is returned where none were. Allocates nothing.
func UringEnter(fd int, submit, complete, flags uint32, arg []byte) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), uintptr(complete), uintptr(flags),
		uintptr(unsafe.Pointer(unsafe.SliceData(arg))), uintptr(len(arg)))
	return int(n), e
}

// Address is where p lies, for a structure that the kernel reads it from. p has to lie outside of Go's heap.
func Address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }
