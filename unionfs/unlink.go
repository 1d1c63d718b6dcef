package unionfs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// Removing a name.
//
// With .wh. files the whiteout is made first: as long as the upper has the name itself, it says something about the
// lowers only. The unlink then is what shows. A whiteout that takes the name itself comes from the staging directory,
// by one rename over what is there, or in exchange for a directory.

var (
	faultWhiteout = fault.New("unionfs.remove.whiteout") // whiteout made, the upper's own object still there
	faultRemoved  = fault.New("unionfs.remove.removed")  // name gone, what was there still in the staging directory
	faultCounted  = fault.New("unionfs.remove.counted")  // name gone, link count in the index not yet changed
)

// Unlink removes a name of something that is no directory.
func (fs *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.status("unlink", fs.remove(in.NodeId, name, false))
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return fs.status("rmdir", fs.remove(in.NodeId, name, true))
}

// makeRoom waits, when too many objects without a name are kept open, for those to go that nobody has open any more. Who
// removes a tree would else be faster than the reaper.
//
// Precondition: no dirState.mu and no node.loc is held.
func (fs *FS) makeRoom() {
	fs.sweep()
	if fs.fds.crowded() {
		fs.reaper.catchUp()
	}
}

func (fs *FS) remove(parent uint64, name string, wantDir bool) error {
	p, err := fs.parent(parent, name)
	if err != nil {
		return err
	}
	if whiteout.Reserved(name) {
		return unix.ENOENT
	}
	n, err := fs.child(p, name)
	if err != nil {
		return err
	}
	defer fs.forget(n, 1)
	switch {
	case wantDir && !n.isDir():
		return unix.ENOTDIR
	case !wantDir && n.isDir():
		return unix.EISDIR
	}
	if err := fs.copyUp(p, wholeFile); err != nil {
		return err
	}
	fs.makeRoom()
	defer lockDirs(p, n)()
	e := p.dir.index.lookup(name)
	if e == nil || e.node != n {
		return unix.ENOENT // somebody was faster
	}
	if wantDir {
		if err := fs.fill(n); err != nil {
			return err
		}
		if n.dir.index.visible > 0 {
			return unix.ENOTEMPTY
		}
	}
	path, up := fs.upperPath(n, p, name), p.upperDir() // before the lock on n: see upperPath
	defer lockNodes(n)()
	fd, err := fs.openDir(up)
	if err != nil {
		return err
	}
	defer fs.releaseDir(up)
	at := sys.At{Dirfd: fd, Name: name}
	if wantDir {
		err = fs.removeDir(n, e, at)
	} else {
		err = fs.removeFile(n, path, e, at)
	}
	if err != nil {
		return err
	}
	fs.nameGone(n, dentry{p, name})
	p.dir.index.hide(p.dir.index.get(name))
	p.dir.kids--
	p.changed()
	return nil
}

// formatFor is the format of a whiteout for name. A name for which there is no .wh. file, since it is too long or would
// be another mark, gets a device also where files are the rule: every format is read in every layer.
func (fs *FS) formatFor(name string) whiteout.Format {
	if _, err := whiteout.Name(name); err != nil {
		return whiteout.Overlay
	}
	return fs.format
}

// unrecordable makes the errno of a deletion for which neither a .wh. file nor a device can be made.
func (fs *FS) unrecordable(name string, err error) error {
	if _, errName := whiteout.Name(name); errName != nil && errors.Is(err, unix.EPERM) {
		return errName
	}
	return err
}

// removeFile takes the name at, entry e of its directory, off the node n. path is where it is in the upper.
// Preconditions: the parent's mu and n.loc are held.
func (fs *FS) removeFile(n *node, path string, e *entry, at sys.At) error {
	inUpper := e.layer == 0
	undo, err := fs.keepContent(n)
	if err != nil {
		return err
	}
	if h := n.hard(); h != nil {
		fs.links.intend(h, -1, path, !inUpper)
		cancel := undo
		undo = func() { cancel(); _ = fs.links.settle(h) } // a stale intent tells of a name that is still there
	}
	err = fs.takeOff(e, at, inUpper, removal{remove: sys.Unlink})
	if err != nil {
		undo()
	}
	return fs.unrecordable(at.Name, err)
}

// removal is how the upper's own object goes away.
type removal struct {
	remove   func(sys.At) error
	exchange uint   // flags of the rename by which a whiteout takes its place
	keepAs   string // name in the staging directory by which a directory that is exchanged stays, "" where it goes
}

// takeOff removes what is at the name at, entry e, and leaves a whiteout where a lower layer has something of the name.
// inUpper says that the upper has something there.
func (fs *FS) takeOff(e *entry, at sys.At, inUpper bool, how removal) (err error) {
	switch {
	case e.flags&inLower == 0:
		return how.remove(at)
	case fs.formatFor(at.Name) == whiteout.WH:
		if err = fs.makeWhiteout(at.Dirfd, at.Name); err != nil {
			return err
		}
		if err = faultWhiteout.Hit(); err == nil && inUpper {
			err = how.remove(at)
		}
		if err == nil {
			e.flags |= whFile
		} else if e.flags&whFile == 0 {
			_ = whiteout.RemoveFile(at.Dirfd, at.Name) // harmless beside the name
		}
		return err
	case inUpper:
		err = fs.replaceByWhiteout(at, how)
	default:
		if err = fs.counts.madeWhiteout(whiteout.MakeDevice(at)); err == nil {
			fs.dropInherited(at)
		}
	}
	if err == nil {
		e.flags |= whNode
	}
	return err
}

// makeWhiteout makes the .wh. file of name in the upper directory open as fd.
func (fs *FS) makeWhiteout(fd int, name string) error {
	err := fs.counts.madeWhiteout(whiteout.MakeFile(fd, name))
	if err != nil || !fs.cfg.NoACL {
		return err
	}
	wh, err := whiteout.Name(name)
	if err == nil {
		fs.dropInherited(sys.At{Dirfd: fd, Name: wh})
	}
	return err
}

// dropInherited takes the ACL from a mark that was made in the upper, where none are to be: the directory it is in may
// have a default ACL all the same.
func (fs *FS) dropInherited(mark sys.At) {
	if fs.cfg.NoACL {
		_ = sys.Removexattr(mark, aclAccess) // mostly there is none, and nobody sees it
	}
}

// replaceByWhiteout puts a whiteout where the object a is. With RENAME_EXCHANGE the object is a directory, which then
// is thrown away, or kept in the staging directory.
func (fs *FS) replaceByWhiteout(a sys.At, how removal) error {
	tmp := fs.stage.Temp()
	if how.keepAs != "" {
		tmp.Name = how.keepAs
	}
	if err := fs.counts.madeWhiteout(whiteout.MakeDevice(tmp)); err != nil {
		return err
	}
	err := faultWhiteout.Hit()
	switch {
	case err != nil:
	case how.exchange == 0:
		err = sys.Rename(tmp, a, 0)
	default:
		err = fs.stage.TakeDir(a, tmp, how.exchange)
	}
	if err == nil && how.exchange == 0 {
		return nil
	}
	if err == nil && how.keepAs != "" {
		_ = faultRemoved.Hit() // too late to fail
		return nil
	}
	_ = faultRemoved.Hit() // too late to fail
	fs.stage.Discard(tmp)
	return err
}

// removeDir removes the directory n, of which nothing is visible, at the name at. Preconditions: as removeFile, and
// n.dir.mu is held.
func (fs *FS) removeDir(n *node, e *entry, at sys.At) error {
	st, err := fs.statLocked(n)
	if err != nil {
		return err
	}
	undo, err := fs.keepContent(n)
	if err != nil {
		return err
	}
	how := removal{remove: fs.removeUpperDir, exchange: unix.RENAME_EXCHANGE}
	number := uint64(0)
	if n.dir.upper != nil && !n.anon {
		// No descriptor is to be had to keep it by.
		number = fs.orphans.Add(1)
		how.keepAs = orphanName(number)
		how.remove = func(a sys.At) error {
			err := fs.stage.TakeDir(a, sys.At{Dirfd: fs.work.staging, Name: how.keepAs}, 0)
			_ = faultRemoved.Hit() // too late to fail
			return err
		}
	}
	if err = fs.takeOff(e, at, n.dir.upper != nil, how); err != nil {
		undo()
		return fs.unrecordable(at.Name, err)
	}
	if number != 0 {
		n.own().orphaned = number
	}
	fs.buryDir(n, &st)
	return nil
}

// buryDir notes that the directory n is gone. st is how it was. Preconditions: n.dir.mu and n.loc are held.
func (fs *FS) buryDir(n *node, st *unix.Stat_t) {
	if n.dir.upper != nil {
		fs.dropOrigin(st.Ino)
	}
	n.dir.dead = true
	n.dir.final = st
	fs.emptyIndex(n.dir)
	n.changed()
}

// removeUpperDir removes a directory of the upper in which at most marks are left. With marks in it, it is moved
// away as a whole: without its whiteouts it would be another directory.
func (fs *FS) removeUpperDir(a sys.At) error {
	err := sys.Rmdir(a)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	tmp := fs.stage.Temp()
	if err := fs.stage.TakeDir(a, tmp, 0); err != nil {
		return err
	}
	_ = faultRemoved.Hit() // too late to fail
	fs.stage.Discard(tmp)
	return nil
}

// keepContent makes sure that n's content stays within reach when it loses one more name. undo takes that back when
// the name stays after all. Precondition: n.loc is held exclusively.
//
// A lower object stays where it is. One in the upper of which we know no other name is kept open, without a name, or,
// where too many are open already, by a name in the staging directory.
func (fs *FS) keepContent(n *node) (undo func(), err error) {
	nothing := func() {}
	if n.dir != nil {
		return fs.keepDir(n, fs.fds.pin)
	}
	if !n.up || n.anon || n.rarely().orphaned != 0 || n.parent != nil && len(n.rarely().more) > 0 {
		return nothing, nil
	}
	if n.hard() != nil && fs.links.nlink(n.hard()) > 1 {
		return nothing, nil // the index keeps it
	}
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return nothing, err
	}
	defer release()
	if !fs.fds.pin() {
		number := fs.orphans.Add(1)
		if err := sys.Link(at, sys.At{Dirfd: fs.work.staging, Name: orphanName(number)}); err == nil {
			n.own().orphaned = number
			return func() {
				_ = sys.Unlink(sys.At{Dirfd: fs.work.staging, Name: orphanName(number)}) // else the next mount clears it
				n.own().orphaned = 0
			}, nil
		}
		fs.fds.mustPin() // a filesystem without hard links
	}
	fd, ok := fs.stealFile(n)
	if !ok {
		fd, err = sys.Open(at, unix.O_PATH, 0)
	}
	if err != nil {
		fs.fds.unpin()
		return nothing, err
	}
	n.anon, n.own().fd = true, fd
	return func() {
		n.anon = false
		sys.Close(fd)
		fs.fds.unpin()
	}, nil
}

// stealFile takes the descriptor for IO of an upper file away, if it has one. Precondition: n.loc is held exclusively, so
// that nobody uses it.
func (fs *FS) stealFile(n *node) (int, bool) {
	f := n.file.Load()
	if f == nil || f.lower {
		return -1, false
	}
	return fs.fds.steal(&f.fd, 0)
}

// keepDir keeps an upper directory open that is about to be removed, if there is room, as pin says: who has it open may
// still change its mode and the like. A lower one stays where it is. Precondition: n.loc is held exclusively.
func (fs *FS) keepDir(n *node, pin func() bool) (undo func(), err error) {
	nothing := func() {}
	if n.dir.upper == nil || !pin() {
		return nothing, nil
	}
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		fs.fds.unpin()
		return nothing, err
	}
	defer release()
	fd, ok := fs.fds.steal(&n.dir.upper.fd, 1) // held by us alone
	if !ok {
		fd, err = reopen(at.Dirfd, unix.O_PATH)
	}
	if err != nil {
		fs.fds.unpin()
		return nothing, nil // of no mode that lets us search it: then it is just not kept
	}
	n.anon, n.own().fd = true, fd
	return func() {
		n.anon = false
		sys.Close(fd)
		fs.fds.unpin()
	}, nil
}

// nameGone notes that n has lost the name d. Precondition: n.loc is held exclusively.
func (fs *FS) nameGone(n *node, d dentry) {
	n.dropDentryLocked(d)
	n.changed()
	if n.dir != nil {
		return
	}
	n.unnamed = n.parent == nil
	if n.hard() != nil {
		_ = faultCounted.Hit() // too late to fail
		if err := fs.links.count(n.hard(), -1); err != nil && !errors.Is(err, unix.ENOENT) {
			fs.log.Printf("unlink: link count of a lower file: %v", err)
		}
	}
	if n.unnamed && n.up && fs.links.hasOrigins() {
		if st, err := fs.statLocked(n); err == nil {
			fs.dropOrigin(st.Ino)
		}
	}
}
