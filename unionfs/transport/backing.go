package transport

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// The requests of linux/fuse.h for backing files.
const (
	devBackingOpen  = 0x4010e501 // _IOW(229, 1, struct fuse_backing_map)
	devBackingClose = 0x4004e502 // _IOW(229, 2, uint32_t)
)

func (c *connection) openBacking(fd int) (int32, error) {
	m := make([]byte, 16) // struct fuse_backing_map { int32_t fd; uint32_t flags; uint64_t padding; }
	binary.NativeEndian.PutUint32(m, uint32(fd))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, unix.ENOTCONN
	}
	id, err := sys.IoctlValue(c.fd, devBackingOpen, m)
	return int32(id), err
}

func (c *connection) closeBacking(id int32) {
	m := make([]byte, 4)
	binary.NativeEndian.PutUint32(m, uint32(id))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		_ = sys.Ioctl(c.fd, devBackingClose, m) // it was given out by openBacking
	}
}
