package unionfs

import (
	"fmt"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// readAhead is how far ahead the kernel reads a file in sequence, in KiB, and so how much one READ asks for. With its own
// 128 a large file takes four times the requests and a quarter more of our time; with more than this it takes no less,
// and a page fault in a mapped file reads as much as this around it.
const readAhead = 512

// ReadAhead sets it for the mount on device 0:minor, once INIT was answered. Only root of the machine may.
func ReadAhead(minor uint32) {
	at := sys.At{Dirfd: unix.AT_FDCWD, Name: fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", minor)} // the kernel's, no layer's
	fd, err := sys.Open(at, unix.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer sys.Close(fd)
	_, _ = unix.Write(fd, fmt.Append(nil, readAhead)) // else the kernel's own value stays: only speed is lost
}
