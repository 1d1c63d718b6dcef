package transport

import (
	"sync"

	"golang.org/x/sys/unix"
)

// connection tells whether the mount at the other end of a /dev/fuse descriptor is there, by a descriptor of its own.
//
// It is asked, and does not wait: who waits in poll(2) is woken by every request.
type connection struct {
	mu sync.Mutex
	fd int // guarded by mu; -1 when closed
}

func (c *connection) open(fd int) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	c.fd = dup
	return err
}

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		_ = unix.Close(c.fd) // nothing is written to it
	}
	c.fd = -1
}

// lost tells whether the kernel has ended the connection, or we have.
//
// Source: fs/fuse/dev.c, fuse_dev_poll.
func (c *connection) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return true
	}
	p := []unix.PollFd{{Fd: int32(c.fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLERR != 0
}
