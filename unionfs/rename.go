package unionfs

import (
	"errors"
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
//     redirect, or by copying all of it up. A whiteout beside the old name keeps what lower layers have there from
//     showing; a directory that is replaced is cleared of its marks, under a mark that keeps it empty.
//  2. Move, by one renameat2(2).
//  3. Clear away what has become superfluous: marks, and the lowers of a directory that was copied up.
//
// Where it fails before the move, the copies are put back (undo.go).

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
	p2, err := fs.parent(newDir, newName)
	switch {
	case err != nil:
		return err
	case fs.upper == nil:
		return unix.EROFS
	case whiteout.Reserved(newName):
		return unix.EPERM
	}
	whole := !fs.redirect
	for {
		r := renaming{fs: fs, p1: p1, p2: p2, n1: oldName, n2: newName, exchange: exchange, leave: leave,
			noReplace: flags&unix.RENAME_NOREPLACE != 0, whole: whole}
		again, err := r.run()
		whole = r.whole
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

	// whole says that directories are copied up with all that is in them: without redirects, or where one does not fit.
	whole bool

	src, dst *node // with a reference; dst nil where there is nothing
	e1, e2   *entry
	at1, at2 sys.At
	copies   copies // of what was copied up for it

	// Where src and dst, if they are directories that get a redirect, are in the layers below the upper.
	lower1, lower2 string

	upper2 string // where n2 is in the upper, of a dst with several names
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
	r.copies.fs = fs
	defer func() {
		if again || err != nil {
			r.copies.putBack()
			return
		}
		r.copies.keep()
		r.settle()
	}()
	if err := r.copyUp(); err != nil {
		return false, err
	}
	if r.dst != nil {
		fs.makeRoom()
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
	// What takes the loc of other directories comes first: several are locked in one go, or one after the other.
	r.lower1, r.lower2 = fs.lowerPath(r.p1, r.src, r.n1), fs.lowerPath(r.p2, r.dst, r.n2)
	r.upper2 = fs.upperPath(r.dst, r.p2, r.n2)
	up1, up2 := r.p1.upperDir(), r.p2.upperDir()
	defer lockNodes(r.src, r.dst)()
	if !r.movable(r.src) || r.exchange && !r.movable(r.dst) {
		return true, nil
	}
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
		err = r.swap()
	} else {
		err = r.move()
	}
	if err == errNoRedirect {
		r.whole = true
		return true, nil
	}
	return false, err
}

// errNoRedirect is returned when a redirect cannot be recorded: no path is longer than PATH_MAX, and some filesystems
// have less room for attributes.
var errNoRedirect = errors.New("redirect does not fit")

func setRedirect(fd int, path string) error {
	if len(path) > unix.PathMax {
		return errNoRedirect
	}
	err := whiteout.SetRedirect(sys.Fd(fd), path)
	if sys.NoRoom(err) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE) {
		return errNoRedirect
	}
	return err
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
	case !r.dst.isDir():
		return false, nil
	}
	// Before anything is copied for nothing, and again when the directories are locked.
	x, unlock, err := r.fs.readIndex(r.dst)
	if err != nil {
		return false, err
	}
	defer unlock()
	if x.visible > 0 {
		return false, unix.ENOTEMPTY
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

// copyUp copies up both directories and what moves.
func (r *renaming) copyUp() error {
	for _, p := range []*node{r.p1, r.p2} {
		if err := r.fs.copyUpFor(&r.copies, p, wholeFile); err != nil {
			return err
		}
	}
	for _, n := range r.moving() {
		var err error
		if n.isDir() && r.whole {
			err = r.fs.copyUpTree(&r.copies, n)
		} else {
			err = r.fs.copyUpFor(&r.copies, n, wholeFile)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moving is what gets another name.
func (r *renaming) moving() []*node {
	if r.exchange {
		return []*node{r.src, r.dst}
	}
	return []*node{r.src}
}

// settle cuts directories that were copied up whole off from the lowers, now that they are elsewhere.
// Precondition: no lock is held.
func (r *renaming) settle() {
	if !r.whole {
		return
	}
	for _, n := range r.moving() {
		if n.isDir() && !n.pure() {
			_ = r.fs.makePure(n) // else it goes on as what it was
		}
	}
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

// movable reports whether a node is still ready to move. A directory that was copied up whole stays so, whatever
// happens in it. Precondition: its loc is held.
func (r *renaming) movable(n *node) bool { return n.upLocked() }

// unname makes the directory n independent of the name it has, and fit for a name under which the lowers have
// something (hidden). lower is where it is in the layers below the upper. None of this shows while it stays there; undo
// takes it back.
func (r *renaming) unname(n *node, lower string, hidden bool) (undo func(), err error) {
	fs := r.fs
	nothing := func() {}
	if n.dir == nil {
		return nothing, nil
	}
	fd, ok := fs.fds.acquire(&n.dir.upper.fd)
	if !ok {
		return nothing, unix.EIO // held open by the caller
	}
	defer fs.fds.release(&n.dir.upper.fd)
	redirect, opaque := n.dir.redirect, n.dir.opaque
	undo = func() { fs.remark(n, redirect, opaque) }
	if len(n.dir.lowers) > 0 && !r.whole && lower != "" {
		if strings.HasPrefix(redirect, "/") {
			return nothing, nil // moved before
		}
		if err := setRedirect(fd, lower); err != nil {
			return nothing, err
		}
		n.dir.redirect = lower
		return undo, nil
	}
	if !hidden && redirect == "" {
		return nothing, nil
	}
	if !opaque {
		m, err := fs.readMarks(n.dir.upper)
		if err != nil {
			return nothing, err
		}
		opaque = m.Opaque // it was so before: undo leaves it
	}
	// All of it is in the upper. A redirect must not lead to something else from its new place.
	defer keepTimes(fd)()
	if err := whiteout.SetOpaque(fd, fs.format); err != nil {
		return nothing, err
	}
	n.dir.opaque = true
	if redirect == "" {
		return undo, nil
	}
	if err := whiteout.ClearRedirect(sys.Fd(fd)); err != nil {
		undo()
		return nothing, err
	}
	n.dir.redirect = ""
	return undo, nil
}

// remark gives the upper of the directory n the marks it had before unname. Precondition: n.loc is held exclusively.
func (fs *FS) remark(n *node, redirect string, opaque bool) {
	fd, ok := fs.fds.acquire(&n.dir.upper.fd)
	if !ok {
		return
	}
	defer fs.fds.release(&n.dir.upper.fd)
	defer keepTimes(fd)()
	switch {
	case redirect == n.dir.redirect:
	case redirect == "":
		if whiteout.ClearRedirect(sys.Fd(fd)) == nil { // what stays leads where the name does
			n.dir.redirect = ""
		}
	default:
		if whiteout.SetRedirect(sys.Fd(fd), redirect) != nil {
			return // opaque it stays
		}
		n.dir.redirect = redirect
	}
	if n.dir.opaque && !opaque && whiteout.ClearOpaque(fd) == nil {
		n.dir.opaque = false
	}
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

// lowerPath returns where the directory n, called name in p, is in the layer below the upper, from its root: "" where
// nothing is to be found there, or no redirect is written. It is the same before and after any rename of a directory
// above n, so that these need not be kept from it.
//
// Preconditions: the mu of p is held, which keeps n where it is, and no loc: those of all directories above are taken,
// one after the other.
func (fs *FS) lowerPath(p, n *node, name string) string {
	if n == nil || n.dir == nil || !fs.redirect {
		return ""
	}
	n.loc.RLock()
	redirect, whole := n.dir.redirect, n.dir.whole
	n.loc.RUnlock()
	switch {
	case strings.HasPrefix(redirect, "/"):
		return redirect
	case whole:
		return ""
	case redirect != "":
		name = redirect // another name in the same parent
	}
	path := "/" + name
	for p != fs.root {
		p.loc.RLock()
		redirect, up, own, whole := p.dir.redirect, p.parent, p.name, p.dir.whole
		p.loc.RUnlock()
		if whole {
			return "" // and so is n, which is about to be cut off from its lowers
		}
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
func (r *renaming) ensureName(p *node, e *entry, n *node, at sys.At) error {
	if e.layer == 0 || n.dir != nil {
		return nil
	}
	return r.fs.nameAlias(&r.copies, p, e, at)
}

func (r *renaming) move() error {
	fs := r.fs
	var flags2 entryFlags
	if r.e2 != nil {
		flags2 = r.e2.flags
	}
	if err := r.ensureName(r.p1, r.e1, r.src, r.at1); err != nil {
		return err
	}
	remark, err := r.unname(r.src, r.lower1, flags2&inLower != 0)
	if err != nil {
		return err
	}
	restore, buried, err := r.prepareTarget(flags2)
	if err != nil {
		remark()
		return err
	}
	undo := func() { restore(); remark() }
	r.leave = r.leave || r.e1.flags&inLower != 0
	f1 := fs.formatFor(r.n1)
	if r.leave && f1 == whiteout.WH {
		if err := fs.makeWhiteout(r.at1.Dirfd, r.n1); err != nil {
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
			fs.links.intend(h, -1, r.upper2, r.e2.layer != 0)
			cancel := undo
			undo = func() { cancel(); _ = fs.links.settle(h) } // a stale intent tells of a name that is still there
		}
		return undo, nil, err
	}
	st, err := fs.statLocked(r.dst)
	if err != nil || r.dst.dir.upper == nil {
		return nothing, &st, err
	}
	if undo, err = fs.keepDir(r.dst, fs.fds.pinAnyway); err != nil {
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
			err = fs.makeWhiteout(r.at2.Dirfd, r.n2)
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
	r.e2.merge = 0 // also where it is not replaced after all
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
	fs.emptyIndex(n.dir)
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
		err := fs.counts.madeWhiteout(sys.Rename(r.at1, r.at2, unix.RENAME_WHITEOUT))
		if err == nil {
			fs.dropInherited(r.at1)
		}
		return err
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
		n.dir.whole = n.dir.whole || r.whole
		n.dir.upper.moveDir(to.parent.dir.upper, to.name)
	}
	n.changed()
}

// swap exchanges two names.
func (r *renaming) swap() error {
	if err := r.ensureName(r.p1, r.e1, r.src, r.at1); err != nil {
		return err
	}
	if err := r.ensureName(r.p2, r.e2, r.dst, r.at2); err != nil {
		return err
	}
	undo1, err := r.unname(r.src, r.lower1, r.e2.flags&inLower != 0)
	if err != nil {
		return err
	}
	undo2, err := r.unname(r.dst, r.lower2, r.e1.flags&inLower != 0)
	if err == nil {
		err = faultPrepared.Hit()
	}
	if err == nil {
		err = sys.Rename(r.at1, r.at2, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		undo2()
		undo1()
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
