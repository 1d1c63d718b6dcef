package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ResetIgnored gives every signal that is ignored its default action back, those included that the Go runtime leaves
// alone: an ignored signal stays so over execve(2), where one that is caught does not (signal(7)).
func ResetIgnored() error {
	const signals = 64
	for sig := 1; sig <= signals; sig++ {
		if sig == int(unix.SIGKILL) || sig == int(unix.SIGSTOP) {
			continue
		}
		// struct sigaction of the kernel: the handler, and three words of flags, restorer and mask, in some order.
		var act [4]uint64
		if err := sigaction(sig, nil, &act); err != nil {
			return err
		}
		const sigIgn = 1
		if act[0] != sigIgn {
			continue
		}
		if err := sigaction(sig, new([4]uint64), nil); err != nil {
			return err
		}
	}
	return nil
}

func sigaction(sig int, set, old *[4]uint64) error {
	const maskSize = 8
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)),
		uintptr(unsafe.Pointer(old)), maskSize, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
