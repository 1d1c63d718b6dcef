package sys

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseOnExec marks every descriptor from first on, whoever opened it.
func CloseOnExec(first uint) error {
	err := unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.ENOSYS && err != unix.EINVAL { // 5.9; the flag is of 5.11
		return err
	}
	fds, err := openFrom(int(first))
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return err
}

// openFrom are the descriptors from first on that are open, and one that is not any more: its own.
func openFrom(first int) ([]int, error) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	defer dir.Close() // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd >= first {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}
