package sys

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseOnExec marks every descriptor from first on. What a caller has left open would else be held as long as a process that we
// start lives: whoever waits for the end of a pipe, or for a lock, would wait as long.
func CloseOnExec(first uint) error {
	err := unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err != unix.ENOSYS && err != unix.EINVAL { // 5.9; the flag is of 5.11
		return err
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close() // read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd >= int(first) {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
