package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// SetAttr answers chmod(2), chown(2), truncate(2), utimensat(2), and open(2) with O_TRUNC.
func (fs *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("setattr", unix.ESTALE)
	}
	if err := fs.setAttr(n, in); err != nil {
		return fs.status("setattr", err)
	}
	if err := fs.attr(n, &out.Attr); err != nil {
		return fs.status("setattr", err)
	}
	out.SetTimeout(fs.attrTimeout(n))
	return fuse.OK
}

const settable = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE |
	fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW

func (fs *FS) setAttr(n *node, in *fuse.SetAttrIn) error {
	if in.Valid == 0 {
		return fs.dropSetID(n)
	}
	if in.Valid&settable == 0 {
		return nil // the change time alone, which is not ours to set
	}
	limit := int64(wholeFile)
	if size, ok := in.GetSize(); ok {
		limit = int64(size)
	}
	if err := fs.copyUp(n, limit); err != nil {
		return err
	}
	defer n.changed()
	if size, ok := in.GetSize(); ok {
		if err := fs.truncate(n, int64(size), in.Valid&fuse.FATTR_KILL_SUIDGID != 0); err != nil {
			return err
		}
	}
	if in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_MODE) != 0 {
		if err := fs.setOwnerMode(n, in); err != nil {
			return err
		}
	}
	return fs.setTimes(n, in)
}

// dropSetID takes the set-id bits from a file. The kernel asks for it by a request that sets nothing, where it would
// clear them itself if FUSE_HANDLE_KILLPRIV_V2 did not leave that to the server: chown(2) without a change, fallocate(2).
func (fs *FS) dropSetID(n *node) error {
	st, err := fs.stat(n)
	if err != nil || n.dir != nil || withoutSetID(st.Mode) == st.Mode {
		return err
	}
	if err := fs.copyUp(n, wholeFile); err != nil {
		return err
	}
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	defer loc.done()
	defer n.changed()
	return fs.killSetIDAt(n, loc.At)
}

func (fs *FS) truncate(n *node, size int64, kill bool) error {
	d, err := fs.openData(n, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer d.done()
	for {
		err = unix.Ftruncate(d.fd, size)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && kill {
		err = fs.killSetID(n, d.fd)
	}
	return err
}

// setOwnerMode changes owner, group and permission bits, in the inode or in the attribute that stands for them.
func (fs *FS) setOwnerMode(n *node, in *fuse.SetAttrIn) error {
	uid, gid, err := fs.newOwner(in)
	if err != nil {
		return err
	}
	mode, setMode := in.GetMode()
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	defer loc.done()
	if done, err := fs.overrideOwnerMode(n, loc.At, uid, gid, mode, setMode); done || err != nil {
		return err
	}
	if uid >= 0 || gid >= 0 {
		err := sys.Chown(loc.At, uid, gid)
		if fs.ids.squashed() && (err == unix.EPERM || err == unix.EINVAL) {
			err = nil // nobody sees the owner
		}
		if err != nil {
			return err
		}
	}
	if !setMode {
		return nil
	}
	if !fs.readable(mode) {
		if err := fs.keepOrigin(loc.At); err != nil {
			return err
		}
	}
	return sys.Chmod(loc.At, mode)
}

// newOwner returns the ids to store, -1 for one that stays.
func (fs *FS) newOwner(in *fuse.SetAttrIn) (uid, gid int, err error) {
	uid, gid = -1, -1
	if id, ok := in.GetUID(); ok {
		host, err := fs.ids.storedUID(id)
		if err != nil {
			return 0, 0, err
		}
		uid = int(host)
	}
	if id, ok := in.GetGID(); ok {
		host, err := fs.ids.storedGID(id)
		if err != nil {
			return 0, 0, err
		}
		gid = int(host)
	}
	return uid, gid, nil
}

// overrideOwnerMode makes the change in the override attribute, where the object has one or needs one for it, and
// reports whether that was so.
func (fs *FS) overrideOwnerMode(n *node, at sys.At, uid, gid int, mode uint32, setMode bool) (bool, error) {
	if fs.upper.override == "" {
		return false, nil
	}
	defer fs.overrides.lock(n)()
	o, has := fs.readOverride(at)
	if !has {
		st, err := sys.Stat(at)
		if err != nil {
			return true, err
		}
		o = override.Stat{UID: st.Uid, GID: st.Gid, Mode: st.Mode, Rdev: st.Rdev}
		foreign := uid >= 0 && uint32(uid) != o.UID || gid >= 0 && uint32(gid) != o.GID
		if !fs.overrideAlways && (fs.canChown || !foreign) {
			return false, nil
		}
		if !fs.canChown && !fs.overrideAlways && sys.Chown(at, uid, gid) == nil {
			return false, nil // to another group of the user, say
		}
	}
	if o.Mode&unix.S_IFMT == unix.S_IFLNK {
		return !fs.canChown, nil // bears no attribute: elsewhere the owner cannot be kept
	}
	if uid >= 0 {
		o.UID = uint32(uid)
	}
	if gid >= 0 {
		o.GID = uint32(gid)
	}
	if (uid >= 0 || gid >= 0) && n.dir == nil {
		o.Mode = withoutSetID(o.Mode) // chown(2)
	}
	if setMode {
		o.Mode = o.Mode&^0o7777 | mode&0o7777
	}
	n.xattrs.Store(xattrsSome)
	if err := fs.writeOverride(at, o); err != nil || !setMode {
		return true, err
	}
	// The inode follows as far as we can still work with it: it is what others on the host go by, and an ACL's mask.
	return true, sys.Chmod(at, realMode(n.kind()|o.Mode&0o7777))
}

func (fs *FS) setTimes(n *node, in *fuse.SetAttrIn) error {
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	atime, mtime := omit, omit
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		atime = now
	case in.Valid&fuse.FATTR_ATIME != 0:
		atime = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		mtime = now
	case in.Valid&fuse.FATTR_MTIME != 0:
		mtime = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
	}
	if atime == omit && mtime == omit {
		return nil
	}
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	defer loc.done()
	return sys.Utimens(loc.At, atime, mtime)
}
