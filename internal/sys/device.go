package sys

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions in this file are for a device whose messages are counted in microseconds: they allocate nothing.

// ReadDevice reads one message from fd into p, for as long as it takes (read(2)). EINTR is returned.
func ReadDevice(fd int, p []byte) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

// WriteDevice writes one message to fd (write(2)). The scheduler is not told, so it has to be one that the device takes
// at once.
func WriteDevice(fd int, p []byte) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return e
}

// DeviceReady tells whether fd has something to read (poll(2)). Nor is the scheduler told.
func DeviceReady(fd int) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	var now unix.Timespec
	n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return n == 1 && p.Revents&unix.POLLIN != 0
}

// SleepThread has the thread sleep, for less than a millisecond (nanosleep(2)). Nor is the scheduler told: the thread keeps
// its processor of Go's, and the garbage collector waits.
func SleepThread(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) // a signal makes it a shorter sleep
}

// View is the structure that p begins with.
//
// Preconditions: T has no pointers; p is as long as T and aligned as T. Otherwise it panics.
func View[T any](p []byte) *T {
	var t T
	at := unsafe.Pointer(unsafe.SliceData(p))
	if uintptr(len(p)) < unsafe.Sizeof(t) || uintptr(at)%unsafe.Alignof(t) != 0 {
		misfit(unsafe.Sizeof(t), len(p), at)
	}
	return (*T)(at)
}

// misfit is apart so that View can be inlined.
func misfit(size uintptr, n int, at unsafe.Pointer) {
	panic(fmt.Sprintf("no structure of %d bytes in %d bytes at %p", size, n, at))
}

// SizeOf is the size of a T in bytes.
func SizeOf[T any]() int {
	var t T
	return int(unsafe.Sizeof(t))
}

// StringOf is the string whose bytes are p. Nobody may write to p any more.
func StringOf(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }
