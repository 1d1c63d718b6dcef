package unionfs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// wholeFile asks copyUp for all of a file's data.
const wholeFile = -1

var (
	faultPlace   = fault.New("unionfs.copyup.place")   // staged, not in place yet
	faultIndexed = fault.New("unionfs.copyup.indexed") // in the index, without a name in the upper
	faultPlaced  = fault.New("unionfs.copyup.placed")  // in place, the parent's times not restored
	faultTree    = fault.New("unionfs.copyup.tree")    // a subtree copied up, not opaque yet
	faultCut     = fault.New("unionfs.copyup.cut")     // cut off, superfluous marks not removed
)

// copyUp makes sure that the node's content is in the upper. Of a regular file at most limit bytes are copied; what
// the caller truncates away need not be. Whoever wants the same object meanwhile waits, nobody else does.
//
// Preconditions: no dirState.mu and no node.loc is held.
// Errors: EROFS without an upper; those of the copy, after which the lower is visible as before and the upper and
// the staging directory are as they were, the directories that lead to the object included.
func (fs *FS) copyUp(n *node, limit int64) error {
	if n.claim(nil) {
		return nil
	}
	c := copies{fs: fs, final: n}
	if err := fs.copyUpFor(&c, n, limit); err != nil {
		c.putBack()
		return err
	}
	c.keep()
	return nil
}

// copyUpFor is copyUp as a part of a change that may yet fail, and adds to c what it copied.
func (fs *FS) copyUpFor(c *copies, n *node, limit int64) (err error) {
	if n.claim(c) {
		return nil
	}
	if fs.upper == nil {
		return unix.EROFS
	}
	n.upMu.Lock()
	defer n.upMu.Unlock()
	if n.claim(c) {
		return nil
	}
	if err := fs.copyUpParent(c, n); err != nil {
		return err
	}
	start := time.Now()
	var staged copyup.Copy
	defer func() { fs.counts.copied(start, staged.Bytes, err) }()
	staged, err = fs.stageCopy(n, limit)
	if err != nil {
		return fmt.Errorf("copy up: %w", err)
	}
	if err = faultPlace.Hit(); err == nil {
		err = fs.placeCopy(c, n, staged)
	}
	fs.keepFile(n, staged.Fd, err == nil)
	if err != nil {
		fs.stage.Discard(staged.At)
		fs.dropOrigin(staged.Ino)
		return fmt.Errorf("copy up: put in place: %w", err)
	}
	return nil
}

// keepFile makes the descriptor by which the copy of n was made the one for IO, or closes it where the copy is not in
// place after all, or n has another by now. fd is -1 where there is none.
func (fs *FS) keepFile(n *node, fd int, placed bool) {
	if fd < 0 {
		return
	}
	f := &openFile{flags: unix.O_RDWR}
	n.loc.RLock()
	defer n.loc.RUnlock()
	if !placed || !n.up || !n.file.CompareAndSwap(nil, f) {
		sys.Close(fd)
		return
	}
	fs.fds.install(&f.fd, fd)
	fs.fds.release(&f.fd)
}

// copyUpParent copies up the directory in which n's copy will be, if n has a name.
func (fs *FS) copyUpParent(c *copies, n *node) error {
	for {
		d, named := n.dentry()
		if !named {
			return nil
		}
		err := fs.copyUpFor(c, d.parent, wholeFile)
		if now, _ := n.dentry(); err == nil || now == d {
			return err
		}
		// The name went while we were at it, and its directory perhaps, too.
	}
}

// slowCopy is from how many bytes on a copy takes so long that somebody else should answer meanwhile. To wake him costs a
// third of what the copy of a small file does; where that waits for a disk, the transport notices by itself.
const slowCopy = 64 << 10

// stageCopy makes the copy in the staging directory, complete with where it comes from and, where the inode cannot
// say, whom it belongs to.
func (fs *FS) stageCopy(n *node, limit int64) (c copyup.Copy, err error) {
	// The lower object stays where it is, and upMu keeps others from switching to another: loc need not be held
	// for the time that the copy takes.
	n.loc.RLock()
	at, l, release, err := fs.locateLocked(n)
	n.loc.RUnlock()
	if err != nil {
		return c, err
	}
	defer release()
	st, err := sys.Stat(at)
	if err != nil {
		return c, err
	}
	if n.dir == nil && limit != 0 && st.Size >= slowCopy {
		fs.kernel.Blocking()
	}
	src := copyup.Source{At: at, Stat: st}
	plain := n.isPlain()
	if n.dir == nil && st.Size > 0 && limit != 0 && !plain {
		fd, err := fs.openMetacopy(n.lower, at, &st)
		if err != nil {
			return c, err
		}
		if fd >= 0 {
			defer sys.Close(fd)
			src.Data = &sys.At{Dirfd: fd}
		}
	}
	shown := st
	if l.override != "" {
		if err := applyOverride(at, l.override, &shown); err != nil {
			return c, err
		}
	}
	meta, over := fs.plan(shown.Uid, shown.Gid, shown.Mode, shown.Rdev)
	meta.Atime, meta.Mtime = st.Atim, st.Mtim
	opt := copyup.ObjectOptions{
		Limit:     limit,
		SkipXattr: fs.cfg.NoXattr || plain,
		KeepXattr: fs.copiesXattr,
		KeepOpen:  n.kind() == unix.S_IFREG && !fs.cfg.NoAtime, // who asks for the copy is about to write to it
		Mark: func(at sys.At, ino uint64) error {
			if over != nil {
				if err := fs.writeOverride(at, *over); err != nil {
					return err
				}
			}
			if n.dir == nil && st.Nlink > 1 && fs.cfg.NoIndex {
				return nil // one of several names, which goes its own way from here: an object of its own
			}
			from := fs.originIn(l, &st)
			return fs.setOrigin(at, ino, whiteout.Origin{Device: from.device, Ino: from.ino}, fs.readable(meta.Mode))
		},
	}
	return fs.stage.Object(src, meta, opt)
}

// copiesXattr reports whether a copy takes the attribute along.
func (fs *FS) copiesXattr(stored string) bool { return !whiteout.Owned(stored) && !fs.noACL(stored) }

// placeCopy moves the staged copy to where the node's name is, if it still has one.
func (fs *FS) placeCopy(c *copies, n *node, staged copyup.Copy) error {
	if n.hard() == nil || fs.cfg.NoIndex || fs.links.nlink(n.hard()) == 0 {
		return fs.placeStaged(c, n, staged.At, copied{n: n})
	}
	was := copied{n: n}
	at, err := fs.indexCopy(&was, staged)
	if err != nil {
		return err
	}
	if err = faultIndexed.Hit(); err == nil {
		err = fs.placeStaged(c, n, at, was)
	}
	if err != nil {
		fs.unindexCopy(&was, at)
	}
	return err
}

// placeStaged moves or, from the index, links what is staged to the node's name. was is what n was before.
func (fs *FS) placeStaged(c *copies, n *node, staged sys.At, was copied) error {
	for {
		d, named := n.dentry()
		if !named {
			if n.dir != nil {
				return fs.placeRemovedDir(n, staged)
			}
			return fs.placeNameless(c, n, staged, was)
		}
		// Another name than the one that was the first when the copy began may be in another directory.
		if err := fs.copyUpParent(c, n); err != nil {
			return err
		}
		was.d = d
		if again, err := fs.placeAt(c, staged, was); !again {
			return err
		}
	}
}

// placeAt makes what is staged the object called was.d, unless the node has lost that name.
func (fs *FS) placeAt(c *copies, staged sys.At, was copied) (again bool, err error) {
	n, d := was.n, was.d
	d.parent.dir.mu.Lock()
	defer d.parent.dir.mu.Unlock()
	up := d.parent.upperDir() // with mu held it stays
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.parent != d.parent || n.name != d.name || up == nil {
		return true, nil
	}
	fd, err := fs.openDir(up)
	if err != nil {
		return false, err
	}
	defer fs.releaseDir(up)
	// A copy-up is no change to the directory that anybody should see.
	defer keepTimes(fd)()
	at := sys.At{Dirfd: fd, Name: d.name}
	if n.hard() != nil && !fs.cfg.NoIndex {
		err = sys.Link(staged, at)
	} else {
		err = renameNew(staged, at)
	}
	if err != nil {
		return false, err
	}
	_ = faultPlaced.Hit() // too late to fail
	fs.switched(c, up, was)
	return false, nil
}

// switched makes the upper the place of the content of was.n. Preconditions: the parent's mu and the node's loc are
// held; up is the parent's upper.
func (fs *FS) switched(c *copies, up *dir, was copied) {
	n, d := was.n, was.d
	e := d.parent.dir.index.get(d.name)
	was.layer, was.merge, was.lower, was.ino = e.layer, e.merge, n.lower, n.ino.Load()
	c.add(was)
	if n.dir != nil {
		n.dir.upper = newDir(fs.upper, up, d.name)
		x := d.parent.dir.index
		layers := []uint16{e.layer}
		if e.merge != 0 {
			layers = append(layers, x.merges[e.merge-1]...)
		}
		x.merges = append(x.merges, layers)
		e.merge = uint32(len(x.merges))
		n.dir.acl.Store(aclUnknown)
	} else {
		n.up = true
		n.lower = nil
		fs.dropFile(n)
		fs.ownIno(n)
	}
	e.layer = 0
	if !n.isPlain() { // the origin is never shown
		n.xattrs.Store(xattrsSome)
	}
	n.changed()
	d.parent.changed()
}

// ownIno gives a copy of one of several names, with index=off, the number of the upper object: the other names keep
// theirs. Precondition: n.loc is held exclusively.
func (fs *FS) ownIno(n *node) {
	if !fs.cfg.NoIndex || fs.cfg.NoXino {
		return
	}
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return
	}
	defer release()
	st, err := sys.Stat(at)
	if err != nil {
		return
	}
	if names, err := sys.XattrNames(at); err == nil && fs.originOf(at, st.Ino, names) == nil {
		n.ino.Store(fs.inoOf(fs.upper, &st))
	}
}

// dropFile closes the descriptor for IO, which is open on what the node was before.
func (fs *FS) dropFile(n *node) {
	if f := n.file.Swap(nil); f != nil {
		fs.fds.forget(&f.fd)
	}
}

// indexCopy puts the copy of an object with several lower names into the index, where all of them find it.
//
// was gets what the index said before.
func (fs *FS) indexCopy(was *copied, c copyup.Copy) (sys.At, error) {
	n := was.n
	at := sys.At{Dirfd: fs.work.index, Name: n.hard().key.String()}
	n.loc.Lock() // nobody counts meanwhile
	defer n.loc.Unlock()
	fs.links.mu.Lock()
	was.saved, was.nlink = n.hard().saved, n.hard().nlink
	fs.links.mu.Unlock()
	err := fs.links.settle(n.hard())
	if err == nil {
		err = sys.Rename(c.At, at, 0)
	}
	if err != nil {
		fs.unsettle(was)
		return at, err
	}
	fs.links.mu.Lock()
	n.hard().up, n.hard().ino, n.hard().saved = true, c.Ino, true
	fs.links.upper[c.Ino], n.own().linked = n, c.Ino
	fs.links.mu.Unlock()
	return at, nil
}

// unindexCopy takes back what indexCopy did, when the copy did not get into its place.
func (fs *FS) unindexCopy(was *copied, at sys.At) {
	n := was.n
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.up {
		return
	}
	fs.links.mu.Lock()
	delete(fs.links.upper, n.hard().ino)
	n.own().linked = 0
	n.hard().up, n.hard().ino = false, 0
	fs.links.mu.Unlock()
	_ = sys.Unlink(at) // else the next copy-up replaces it
	fs.unsettle(was)
}

// unsettle takes the link count out of the index again, where it only says what the lower does.
// Precondition: the node's loc is held exclusively.
func (fs *FS) unsettle(was *copied) {
	h := was.n.hard()
	fs.links.mu.Lock()
	unsaid := !was.saved && h.nlink == was.nlink
	h.saved = h.saved && !unsaid
	fs.links.mu.Unlock()
	if unsaid {
		_ = sys.Unlink(sys.At{Dirfd: fs.work.index, Name: h.key.String() + nlinkSuffix}) // it does no harm
	}
}

// placeNameless keeps the copy of an object that has no name (any more) open instead of giving it one: it must not
// come back.
func (fs *FS) placeNameless(c *copies, n *node, staged sys.At, was copied) error {
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.hard() != nil && !fs.cfg.NoIndex && fs.links.nlink(n.hard()) > 0 {
		// Other names lead to it, through the index.
		was.d, was.lower, was.ino = dentry{}, n.lower, n.ino.Load()
		c.add(was)
		n.up = true
		n.lower = nil
		fs.dropFile(n)
		n.changed()
		return nil
	}
	fd, err := sys.Open(staged, unix.O_RDWR, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		fd, err = sys.Open(staged, unix.O_PATH, 0)
	}
	if err != nil {
		return err
	}
	fs.stage.Discard(staged)
	fs.fds.mustPin()
	n.anon, n.own().fd = true, fd
	n.up = true
	n.lower = nil
	fs.dropFile(n)
	n.changed()
	return nil
}

// placeRemovedDir keeps the copy of a directory that was removed, for who has it open, in the staging directory.
func (fs *FS) placeRemovedDir(n *node, staged sys.At) error {
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.dir.final == nil || n.rarely().orphaned != 0 {
		return unix.ENOENT
	}
	number := fs.orphans.Add(1)
	if err := sys.Rename(staged, sys.At{Dirfd: fs.work.staging, Name: orphanName(number)}, 0); err != nil {
		return err
	}
	n.own().orphaned = number
	n.xattrs.Store(xattrsSome)
	n.changed()
	return nil
}

// renameNew moves a staged object to a name that is free. Filesystems without RENAME_NOREPLACE do without the check:
// the name is known to be free.
func renameNew(from, to sys.At) error {
	err := sys.Rename(from, to, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS {
		err = sys.Rename(from, to, 0)
	}
	return err
}

// copyUpTree copies the directory n up with everything in it. Nobody sees a difference at any time. From then on it
// depends on the lowers for nothing: whatever comes into it has no part in them.
func (fs *FS) copyUpTree(c *copies, n *node) error {
	if err := fs.copyUpAll(c, n); err != nil {
		return err
	}
	return faultTree.Hit()
}

// copyUpAll copies up the directory n and everything in it.
func (fs *FS) copyUpAll(c *copies, n *node) error {
	if err := fs.copyUpFor(c, n, wholeFile); err != nil {
		return err
	}
	if n.pure() {
		return nil
	}
	if err := fs.keepIno(n); err != nil {
		return err
	}
	err := fs.eachChild(n, func(child *node) error {
		if child.dir != nil {
			return fs.copyUpAll(c, child)
		}
		return fs.copyUpFor(c, child, wholeFile)
	})
	if err != nil {
		return err
	}
	return fs.nameAliases(c, n)
}

// nameAliases gives the names in n that only a lower has, of objects that were copied up under another one, an upper
// link each. Until then they are reached through the index, by way of the lower.
func (fs *FS) nameAliases(c *copies, n *node) error {
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if n.dir.dead {
		return unix.ENOENT
	}
	up := n.upperDir()
	fd, err := fs.openDir(up)
	if err != nil {
		return err
	}
	defer fs.releaseDir(up)
	defer keepTimes(fd)()
	x := n.dir.index
	for i := range x.entries {
		e := &x.entries[i]
		if e.gone() || e.layer == 0 {
			continue
		}
		child, err := fs.entryNode(n, e)
		if err != nil {
			return err
		}
		child.loc.Lock()
		err = fs.nameAlias(c, n, e, sys.At{Dirfd: fd, Name: e.name})
		child.loc.Unlock()
		fs.forget(child, 1)
		if err != nil {
			return err
		}
	}
	return nil
}

// eachChild calls fn for the nodes of all visible entries of n, with a reference held.
func (fs *FS) eachChild(n *node, fn func(*node) error) error {
	children, err := fs.children(n)
	for _, c := range children {
		if err == nil {
			err = fn(c)
		}
		fs.forget(c, 1)
	}
	return err
}

// pure reports whether the directory is in the upper only.
func (n *node) pure() bool {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return n.dir.upper != nil && len(n.dir.lowers) == 0
}

// children returns the nodes of all visible entries, with a reference to each.
func (fs *FS) children(n *node) (all []*node, err error) {
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if err := fs.fill(n); err != nil {
		return nil, err
	}
	for i := range n.dir.index.entries {
		e := &n.dir.index.entries[i]
		if e.gone() {
			continue
		}
		c, err := fs.entryNode(n, e)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

// makePure cuts a directory, in which everything is in the upper and which has nothing below it where it is now, off
// from the lowers that it had, and then those in it. It shows nothing, and what it leaves undone does no harm.
func (fs *FS) makePure(n *node) error {
	if err := fs.cutOff(n); err != nil {
		return err
	}
	return fs.eachChild(n, func(c *node) error {
		if c.dir == nil || c.pure() || c.movedByRedirect() {
			return nil
		}
		return fs.makePure(c)
	})
}

// movedByRedirect reports whether the directory has its lowers wherever it is itself. It may have come meanwhile, with content
// that only these have.
func (n *node) movedByRedirect() bool {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return strings.HasPrefix(n.dir.redirect, "/")
}

func (fs *FS) cutOff(n *node) error {
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	up := n.upperDir()
	switch {
	case n.dir.dead:
		return unix.ENOENT
	case n.pure():
		return nil
	}
	fd, err := fs.openDir(up)
	if err != nil {
		return err
	}
	defer fs.releaseDir(up)
	defer keepTimes(fd)()
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.dir.redirect != "" {
		if err := whiteout.ClearRedirect(sys.Fd(fd)); err != nil {
			return err
		}
		n.dir.redirect = ""
	}
	fs.dropLowers(n)
	_ = faultCut.Hit()      // too late to fail
	if n.dir.index != nil { // else what stays in it is harmless, too
		fs.clearMarks(n.dir.index, fd)
	}
	n.changed()
	return nil
}

// dropLowers makes the directory one of the upper only. Precondition: n.loc is held exclusively.
func (fs *FS) dropLowers(n *node) {
	fs.forgetDirs(n.dir.lowers)
	n.dir.lowers = nil
}

// forgetDirs closes the descriptors of directories that are not used any more.
func (fs *FS) forgetDirs(dirs []*dir) {
	for _, d := range dirs {
		if d.where.Load() != nil { // the root of a layer has none of its own
			fs.fds.forget(&d.fd)
		}
	}
}

// keepIno records where the inode number of a merged directory comes from, if its upper does not say so yet: it is
// about to be an upper directory like any other. That stays where the change fails then: it is true all the same.
func (fs *FS) keepIno(n *node) error {
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.dir.upper == nil || len(n.dir.lowers) == 0 {
		return nil // removed meanwhile, or cut off
	}
	fd, err := fs.openDir(n.dir.upper)
	if err != nil {
		return err
	}
	defer fs.releaseDir(n.dir.upper)
	at := sys.Fd(fd)
	st, err := sys.Stat(at)
	if err != nil || fs.inoOf(fs.upper, &st) == n.ino.Load() {
		return err
	}
	names, err := sys.XattrNames(at)
	if err != nil || fs.originOf(at, st.Ino, names) != nil {
		return err
	}
	low := n.dir.lowers[0]
	lfd, err := fs.openDir(low)
	if err != nil {
		return ignoreSealed(err)
	}
	defer fs.releaseDir(low)
	lst, err := sys.Stat(sys.Fd(lfd))
	if err != nil {
		return err
	}
	from := fs.originIn(low.layer, &lst)
	return fs.setOrigin(at, st.Ino, whiteout.Origin{Device: from.device, Ino: from.ino}, fs.readable(st.Mode))
}

// keepTimes puts the times of the directory open as fd back: marks that come and go in it are no change to what
// anybody sees. Times are best effort, as in kernel overlayfs.
func keepTimes(fd int) (restore func()) {
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return func() {}
	}
	return func() { _ = sys.Utimens(sys.Fd(fd), st.Atim, st.Mtim) }
}

// nameAlias gives a name that only the lower has, of an object that was copied up under another one, an upper link.
//
// Preconditions: the mu of p and the node's loc are held.
func (fs *FS) nameAlias(c *copies, p *node, e *entry, at sys.At) error {
	if e.node == nil || e.node.hard() == nil {
		return fmt.Errorf("entry %q is not in the upper: %w", e.name, unix.EIO)
	}
	index := sys.At{Dirfd: fs.work.index, Name: e.node.hard().key.String()}
	if err := sys.Link(index, at); err != nil {
		return err
	}
	c.add(copied{n: e.node, d: dentry{p, e.name}, alias: true, layer: e.layer})
	e.layer = 0
	e.flags |= aliased
	return nil
}

// clearMarks removes whiteouts that mean nothing any more, since nothing is below.
func (fs *FS) clearMarks(x *index, fd int) {
	for i := range x.entries {
		e := &x.entries[i]
		if e.typ == typeVacant {
			continue
		}
		if e.flags&whFile != 0 {
			_ = whiteout.RemoveFile(fd, e.name) // what stays is harmless
		}
		if e.flags&whNode != 0 && e.gone() {
			_ = sys.Unlink(sys.At{Dirfd: fd, Name: e.name}) // as above
		}
		e.flags &^= remembered
		e.merge = 0
		if e.gone() {
			x.vacate(e)
		}
	}
}
