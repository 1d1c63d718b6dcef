package sys

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Inherited are the descriptors from 3 on that whoever has started this process left open, as it is when somebody first asks: our own are
// all marked close-on-exec.
var Inherited = sync.OnceValues(func() ([]int, error) {
	fds, err := openFrom(3)
	return slices.DeleteFunc(fds, func(fd int) bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err != nil || flags&unix.FD_CLOEXEC != 0
	}), err
})

// KeepInherited tells whether programs that we execute get what is Inherited. What lives longer than the caller is not to: whoever
// waits for the end of a pipe, or for a lock, would wait as long.
func KeepInherited(keep bool) error {
	fds, err := Inherited()
	if err != nil {
		return err
	}
	flags := unix.FD_CLOEXEC
	if keep {
		flags = 0
	}
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags) // it may be closed
	}
	return nil
}
