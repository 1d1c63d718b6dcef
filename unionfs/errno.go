package unionfs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// status turns an error into what the kernel is told. It is the only place that does: what is no errno is EIO, and
// logged.
func (fs *FS) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		switch errno {
		case unix.ENOSYS: // to the kernel it means never to ask again
			return fuse.Status(unix.EOPNOTSUPP)
		case unix.EIO, unix.ESTALE:
			fs.log.Printf("%s: %v", op, err)
		}
		return fuse.Status(errno)
	}
	fs.log.Printf("%s: %v", op, err)
	return fuse.EIO
}
