package unionfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// StatFs tells about the filesystem that is written to: the upper's, or of a read-only union the topmost lower's.
func (fs *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	fs.sweep() // so that the space is seen again
	l := fs.upper
	if l == nil {
		l = fs.layers[1]
	}
	var st syscall.Statfs_t
	for {
		err := syscall.Fstatfs(l.fd, &st)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fs.status("statfs", err)
		}
		break
	}
	out.FromStatfsT(&st)
	out.NameLen = maxNameLen
	return fuse.OK
}
