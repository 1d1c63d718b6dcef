package unionfs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// Renaming takes three parts, of which only the second shows:
//
//  1. Prepare. What moves is copied up where it is. A directory that moves is made independent of its name: by a
//     redirect, or by copying all of it up and making it opaque. A whiteout beside the old name keeps what lower
//     layers have there from showing; a directory that is replaced is cleared of its marks, under a mark that keeps
//     it empty.
//  2. Move, by one renameat2(2).
//  3. Clear away what has become superfluous.

var (
	faultPrepared = fault.New("unionfs.rename.prepared") // before the move
	faultMoved    = fault.New("unionfs.rename.moved")    // after it, superfluous marks not removed
)

// Rename answers rename(2) and renameat2(2).
func (fs *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	return fs.status("rename", fs.rename(in.NodeId, oldName, in.Newdir, newName, in.Flags))
}

func (fs *FS) rename(oldDir uint64, oldName string, newDir uint64, newName string, flags uint32) error {
	exchange, leave := flags&unix.RENAME_EXCHANGE != 0, flags&unix.RENAME_WHITEOUT != 0
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE|unix.RENAME_WHITEOUT) != 0 || exchange && leave {
		return unix.EINVAL
	}
	if whiteout.Reserved(oldName) {
		return unix.ENOENT
	}
	p1, err := fs.parent(oldDir, oldName)
	if err != nil {
		return err
	}
	p2, err := fs.writableParent(newDir, newName)
	if err != nil {
		return err
	}
	for {
		r := renaming{fs: fs, p1: p1, p2: p2, n1: oldName, n2: newName, exchange: exchange, leave: leave,
			noReplace: flags&unix.RENAME_NOREPLACE != 0}
		again, err := r.run()
		if !again {
			return err
		}
	}
}

// renaming is one rename on its way: n1 in p1, which is src, becomes n2 in p2, where dst may be.
type renaming struct {
	fs                  *FS
	p1, p2              *node
	n1, n2              string
	exchange, noReplace bool

	// leave says that a whiteout stays at the old name: something shows there without, or RENAME_WHITEOUT asks for
	// one. In a union a whiteout is a name that is not there.
	leave bool

	src, dst *node // with a reference; dst nil where there is nothing
	e1, e2   *entry
	at1, at2 sys.At
}

// run does it, or reports that the names changed meanwhile and it has to begin again.
func (r *renaming) run() (again bool, err error) {
	fs := r.fs
	if r.src, err = fs.child(r.p1, r.n1); err != nil {
		return false, err
	}
	defer fs.forget(r.src, 1)
	if r.dst, err = fs.child(r.p2, r.n2); err != nil && err != unix.ENOENT {
		return false, err
	}
	if r.dst != nil {
		defer fs.forget(r.dst, 1)
	}
	if done, err := r.check(); done || err != nil {
		return false, err
	}
	if err := r.copyUp(); err != nil {
		return false, err
	}
	defer lockDirs(r.p1, r.p2, r.src, r.dst)()
	if !r.resolve() {
		return true, nil
	}
	if r.p2.dir.dead {
		return false, unix.ENOENT
	}
	if err := r.checkEmpty(); err != nil {
		return false, err
	}
	defer lockNodes(r.src, r.dst)()
	if !r.movable(r.src) || r.exchange && !r.movable(r.dst) {
		return true, nil
	}
	up1, up2 := r.p1.dir.upperIn(r.p1, r.src, r.dst), r.p2.dir.upperIn(r.p2, r.src, r.dst)
	fd1, err := fs.openDir(up1)
	if err != nil {
		return false, err
	}
	defer fs.releaseDir(up1)
	fd2, err := fs.openDir(up2)
	if err != nil {
		return false, err
	}
	defer fs.releaseDir(up2)
	r.at1, r.at2 = sys.At{Dirfd: fd1, Name: r.n1}, sys.At{Dirfd: fd2, Name: r.n2}
	for _, n := range []*node{r.src, r.dst} {
		// Held open, a directory that moves is not opened by a name that is about to change.
		if n != nil && n.dir != nil && n.dir.upper != nil {
			if _, err := fs.openDir(n.dir.upper); err != nil {
				return false, err
			}
			defer fs.releaseDir(n.dir.upper)
		}
	}
	if r.exchange {
		return false, r.swap()
	}
	return false, r.move()
}

// upperIn is the upper of p, whose loc the caller holds if p is one of the nodes locked.
func (s *dirState) upperIn(p *node, locked ...*node) *dir {
	for _, n := range locked {
		if n == p {
			return s.upper
		}
	}
	return p.upperDir()
}

// check does what rename(2) says about types and flags; done says that there is nothing to do.
func (r *renaming) check() (done bool, err error) {
	switch {
	case r.dst == nil && r.exchange:
		return false, unix.ENOENT
	case r.dst == nil:
		return false, nil
	case r.noReplace:
		return false, unix.EEXIST
	case r.src == r.dst:
		return true, nil // two names of one object
	case r.exchange:
		return false, nil
	case r.src.isDir() && !r.dst.isDir():
		return false, unix.ENOTDIR
	case !r.src.isDir() && r.dst.isDir():
		return false, unix.EISDIR
	}
	return false, nil
}

// checkEmpty refuses to replace a directory in which something is. Precondition: its mu is held, its loc is not.
func (r *renaming) checkEmpty() error {
	if r.exchange || r.dst == nil || r.dst.dir == nil {
		return nil
	}
	if err := r.fs.fill(r.dst); err != nil {
		return err
	}
	if r.dst.dir.index.visible > 0 {
		return unix.ENOTEMPTY
	}
	return nil
}

// copyUp copies up what moves, and both directories.
func (r *renaming) copyUp() error {
	if err := r.fs.copyUp(r.p1, wholeFile); err != nil {
		return err
	}
	moving := []*node{r.src}
	if r.exchange {
		moving = append(moving, r.dst)
	}
	for _, n := range moving {
		var err error
		if n.isDir() && !r.fs.redirect {
			err = r.fs.copyUpTree(n)
		} else {
			err = r.fs.copyUp(n, wholeFile)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the entries anew, now that the directories are locked, and reports whether they are what they were.
func (r *renaming) resolve() bool {
	r.e1, r.e2 = r.p1.dir.index.lookup(r.n1), r.p2.dir.index.get(r.n2)
	if r.e1 == nil || r.e1.node != r.src {
		return false
	}
	if r.e2 == nil || r.e2.gone() {
		return r.dst == nil
	}
	return r.e2.node == r.dst
}

// movable reports whether a node is still ready to move. Preconditions: its loc is held.
func (r *renaming) movable(n *node) bool {
	if !n.upLocked() {
		return false
	}
	return n.dir == nil || r.fs.redirect || len(n.dir.lowers) == 0
}

// unname makes the directory n independent of the name it has in p, and fit for a name under which the lowers have
// lower content (hidden). at is where it is. None of this shows while it stays there.
func (r *renaming) unname(n, p *node, name string, at sys.At, hidden bool) error {
	fs := r.fs
	if n.dir == nil {
		return nil
	}
	fd, ok := fs.fds.acquire(&n.dir.upper.fd)
	if !ok {
		return unix.EIO // held open by the caller
	}
	defer fs.fds.release(&n.dir.upper.fd)
	if len(n.dir.lowers) > 0 {
		if strings.HasPrefix(n.dir.redirect, "/") {
			return nil // moved before
		}
		path := fs.lowerPath(p, n, name)
		if err := whiteout.SetRedirect(sys.Fd(fd), path); err != nil {
			return err
		}
		n.dir.redirect = path
		return nil
	}
	if hidden {
		defer keepTimes(fd)()
		n.dir.opaque = true
		return whiteout.SetOpaque(fd, fs.format)
	}
	return nil
}

// unmark takes an opaque mark that served the move from a directory where nothing is below it.
func (r *renaming) unmark(n *node, hidden bool) {
	fs := r.fs
	if n.dir == nil || !n.dir.opaque || hidden {
		return
	}
	fd, ok := fs.fds.acquire(&n.dir.upper.fd)
	if !ok {
		return
	}
	defer fs.fds.release(&n.dir.upper.fd)
	defer keepTimes(fd)()
	if whiteout.ClearOpaque(fd) == nil { // what stays is harmless
		n.dir.opaque = false
	}
}

// lowerPath returns where a directory is in the layer below the upper, from its root.
func (fs *FS) lowerPath(p, n *node, name string) string {
	if n.dir.redirect != "" {
		name = n.dir.redirect // another name in the same parent
	}
	path := "/" + name
	for p != fs.root {
		p.loc.RLock()
		redirect, up, own := p.dir.redirect, p.parent, p.name
		p.loc.RUnlock()
		if strings.HasPrefix(redirect, "/") {
			return redirect + path
		}
		if redirect != "" {
			own = redirect
		}
		path = "/" + own + path
		p = up
	}
	return path
}

// ensureName gives src its name in the upper where only a lower layer has it: an object with several names that was
// copied up under another one.
func (r *renaming) ensureName(e *entry, n *node, at sys.At) error {
	if e.layer == 0 || n.dir != nil {
		return nil
	}
	return r.fs.nameAlias(e, at)
}

func (r *renaming) move() error {
	fs := r.fs
	var flags2 entryFlags
	if r.e2 != nil {
		flags2 = r.e2.flags
	}
	if err := r.ensureName(r.e1, r.src, r.at1); err != nil {
		return err
	}
	if err := r.unname(r.src, r.p1, r.n1, r.at1, flags2&inLower != 0); err != nil {
		return err
	}
	undo, buried, err := r.prepareTarget(flags2)
	if err != nil {
		return err
	}
	r.leave = r.leave || r.e1.flags&inLower != 0
	f1 := fs.formatFor(r.n1)
	if r.leave && f1 == whiteout.WH {
		if err := whiteout.MakeFile(r.at1.Dirfd, r.n1); err != nil {
			undo()
			return err
		}
	}
	err = faultPrepared.Hit()
	if err == nil {
		err = r.moveOnce(flags2)
	}
	if err != nil {
		if r.leave && f1 == whiteout.WH && r.e1.flags&whFile == 0 {
			_ = whiteout.RemoveFile(r.at1.Dirfd, r.n1) // harmless beside the name
		}
		undo()
		return fs.unrecordable(r.n1, err)
	}
	_ = faultMoved.Hit() // too late to fail
	if buried != nil {
		fs.buryDir(r.dst, buried)
	}
	r.moved()
	r.unmark(r.src, flags2&inLower != 0)
	return nil
}

// prepareTarget makes the new name ready to be replaced. buried is what a directory there looked like.
func (r *renaming) prepareTarget(flags entryFlags) (undo func(), buried *unix.Stat_t, err error) {
	fs := r.fs
	nothing := func() {}
	switch {
	case r.dst == nil:
		return nothing, nil, nil
	case r.dst.dir == nil:
		undo, err = fs.keepContent(r.dst)
		if h := r.dst.hard(); h != nil && err == nil {
			fs.links.intend(h, -1, dentry{r.p2, r.n2}, r.e2.layer != 0)
			cancel := undo
			undo = func() { cancel(); _ = fs.links.settle(h) } // a stale intent tells of a name that is still there
		}
		return undo, nil, err
	}
	st, err := fs.statLocked(r.dst)
	if err != nil || r.dst.dir.upper == nil {
		return nothing, &st, err
	}
	if undo, err = fs.keepDir(r.dst); err != nil {
		return nothing, nil, err
	}
	if err := r.clearTarget(flags); err != nil {
		undo()
		return nothing, nil, err
	}
	return undo, &st, nil
}

// clearTarget empties the upper directory that is about to be replaced, and keeps it empty.
func (r *renaming) clearTarget(flags entryFlags) (err error) {
	fs := r.fs
	if flags&inLower != 0 {
		// Without its whiteouts the directory would be full again: hide what is below it first.
		if fs.formatFor(r.n2) == whiteout.WH {
			err = whiteout.MakeFile(r.at2.Dirfd, r.n2)
			r.p2.dir.index.get(r.n2).flags |= whFile
		} else {
			fd, _ := fs.fds.acquire(&r.dst.dir.upper.fd)
			err = whiteout.SetOpaque(fd, whiteout.Overlay)
			fs.fds.release(&r.dst.dir.upper.fd)
		}
		if err != nil {
			return err
		}
	}
	if r.dst.dir.redirect != "" {
		fd, _ := fs.fds.acquire(&r.dst.dir.upper.fd)
		err = whiteout.ClearRedirect(sys.Fd(fd))
		fs.fds.release(&r.dst.dir.upper.fd)
		if err != nil {
			return err
		}
		r.dst.dir.redirect = ""
	}
	fs.dropLowers(r.dst)
	return fs.emptyDir(r.dst)
}

// emptyDir removes the marks from an upper directory of which nothing is visible.
func (fs *FS) emptyDir(n *node) error {
	fd, ok := fs.fds.acquire(&n.dir.upper.fd)
	if !ok {
		return unix.EIO // held open by the caller
	}
	defer fs.fds.release(&n.dir.upper.fd)
	var names []string
	if err := fs.readDir(n.dir.upper, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return err
	}
	for _, name := range names {
		if err := sys.RemoveAll(sys.At{Dirfd: fd, Name: name}); err != nil {
			return err
		}
	}
	n.dir.index = newIndex(0)
	return nil
}

// moveOnce makes the one system call that shows.
func (r *renaming) moveOnce(flags2 entryFlags) error {
	fs := r.fs
	leaveDevice := r.leave && fs.formatFor(r.n1) == whiteout.Overlay
	if flags2&whNode != 0 && (r.dst == nil) && r.src.dir != nil {
		// A directory cannot replace the whiteout. Trading places leaves it where one may be needed.
		if err := sys.Rename(r.at1, r.at2, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		if !leaveDevice {
			_ = sys.Unlink(r.at1) // a whiteout of nothing
		}
		return nil
	}
	if leaveDevice {
		return sys.Rename(r.at1, r.at2, unix.RENAME_WHITEOUT)
	}
	return sys.Rename(r.at1, r.at2, 0)
}

// moved brings the tree in memory up to date.
func (r *renaming) moved() {
	fs := r.fs
	x1, x2 := r.p1.dir.index, r.p2.dir.index
	if r.dst != nil {
		fs.nameGone(r.dst, dentry{r.p2, r.n2})
		r.p2.dir.kids--
	}
	if r.leave {
		if fs.formatFor(r.n1) == whiteout.WH {
			r.e1.flags |= whFile
		} else {
			r.e1.flags |= whNode
		}
	}
	typ := r.e1.typ
	x1.hide(r.e1)
	r.p1.dir.kids--
	e := x2.show(r.n2, typ, r.src, r.src.ino.Load()) // r.e1 and r.e2 may be stale from here on
	e.flags &^= whNode
	if e.flags&whFile != 0 && whiteout.RemoveFile(r.at2.Dirfd, r.n2) == nil {
		e.flags &^= whFile
	}
	r.p2.dir.kids++
	r.renamed(r.src, dentry{r.p1, r.n1}, dentry{r.p2, r.n2})
	r.p1.changed()
	r.p2.changed()
}

// renamed gives n the name to instead of from.
func (r *renaming) renamed(n *node, from, to dentry) {
	n.dropDentryLocked(from)
	n.addDentryLocked(to)
	if n.dir != nil {
		n.dir.upper.moveDir(to.parent.dir.upper, to.name)
	}
	n.changed()
}

// swap exchanges two names.
func (r *renaming) swap() error {
	for _, e := range []struct {
		e  *entry
		n  *node
		at sys.At
	}{{r.e1, r.src, r.at1}, {r.e2, r.dst, r.at2}} {
		if err := r.ensureName(e.e, e.n, e.at); err != nil {
			return err
		}
	}
	if err := r.unname(r.src, r.p1, r.n1, r.at1, r.e2.flags&inLower != 0); err != nil {
		return err
	}
	if err := r.unname(r.dst, r.p2, r.n2, r.at2, r.e1.flags&inLower != 0); err != nil {
		return err
	}
	if err := faultPrepared.Hit(); err != nil {
		return err
	}
	if err := sys.Rename(r.at1, r.at2, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	_ = faultMoved.Hit() // too late to fail
	x1, x2 := r.p1.dir.index, r.p2.dir.index
	t1, t2 := r.e1.typ, r.e2.typ
	hidden1, hidden2 := r.e1.flags&inLower != 0, r.e2.flags&inLower != 0
	x1.show(r.n1, t2, r.dst, r.dst.ino.Load())
	x2.show(r.n2, t1, r.src, r.src.ino.Load())
	d1, d2 := dentry{r.p1, r.n1}, dentry{r.p2, r.n2}
	r.renamed(r.src, d1, d2)
	r.renamed(r.dst, d2, d1)
	r.unmark(r.src, hidden2)
	r.unmark(r.dst, hidden1)
	r.p1.changed()
	r.p2.changed()
	return nil
}
