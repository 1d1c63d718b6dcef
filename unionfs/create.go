package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

var (
	faultStaged  = fault.New("unionfs.create.staged")  // made in the staging directory, incomplete
	faultReady   = fault.New("unionfs.create.ready")   // complete, not in place
	faultCreated = fault.New("unionfs.create.created") // in place, a whiteout of the name still there
)

// newObject is what somebody wants made.
type newObject struct {
	caller fuse.Caller
	mode   uint32 // st_mode, before the umask
	umask  uint32
	rdev   uint32
	target string // of a symbolic link
}

// Mknod makes a file, fifo, socket or device. Device 0:0 is refused: other tools take it for a whiteout.
func (fs *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	o := newObject{caller: in.Caller, mode: in.Mode, umask: in.Umask, rdev: in.Rdev}
	return fs.status("mknod", fs.create(in.NodeId, name, o, out))
}

// Mkdir makes a directory.
func (fs *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	o := newObject{caller: in.Caller, mode: unix.S_IFDIR | in.Mode&0o7777, umask: in.Umask}
	return fs.status("mkdir", fs.create(in.NodeId, name, o, out))
}

// Symlink makes a symbolic link.
func (fs *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	o := newObject{caller: in.Caller, mode: unix.S_IFLNK | 0o777, target: target}
	return fs.status("symlink", fs.create(in.NodeId, name, o, out))
}

// Create tells the kernel, for the life of the mount, to make a file by MKNOD and then to open it, which asks nothing.
// A file that was opened by CREATE before the first OPEN was answered would cost a RELEASE. ENOSYS is meant.
func (fs *FS) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}

func (fs *FS) create(parent uint64, name string, o newObject, out *fuse.EntryOut) error {
	p, err := fs.writableParent(parent, name)
	if err != nil {
		return err
	}
	if whiteout.IsDevice(o.mode, uint64(o.rdev)) {
		return unix.EPERM
	}
	n, err := fs.createIn(p, name, o)
	if err != nil {
		return err
	}
	if err := fs.fillEntry(n, out); err != nil {
		fs.forget(n, 1)
		return err
	}
	return nil
}

// writableParent returns the directory with that nodeid, copied up, to make name in. Errors: EROFS, EPERM for a name
// that only a mark may have.
func (fs *FS) writableParent(nodeid uint64, name string) (*node, error) {
	p, err := fs.parent(nodeid, name)
	if err != nil {
		return nil, err
	}
	if fs.upper == nil {
		return nil, unix.EROFS
	}
	if whiteout.Reserved(name) {
		return nil, unix.EPERM
	}
	fs.sweep()
	return p, fs.copyUp(p, wholeFile)
}

// createIn makes the object in p, which has been copied up, and returns its node with a reference taken.
func (fs *FS) createIn(p *node, name string, o newObject) (*node, error) {
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if p.dir.dead {
		return nil, unix.ENOENT
	}
	if err := fs.fill(p); err != nil {
		return nil, err
	}
	x := p.dir.index
	var flags entryFlags
	if e := x.get(name); e != nil {
		if !e.gone() {
			return nil, unix.EEXIST
		}
		flags = e.flags
	}
	up := p.upperDir()
	fd, err := fs.openDir(up)
	if err != nil {
		return nil, err
	}
	defer fs.releaseDir(up)
	m, err := fs.planNew(p, fd, o)
	if err != nil {
		return nil, err
	}
	made, err := fs.makeObject(sys.At{Dirfd: fd, Name: name}, m, flags)
	if err != nil {
		return nil, err
	}
	e := x.show(name, direntType(m.mode), nil, 0)
	e.flags &^= whNode
	if e.flags&whFile != 0 && whiteout.RemoveFile(fd, name) == nil {
		e.flags &^= whFile
	}
	n := fs.newNode(p, up, e, m, made)
	p.changed()
	return n, nil
}

// maker is an object about to be made: what is shown, and how it is stored.
type maker struct {
	newObject
	uid, gid uint32 // to store
	group    uint32 // what the inode gets for a group where nobody says another
	acl      []byte // default ACL of the parent
	disown   bool   // the parent has a default ACL, but ACLs are not kept
}

// planNew decides owner, group and mode of a new object in p, whose upper is open as fd. In a set-group-ID directory
// it gets the directory's group, and a directory the bit, too (inode(7)).
func (fs *FS) planNew(p *node, fd int, o newObject) (m maker, err error) {
	m.newObject = o
	// Who has no id in the layers makes files of the overflow id, as with fuse-overlayfs.
	if m.uid, err = fs.ids.storedUID(o.caller.Uid); err != nil {
		m.uid = overflowID
	}
	if m.gid, err = fs.ids.storedGID(o.caller.Gid); err != nil {
		m.gid = overflowID
	}
	m.group = fs.egid
	gid, set, err := fs.setGID(p)
	if err != nil {
		return m, err
	}
	if set {
		m.gid = gid
		if !fs.overrideAlways { // then the inode has not what is shown
			m.group = gid
		}
		if o.mode&unix.S_IFMT == unix.S_IFDIR {
			m.mode |= unix.S_ISGID
		}
	}
	if o.mode&unix.S_IFMT == unix.S_IFLNK {
		return m, nil
	}
	if set && o.mode&unix.S_IFMT != unix.S_IFDIR {
		if m.mode, err = fs.stripSetGID(p, o); err != nil {
			return m, err
		}
	}
	if m.acl, err = fs.defaultACL(p, fd); err != nil {
		return m, err
	}
	if fs.cfg.NoACL && m.acl != nil {
		m.acl, m.disown = nil, true
	}
	if m.acl == nil {
		m.mode &^= m.umask & 0o777
	}
	return m, nil
}

// setGID reports whether the directory p gives its group to what is made in it, and which that is.
func (fs *FS) setGID(p *node) (gid uint32, set bool, err error) {
	var a fuse.Attr
	if fs.attrs.get(p, &a) && a.Mode&unix.S_ISGID == 0 {
		return 0, false, nil
	}
	st, err := fs.stat(p)
	return st.Gid, st.Mode&unix.S_ISGID != 0, err
}

// stripSetGID returns the mode of something other than a directory that is made in the set-group-ID directory p: an
// executable gets the bit from who may set it for the directory's group. Since Linux 6.0 the kernel sees to it.
//
// Source: fs/inode.c, mode_strip_sgid.
func (fs *FS) stripSetGID(p *node, o newObject) (mode uint32, err error) {
	const executable = unix.S_ISGID | unix.S_IXGRP
	if o.mode&executable != executable || fs.kernel.Offers(fuse.CAP_CREATE_SUPP_GROUP) { // Linux 6.3
		return o.mode, nil
	}
	st, err := fs.stat(p)
	if err != nil {
		return 0, err
	}
	c := callerOf(o.caller)
	if c.keepsSetGID(fs.ids.shown(st.Uid, st.Gid)) {
		return o.mode, nil
	}
	return o.mode &^ unix.S_ISGID, nil
}

// made is a new object in the upper.
type made struct {
	st   unix.Stat_t
	over *override.Stat
	fd   int // open for reading and writing, of a regular file; else -1
}

// makeObject makes the object a. What the filesystem can make with the right owner and content in one step is made
// in place; anything else is completed in the staging directory first.
func (fs *FS) makeObject(a sys.At, m maker, flags entryFlags) (made, error) {
	meta, over := fs.plan(m.uid, m.gid, m.mode, uint64(m.rdev))
	isDir := m.mode&unix.S_IFMT == unix.S_IFDIR
	opaque := isDir && flags&inLower != 0
	// mkdir(2) leaves it to the parent's inode, which may not have the bit that is shown.
	setGID := isDir && m.mode&unix.S_ISGID != 0 && fs.upper.override != ""
	inPlace := over == nil && meta.UID == fs.euid && meta.GID == m.group && flags&whNode == 0 && !opaque && !setGID &&
		!m.disown // in the staging directory nothing is inherited
	if inPlace {
		r := made{fd: -1}
		err := r.make(a, meta.Mode, m)
		if err != nil {
			return r, err
		}
		_ = faultCreated.Hit() // too late to fail
		return r, r.stat(a)
	}
	tmp := fs.stage.Temp()
	r := made{fd: -1, over: over}
	err := r.make(tmp, meta.Mode, m)
	if err == nil {
		err = fs.complete(tmp, m, meta.UID, meta.GID, meta.Mode, over, opaque)
	}
	if err == nil {
		err = r.stat(tmp)
	}
	if err == nil {
		err = faultReady.Hit()
	}
	if err == nil {
		err = fs.placeNew(tmp, a, isDir, flags)
	}
	if err != nil {
		sys.Close(r.fd)
		fs.stage.Discard(tmp)
		return made{fd: -1}, err
	}
	_ = faultCreated.Hit() // too late to fail
	return r, nil
}

// make makes the bare object.
func (r *made) make(a sys.At, mode uint32, m maker) (err error) {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, 0:
		r.fd, err = sys.Open(a, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode&0o7777)
	case unix.S_IFDIR:
		err = sys.Mkdir(a, mode)
	case unix.S_IFLNK:
		err = sys.Symlink(m.target, a)
	default:
		err = sys.Mknod(a, mode, uint64(m.rdev))
	}
	return err
}

// stat reads the attributes of the object a that was made.
func (r *made) stat(a sys.At) (err error) {
	if r.fd >= 0 {
		a = sys.Fd(r.fd)
	}
	r.st, err = sys.Stat(a)
	return err
}

// complete gives a staged object what it did not get when it was made.
func (fs *FS) complete(tmp sys.At, m maker, uid, gid, mode uint32, over *override.Stat, opaque bool) error {
	if err := faultStaged.Hit(); err != nil {
		return err
	}
	if err := sys.Chown(tmp, int(uid), int(gid)); err != nil && (uid != fs.euid || gid != fs.egid) {
		return err
	}
	if m.mode&unix.S_IFMT != unix.S_IFLNK {
		mode, err := fs.applyACL(tmp, m, mode, over)
		if err != nil {
			return err
		}
		if err := sys.Chmod(tmp, mode); err != nil {
			return err
		}
	}
	if over != nil {
		if err := fs.writeOverride(tmp, *over); err != nil {
			return err
		}
	}
	if !opaque {
		return nil
	}
	fd, err := sys.Open(tmp, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return whiteout.SetOpaque(fd, fs.format)
}

// applyACL lets a staged object inherit the default ACL of the directory it is for, and returns its mode.
func (fs *FS) applyACL(tmp sys.At, m maker, mode uint32, over *override.Stat) (uint32, error) {
	if m.acl == nil {
		return mode, nil
	}
	access, masked, err := inheritACL(m.acl, mode)
	if err != nil {
		return 0, err
	}
	if access != nil {
		if err := sys.Setxattr(tmp, aclAccess, access, 0); err != nil {
			return 0, err
		}
	}
	if m.mode&unix.S_IFMT == unix.S_IFDIR {
		if err := sys.Setxattr(tmp, aclDefault, m.acl, 0); err != nil {
			return 0, err
		}
	}
	if over != nil {
		if _, shown, err := inheritACL(m.acl, over.Mode); err == nil {
			over.Mode = shown
		}
	}
	return masked, nil
}

// placeNew moves a staged object to its name, which is free but for a whiteout in it.
func (fs *FS) placeNew(tmp, a sys.At, isDir bool, flags entryFlags) error {
	if flags&whNode == 0 {
		return renameNew(tmp, a)
	}
	if !isDir {
		return sys.Rename(tmp, a, 0)
	}
	// A directory cannot take the place of the whiteout, but trade places with it.
	if err := sys.Rename(tmp, a, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	fs.stage.Discard(tmp)
	return nil
}

// newNode makes the node of an object just made in p, entry e, with a reference taken.
func (fs *FS) newNode(p *node, up *dir, e *entry, m maker, r made) *node {
	if r.over != nil {
		r.st.Uid, r.st.Gid, r.st.Mode, r.st.Rdev = r.over.UID, r.over.GID, r.over.Mode, r.over.Rdev
	}
	n := &node{typ: direntType(r.st.Mode), up: true, parent: p, name: e.name}
	n.ino.Store(fs.inoOf(fs.upper, &r.st))
	n.lookups.Store(1)
	if m.acl == nil && r.over == nil {
		n.xattrs.Store(xattrsNone)
	}
	if n.kind() == unix.S_IFDIR {
		n.up = false
		n.xattrs.Store(xattrsUnknown) // an opaque mark, perhaps
		n.dir = &dirState{upper: newDir(fs.upper, up, e.name), index: newIndex(0).countIn(&fs.counts.indexed)}
		if m.acl == nil {
			n.dir.acl.Store(aclNone)
		}
	}
	fs.nodes.add(n)
	if r.fd >= 0 {
		f := &openFile{flags: unix.O_RDWR}
		fs.fds.install(&f.fd, r.fd)
		fs.fds.release(&f.fd)
		n.file.Store(f)
	}
	fs.putAttr(n, n.changes.Load(), &r.st)
	e.node, e.ino = n, n.ino.Load()
	p.dir.kids++
	return n
}

// Tmpfile makes a file without a name (open(2), O_TMPFILE).
func (fs *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	p := fs.nodes.get(in.NodeId)
	switch {
	case p == nil || !p.isDir():
		return fs.status("tmpfile", unix.ENOTDIR)
	case fs.upper == nil:
		return fuse.EROFS
	}
	n, err := fs.makeTmpfile(p, newObject{caller: in.Caller, mode: unix.S_IFREG | in.Mode&0o7777, umask: in.Umask})
	if err != nil {
		return fs.status("tmpfile", err)
	}
	if err := fs.fillEntry(n, &out.EntryOut); err != nil {
		fs.forget(n, 1)
		return fs.status("tmpfile", err)
	}
	out.OpenOut = fuse.OpenOut{OpenFlags: fuse.FOPEN_KEEP_CACHE}
	if fs.passes() {
		fs.opened(n, in.Flags, &out.OpenOut)
	}
	return fuse.OK
}

func (fs *FS) makeTmpfile(p *node, o newObject) (*node, error) {
	if p.dir.gone() {
		return nil, unix.ENOENT
	}
	top := p.sources()[0]
	dirfd, err := fs.openDir(top)
	if err != nil {
		return nil, err
	}
	m, err := fs.planNew(p, dirfd, o)
	fs.releaseDir(top)
	if err != nil {
		return nil, err
	}
	meta, over := fs.plan(m.uid, m.gid, m.mode, 0)
	fd, err := sys.Open(sys.At{Dirfd: fs.work.staging, Name: "."}, unix.O_TMPFILE|unix.O_RDWR, meta.Mode&0o7777)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = fs.complete(sys.Fd(fd), m, meta.UID, meta.GID, meta.Mode, over, false); err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		sys.Close(fd)
		return nil, err
	}
	n := &node{typ: unix.DT_REG, up: true}
	n.ino.Store(fs.inoOf(fs.upper, &st))
	n.lookups.Store(1)
	if fs.fds.pin() {
		n.anon, n.own().fd = true, fd
		fs.nodes.add(n)
		return n, nil
	}
	// Too many are open without a name: it gets one where nobody sees it.
	number := fs.orphans.Add(1)
	err = sys.Link(sys.Fd(fd), sys.At{Dirfd: fs.work.staging, Name: orphanName(number)})
	sys.Close(fd)
	if err != nil {
		return nil, err
	}
	n.own().orphaned = number
	fs.nodes.add(n)
	return n, nil
}
