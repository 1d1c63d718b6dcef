package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// GetAttr answers stat(2) and what it is made of.
func (fs *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("getattr", unix.ESTALE)
	}
	if err := fs.attr(n, &out.Attr); err != nil {
		return fs.status("getattr", err)
	}
	out.SetTimeout(fs.attrTimeout(n))
	return fuse.OK
}

// attr returns the node's attributes, from memory where they are known.
//
// Precondition: no dirState.mu is held, since a directory's link count may have to be counted.
func (fs *FS) attr(n *node, out *fuse.Attr) error {
	passed, _ := fs.passed(n)
	if !passed && fs.attrs.get(n, out) {
		return nil
	}
	changes := n.changes.Load()
	st, err := fs.stat(n)
	if err != nil {
		return err
	}
	if n.dir != nil {
		if st.Nlink, err = fs.dirNlink(n, st.Nlink); err != nil {
			return err
		}
	}
	fs.fillAttr(n, &st, out)
	if !passed {
		fs.attrs.put(n, changes, out)
	}
	return nil
}

// stat returns the attributes of the object that holds the node's content, with owner, mode and type as the layer
// means them, and of something that is no directory the link count.
func (fs *FS) stat(n *node) (unix.Stat_t, error) {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return fs.statLocked(n)
}

func (fs *FS) statLocked(n *node) (unix.Stat_t, error) {
	if n.dir != nil && n.dir.final != nil && !n.anon && n.rarely().orphaned == 0 {
		st := *n.dir.final
		st.Nlink = 0
		return st, nil
	}
	at, l, release, err := fs.locateLocked(n)
	if err != nil {
		return unix.Stat_t{}, err
	}
	defer release()
	st, err := sys.Stat(at)
	if err != nil {
		return st, err
	}
	if l.override != "" {
		if err := applyOverride(at, l.override, &st); err != nil {
			return st, err
		}
	}
	if n.dir == nil && !n.up {
		fs.fillBlocks(n.lower, at, &st)
	}
	switch {
	case n.dir != nil && n.dir.final != nil:
		st.Nlink = 0 // also while it waits in the staging directory to be taken apart
	case n.dir != nil:
	case n.hard() != nil:
		st.Nlink = uint64(fs.links.nlink(n.hard()))
	case n.rarely().orphaned != 0:
		st.Nlink-- // its name in the staging directory
	case n.unnamed && !n.up:
		st.Nlink = 0
	}
	return st, nil
}

// dirNlink returns a directory's link count. What lies in one layer is as that layer says; of what is merged the
// subdirectories are counted, but for a directory whose names are probed.
func (fs *FS) dirNlink(n *node, nlink uint64) (uint64, error) {
	if fs.cfg.StaticNlink {
		return nlink, nil // fillAttr has the last word
	}
	if len(n.sources()) < 2 || nlink == 0 {
		return nlink, nil
	}
	if fs.probes(n) {
		return 1, nil // unknown, as kernel overlayfs says it of all that is merged: names are not read for a count
	}
	x, unlock, err := fs.readIndex(n)
	if err == unix.EACCES {
		return 1, nil // as above: a directory that we may not list can still be looked at
	}
	if err != nil {
		return 0, err
	}
	defer unlock()
	return uint64(2 + x.subdirs), nil
}

// fillAttr converts attributes to what the kernel is told.
func (fs *FS) fillAttr(n *node, st *unix.Stat_t, out *fuse.Attr) {
	uid, gid := fs.ids.shown(st.Uid, st.Gid)
	*out = fuse.Attr{
		Ino:   n.ino.Load(),
		Size:  uint64(st.Size),
		Mode:  st.Mode,
		Nlink: uint32(st.Nlink),
		Owner: fuse.Owner{Uid: uid, Gid: gid},
		Rdev:  uint32(st.Rdev),

		Blocks:    uint64(st.Blocks),
		Blksize:   uint32(st.Blksize),
		Atime:     uint64(st.Atim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtime:     uint64(st.Mtim.Sec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctime:     uint64(st.Ctim.Sec),
		Ctimensec: uint32(st.Ctim.Nsec),
	}
	if fs.cfg.StaticNlink && n.dir != nil {
		out.Nlink = 1
	}
}

// applyOverride replaces owner, permission bits and type by those kept in the attribute. An object without the
// attribute is as it is, and so is one that we may not read: who wrote the attribute left the owner that right.
func applyOverride(at sys.At, attr string, st *unix.Stat_t) error {
	v, err := sys.XattrValue(at, attr)
	if err == unix.ENODATA || err == unix.ENOTSUP || err == unix.EACCES {
		return nil
	}
	if err != nil {
		return err
	}
	o, err := override.Parse(string(v))
	if err != nil {
		return nil // an untrusted layer's nonsense takes nothing with it: the inode's own owner is shown
	}
	st.Uid, st.Gid = o.UID, o.GID
	st.Mode = st.Mode&unix.S_IFMT | o.Mode&0o7777
	typ := o.Mode & unix.S_IFMT
	// Only an empty stand-in can be something else; a directory never is.
	if typ != 0 && st.Mode&unix.S_IFMT == unix.S_IFREG && typ != unix.S_IFDIR && typ != unix.S_IFLNK {
		st.Mode = st.Mode&0o7777 | typ
		st.Rdev = o.Rdev
	}
	return nil
}

// Statx answers statx(2) where more is wanted than GETATTR has: the time of birth.
func (fs *FS) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("statx", unix.ESTALE)
	}
	var a fuse.Attr
	if err := fs.attr(n, &a); err != nil {
		return fs.status("statx", err)
	}
	loc, err := fs.locate(n)
	if err != nil {
		return fs.status("statx", err)
	}
	stx, err := sys.Statx(loc.At, unix.STATX_BASIC_STATS|unix.STATX_BTIME)
	loc.done()
	if err != nil {
		return fs.status("statx", err)
	}
	out.FromStatx(&stx)
	out.Uid, out.Gid, out.Mode, out.Nlink = a.Uid, a.Gid, uint16(a.Mode), a.Nlink
	out.Ino, out.Size, out.Blocks = a.Ino, a.Size, a.Blocks
	out.RdevMajor, out.RdevMinor = unix.Major(uint64(a.Rdev)), unix.Minor(uint64(a.Rdev))
	out.SetTimeout(fs.attrTimeout(n))
	return fuse.OK
}
