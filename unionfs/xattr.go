package unionfs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// GetXAttr reads an extended attribute. That an object has none at all is remembered, since the kernel asks for
// security.capability and the like all the time.
func (fs *FS) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if fs.cfg.NoXattr {
		return 0, fuse.ENOSYS // for the whole mount: the kernel asks no more
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return 0, fs.status("getxattr", unix.ESTALE)
	}
	if n.xattrs.Load() == xattrsUnknown {
		if err := fs.learnXattrs(n); err != nil {
			return 0, fs.status("getxattr", err)
		}
	}
	if n.isPlain() {
		return 0, fuse.Status(unix.ENODATA)
	}
	stored, err := whiteout.Stored(attr)
	if err != nil {
		return 0, fuse.Status(unix.ENODATA)
	}
	if fs.noACL(attr) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	loc, err := fs.locate(n)
	if err != nil {
		return 0, fs.status("getxattr", err)
	}
	defer loc.done()
	if fs.mapsACL(attr) {
		return fs.getMappedACL(loc.At, attr, dest)
	}
	size, err := sys.Getxattr(loc.At, stored, dest)
	if err == unix.ERANGE && len(dest) == 0 {
		err = nil
	}
	if err != nil {
		return 0, fuse.Status(errnoOf(err))
	}
	return uint32(size), fuse.OK
}

func errnoOf(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok {
		return e
	}
	return unix.EIO
}

func (fs *FS) noACL(attr string) bool {
	return fs.cfg.NoACL && (attr == aclAccess || attr == aclDefault)
}

// isPlain reports whether the object is known to have no extended attributes but those of the union itself.
func (n *node) isPlain() bool { return n.xattrs.Load() == xattrsNone }

// learnXattrs finds out, once, whether the object has extended attributes.
func (fs *FS) learnXattrs(n *node) error {
	n.loc.Lock()
	defer n.loc.Unlock()
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return err
	}
	defer release()
	names, err := sys.XattrNames(at)
	if err != nil {
		n.xattrs.Store(xattrsSome)
		return nil
	}
	n.xattrs.Store(xattrsOf(names))
	return nil
}

// getMappedACL reads an ACL whose ids are translated.
func (fs *FS) getMappedACL(at sys.At, attr string, dest []byte) (uint32, fuse.Status) {
	v, err := sys.XattrValue(at, attr)
	if err == nil {
		v, err = mapACL(v,
			func(id uint32) (uint32, error) { return fs.ids.uids.shown(id), nil },
			func(id uint32) (uint32, error) { return fs.ids.gids.shown(id), nil })
	}
	if err != nil {
		return 0, fuse.Status(errnoOf(err))
	}
	if len(dest) == 0 {
		return uint32(len(v)), fuse.OK
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

func (fs *FS) mapsACL(attr string) bool {
	return (attr == aclAccess || attr == aclDefault) && (len(fs.ids.uids) > 0 || len(fs.ids.gids) > 0)
}

// ListXAttr lists the extended attributes that are not a union filesystem's own.
func (fs *FS) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if fs.cfg.NoXattr {
		return 0, fuse.ENOSYS
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return 0, fs.status("listxattr", unix.ESTALE)
	}
	if n.isPlain() {
		return 0, fuse.OK
	}
	loc, err := fs.locate(n)
	if err != nil {
		return 0, fs.status("listxattr", err)
	}
	defer loc.done()
	names, err := sys.XattrNames(loc.At)
	if err != nil {
		return 0, fs.status("listxattr", err)
	}
	var list []byte
	for _, stored := range names {
		if in.Uid != 0 && strings.HasPrefix(stored, "trusted.") {
			continue // xattr(7): for who has CAP_SYS_ADMIN
		}
		if name, ok := whiteout.Shown(stored); ok && !fs.noACL(name) {
			list = append(append(list, name...), 0)
		}
	}
	if len(dest) == 0 {
		return uint32(len(list)), fuse.OK
	}
	if len(dest) < len(list) {
		return uint32(len(list)), fuse.ERANGE
	}
	return uint32(copy(dest, list)), fuse.OK
}

// setxattrACLKillSGID is FUSE_SETXATTR_ACL_KILL_SGID: the caller may not keep the set-group-ID bit over the change
// of an ACL.
const setxattrACLKillSGID = 1

// SetXAttr sets an extended attribute.
func (fs *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, value []byte) fuse.Status {
	if fs.cfg.NoXattr {
		return fuse.ENOSYS
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("setxattr", unix.ESTALE)
	}
	killSGID := in.SetXAttrFlags&setxattrACLKillSGID != 0
	if attr == aclAccess && !fs.kernel.Offers(fuse.CAP_SETXATTR_EXT) {
		var err error
		if killSGID, err = fs.losesSetGID(n, in.Caller); err != nil {
			return fs.status("setxattr", err)
		}
	}
	return fs.status("setxattr", fs.setXattr(n, attr, value, int(in.Flags), killSGID))
}

// losesSetGID decides what setxattrACLKillSGID says, for a kernel that does not say it: before Linux 5.14
// (fuse_set_acl).
func (fs *FS) losesSetGID(n *node, h fuse.Caller) (bool, error) {
	var a fuse.Attr
	if err := fs.attr(n, &a); err != nil || a.Mode&unix.S_ISGID == 0 {
		return false, err
	}
	c := callerOf(h)
	return !c.keepsSetGID(a.Uid, a.Gid), nil
}

func (fs *FS) setXattr(n *node, attr string, value []byte, flags int, killSGID bool) error {
	stored, err := fs.writableXattr(attr)
	if err != nil {
		return err
	}
	if fs.mapsACL(attr) {
		if value, err = mapACL(value, fs.ids.uids.stored, fs.ids.gids.stored); err != nil {
			return err
		}
	}
	if err := fs.copyUp(n, wholeFile); err != nil {
		return err
	}
	n.loc.Lock()
	defer n.loc.Unlock()
	defer n.changed()
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return err
	}
	defer release()
	if attr == aclAccess { // it may leave the owner no right to read
		if err := fs.keepOrigin(at); err != nil {
			return err
		}
	}
	n.xattrs.Store(xattrsSome)
	n.forgetACL(attr)
	if err := sys.Setxattr(at, stored, value, flags); err != nil {
		return err
	}
	if attr == aclAccess {
		if err := fs.overrideFromACL(n, at); err != nil {
			return err
		}
	}
	if killSGID && attr == aclAccess {
		return fs.dropSGID(at)
	}
	return nil
}

// overrideFromACL takes the permission bits that an ACL has given the inode over to the override attribute, where the
// object has one: the bits of its group are the ACL's mask (acl(5)).
func (fs *FS) overrideFromACL(n *node, at sys.At) error {
	o, has := fs.readOverride(at)
	if !has {
		return nil
	}
	st, err := sys.Stat(at)
	if err != nil {
		return err
	}
	defer fs.overrides.lock(n)()
	o.Mode = o.Mode&^0o777 | st.Mode&0o777
	return fs.writeOverride(at, o)
}

func (fs *FS) dropSGID(at sys.At) error {
	if o, has := fs.readOverride(at); has {
		o.Mode &^= unix.S_ISGID
		return fs.writeOverride(at, o)
	}
	st, err := sys.Stat(at)
	if err != nil || st.Mode&unix.S_ISGID == 0 {
		return err
	}
	return sys.Chmod(at, st.Mode&^unix.S_ISGID)
}

// writableXattr returns the name under which an attribute is stored.
func (fs *FS) writableXattr(attr string) (string, error) {
	if fs.noACL(attr) || strings.HasPrefix(attr, "system.") && attr != aclAccess && attr != aclDefault {
		return "", unix.EOPNOTSUPP // xattr(7): who may set these is the filesystem's business, and they are none of ours
	}
	return whiteout.Stored(attr)
}

// forgetACL takes back what is known of the default ACL of a directory.
func (n *node) forgetACL(attr string) {
	if n.dir != nil && attr == aclDefault {
		n.dir.acl.Store(aclUnknown)
	}
}

// RemoveXAttr removes an extended attribute. One that is not there is ENODATA, and no reason to copy anything up.
func (fs *FS) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	if fs.cfg.NoXattr {
		return fuse.ENOSYS
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("removexattr", unix.ESTALE)
	}
	return fs.status("removexattr", fs.removeXattr(n, attr))
}

func (fs *FS) removeXattr(n *node, attr string) error {
	stored, err := fs.writableXattr(attr)
	if err != nil {
		return err
	}
	loc, err := fs.locate(n)
	if err != nil {
		return err
	}
	_, err = sys.Getxattr(loc.At, stored, nil)
	loc.done()
	if err == unix.ENODATA && attr != aclAccess && attr != aclDefault {
		return err
	}
	if err := fs.copyUp(n, wholeFile); err != nil {
		return err
	}
	if loc, err = fs.locate(n); err != nil {
		return err
	}
	defer loc.done()
	defer n.changed()
	n.forgetACL(attr)
	return sys.Removexattr(loc.At, stored)
}
