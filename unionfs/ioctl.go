package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Ioctl answers the requests for a file's flags (ioctl_iflags(2)) and for what xfs and ext4 keep with them; the
// caller's right to set them is checked by the kernel. Anything else is ENOTTY.
func (fs *FS) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, arg []byte, _ *fuse.IoctlOut, out []byte) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("ioctl", unix.ESTALE)
	}
	if n.kind() != unix.S_IFREG && n.kind() != unix.S_IFDIR {
		return fuse.Status(unix.ENOTTY)
	}
	switch in.Cmd {
	case unix.FS_IOC_GETFLAGS, sys.FSIocFSGetXattr:
		return fs.status("ioctl", fs.fileAttr(n, in.Cmd, out))
	case unix.FS_IOC_SETFLAGS, sys.FSIocFSSetXattr:
		if err := fs.copyUp(n, wholeFile); err != nil {
			return fs.status("ioctl", err)
		}
		defer n.changed()
		defer fs.dropFile(n) // what may be done to a file is decided when it is opened
		return fs.status("ioctl", fs.fileAttr(n, in.Cmd, arg))
	}
	return fuse.Status(unix.ENOTTY)
}

// fileAttr passes the request on to the object in its layer.
func (fs *FS) fileAttr(n *node, cmd uint32, arg []byte) error {
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	defer loc.done()
	var fd int
	if n.dir != nil && loc.Name == "" {
		fd, err = reopen(loc.Dirfd, unix.O_RDONLY)
	} else {
		fd, err = sys.Open(loc.At, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	// The kernel takes and gives an int here, whatever the size in the request's number says (ioctl_iflags(2)).
	buf := make([]byte, max(len(arg), 8))
	copy(buf, arg)
	if err := sys.Ioctl(fd, uint(cmd), buf); err != nil {
		return err
	}
	copy(arg, buf)
	return nil
}
