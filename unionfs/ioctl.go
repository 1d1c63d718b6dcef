package unionfs

import (
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Ioctl answers the requests for a file's flags (ioctl_iflags(2)) and for what xfs and ext4 keep with them. Anything
// else is ENOTTY.
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
		return fs.status("ioctl", fs.getFileAttr(n, in.Cmd, out))
	case unix.FS_IOC_SETFLAGS, sys.FSIocFSSetXattr:
		return fs.status("ioctl", fs.setFileAttr(n, in, arg))
	}
	return fuse.Status(unix.ENOTTY)
}

func (fs *FS) getFileAttr(n *node, cmd uint32, out []byte) error {
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	defer loc.done()
	return fileAttr(n, loc.At, cmd, out)
}

// setFileAttr sets the flags. Before Linux 5.13 (fuse_fileattr_set) the kernel checks nothing, and we would do for
// anybody what root may.
func (fs *FS) setFileAttr(n *node, in *fuse.IoctlIn, arg []byte) error {
	if fs.upper == nil {
		return unix.EROFS
	}
	var a fuse.Attr
	if err := fs.attr(n, &a); err != nil {
		return err
	}
	c := callerOf(in.Caller)
	if !c.actsFor(a.Uid) {
		return unix.EPERM
	}
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	err = c.maySetFileAttr(n, loc.At, in.Cmd, arg)
	loc.done()
	if err != nil {
		return err
	}
	if err := fs.copyUp(n, wholeFile); err != nil {
		return err
	}
	defer n.changed()
	defer fs.dropFile(n) // what may be done to a file is decided when it is opened
	n.loc.Lock()
	defer n.loc.Unlock()
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return err
	}
	defer release()
	// Again: somebody else may have set flags since, and the copy of an immutable file is not immutable.
	if err := c.maySetFileAttr(n, at, in.Cmd, arg); err != nil {
		return err
	}
	return fileAttr(n, at, in.Cmd, arg)
}

// fileFlags are those that not every owner may change, in the spelling of ioctl_iflags(2) or of struct fsxattr.
type fileFlags struct {
	protected uint32 // immutable or append-only
	project   uint32 // PROJINHERIT
	journal   uint32 // JOURNAL_DATA, an inode flag only
}

// Source: linux/fs.h.
var (
	inodeFlags = fileFlags{protected: 0x10 | 0x20, project: 0x20000000, journal: 0x4000}
	xattrFlags = fileFlags{protected: 0x08 | 0x10, project: 0x200}
)

const (
	fsxattrSize    = 28
	fsxattrProject = 12 // offset of fsx_projid
)

// maySetFileAttr reports whether the caller, who may do what the owner may, may give n, which is the object at, the flags
// in arg.
//
// Errors: EPERM, EINVAL. Source: fs/file_attr.c, fileattr_set_prepare; fs/ext4/ioctl.c, ext4_ioctl_setflags.
func (c *caller) maySetFileAttr(n *node, at sys.At, cmd uint32, arg []byte) error {
	get, size, special := uint32(unix.FS_IOC_GETFLAGS), 4, inodeFlags
	if cmd == sys.FSIocFSSetXattr {
		get, size, special = sys.FSIocFSGetXattr, fsxattrSize, xattrFlags
	}
	if len(arg) < size {
		return unix.EINVAL
	}
	var now [fsxattrSize]byte
	if err := fileAttr(n, at, get, now[:]); err != nil {
		return err
	}
	changes := binary.NativeEndian.Uint32(now[:]) ^ binary.NativeEndian.Uint32(arg)
	project := changes&special.project != 0 || size == fsxattrSize &&
		binary.NativeEndian.Uint32(now[fsxattrProject:]) != binary.NativeEndian.Uint32(arg[fsxattrProject:])
	switch {
	case changes&special.protected != 0 && !c.capable(unix.CAP_LINUX_IMMUTABLE),
		changes&special.journal != 0 && !c.capable(unix.CAP_SYS_RESOURCE):
		return unix.EPERM
	case project && c.known && !c.here, project && !c.known && c.uid != 0:
		return unix.EINVAL // a quota is counted by the project, which is of the machine
	}
	return nil
}

// fileAttr passes the request on to the object at, which is n in one of the layers.
func fileAttr(n *node, at sys.At, cmd uint32, arg []byte) error {
	var fd int
	var err error
	if n.dir != nil && at.Name == "" {
		fd, err = reopen(at.Dirfd, unix.O_RDONLY)
	} else {
		fd, err = sys.Open(at, unix.O_RDONLY|unix.O_NONBLOCK, 0)
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
