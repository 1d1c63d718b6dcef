package unionfs

import (
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// copies is what was copied up for one change that is not made yet. Where the change fails, all of it is put back, so
// that the upper is as it was: but for what somebody else has come to need there meanwhile, who says so by claim.
type copies struct {
	fs    *FS
	final *node // not put back once it is copied up: the change is its copy-up
	made  []copied
}

// copied is one object that was copied up, and where its content was before.
type copied struct {
	n     *node  // with a reference
	d     dentry // the name that the copy has; none where the index alone has it
	alias bool   // nothing was copied, d became a further upper link (nameAlias)

	layer uint16 // of the entry, as merge
	merge uint32
	lower *dir // of what is no directory, as all below
	ino   uint64

	// Of an object with several names, before the index said anything of it.
	saved bool
	nlink int64
}

// claim reports whether the node's content is in the upper. Who asks is about to change it: from now on no other's
// copies put it back. c are those of the change itself, nil for none.
func (n *node) claim(c *copies) bool {
	n.loc.RLock()
	up, owner := n.upLocked(), n.rarely().copies
	n.loc.RUnlock()
	if !up || owner == nil || owner == c {
		return up
	}
	n.loc.Lock()
	defer n.loc.Unlock()
	if up = n.upLocked(); up {
		n.own().copies = nil
	}
	return up
}

// add records a copy that is about to be switched to. Precondition: m.n.loc is held exclusively.
func (c *copies) add(m copied) {
	if m.n == c.final {
		return
	}
	m.n.lookups.Add(1)
	if !m.alias {
		m.n.own().copies = c
	}
	c.made = append(c.made, m)
}

// keep says that the change is made.
func (c *copies) keep() {
	for _, m := range c.made {
		m.n.loc.Lock()
		if m.n.rarely().copies == c {
			m.n.own().copies = nil
		}
		m.n.loc.Unlock()
		c.fs.forget(m.n, 1)
	}
	c.made = nil
}

// putBack says that the change has failed. The last copy goes first, so that directories are empty when it is their
// turn. What cannot be removed stays, and shows the same as before.
//
// Precondition: no dirState.mu and no node.loc is held.
func (c *copies) putBack() {
	for i := len(c.made) - 1; i >= 0; i-- {
		m := &c.made[i]
		switch {
		case m.alias:
			c.dropAlias(m)
		case m.n.dir != nil:
			c.putBackDir(m)
		default:
			c.putBackFile(m)
		}
	}
	c.keep()
}

// entry returns the entry of the copy's name, nil where the name is another object's by now, or gone.
//
// Precondition: the mu of the parent is held.
func (m *copied) entry() *entry {
	if m.d.parent == nil {
		return nil
	}
	if e := m.d.parent.dir.index.lookup(m.d.name); e != nil && e.node == m.n && e.layer == 0 {
		return e
	}
	return nil
}

// upperFd returns a descriptor of the parent's upper. Preconditions: the parent's mu is held, no node.loc is.
func (m *copied) upperFd(fs *FS) (fd int, release func(), err error) {
	up := m.d.parent.upperDir()
	if up == nil {
		return -1, nil, unix.ENOENT
	}
	if fd, err = fs.openDir(up); err != nil {
		return -1, nil, err
	}
	restore := keepTimes(fd)
	return fd, func() { restore(); fs.releaseDir(up) }, nil
}

func (c *copies) putBackFile(m *copied) {
	fs, n := c.fs, m.n
	defer lockDirs(m.d.parent)()
	e := m.entry()
	at := sys.At{Name: m.d.name}
	if e != nil {
		fd, release, err := m.upperFd(fs)
		if err != nil {
			return
		}
		defer release()
		at.Dirfd = fd
	}
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.rarely().copies != c || n.anon || n.rarely().orphaned != 0 {
		return
	}
	if n.hard() != nil && !fs.cfg.NoIndex {
		if !c.unindex(m, e, at) {
			return
		}
	} else if e == nil || !c.unplace(m, e, at) {
		return
	}
	n.up, n.lower = false, m.lower
	n.ino.Store(m.ino)
	n.xattrs.Store(xattrsUnknown)
	fs.dropFile(n)
	n.changed()
}

// unplace removes the copy at, which has the entry e.
func (c *copies) unplace(m *copied, e *entry, at sys.At) bool {
	st, err := sys.Stat(at)
	if err != nil || sys.Unlink(at) != nil {
		return false
	}
	c.fs.dropOrigin(st.Ino)
	e.layer = m.layer
	m.d.parent.changed()
	return true
}

// unindex removes the copy of an object with several names from the index, and its name at, where it still is its own
// (entry e). With further names in the upper the copy stays.
func (c *copies) unindex(m *copied, e *entry, at sys.At) bool {
	fs, h := c.fs, m.n.hard()
	index := sys.At{Dirfd: fs.work.index, Name: h.key.String()}
	names := uint64(1) // the index's own
	if e != nil {
		names++
	}
	st, err := sys.Stat(index)
	if err != nil || uint64(st.Nlink) != names {
		return false
	}
	if e != nil {
		if sys.Unlink(at) != nil {
			return false
		}
		e.layer = m.layer // from here on the name leads there by the index, as those do that only a lower has
		m.d.parent.changed()
	}
	if sys.Unlink(index) != nil {
		return false
	}
	fs.links.mu.Lock()
	delete(fs.links.upper, h.ino)
	m.n.own().linked = 0
	h.up, h.ino = false, 0
	fs.links.mu.Unlock()
	fs.dropOrigin(st.Ino)
	fs.unsettle(m)
	return true
}

func (c *copies) putBackDir(m *copied) {
	fs, n := c.fs, m.n
	defer lockDirs(m.d.parent, n)()
	e := m.entry()
	if e == nil || n.dir.dead {
		return
	}
	fd, release, err := m.upperFd(fs)
	if err != nil {
		return
	}
	defer release()
	n.loc.Lock()
	defer n.loc.Unlock()
	if n.rarely().copies != c {
		return
	}
	at := sys.At{Dirfd: fd, Name: m.d.name}
	st, err := sys.Stat(at)
	if err != nil || sys.Rmdir(at) != nil {
		return // somebody has something in it
	}
	fs.dropOrigin(st.Ino)
	fs.forgetDirs([]*dir{n.dir.upper})
	n.dir.upper, n.dir.redirect, n.dir.opaque = nil, "", false
	n.dir.acl.Store(aclUnknown)
	n.xattrs.Store(xattrsUnknown)
	e.layer, e.merge = m.layer, m.merge
	n.changed()
	m.d.parent.changed()
}

// dropAlias takes back what nameAlias did.
func (c *copies) dropAlias(m *copied) {
	defer lockDirs(m.d.parent)()
	e := m.entry()
	if e == nil || e.flags&aliased == 0 {
		return
	}
	fd, release, err := m.upperFd(c.fs)
	if err != nil {
		return
	}
	defer release()
	m.n.loc.Lock()
	defer m.n.loc.Unlock()
	if sys.Unlink(sys.At{Dirfd: fd, Name: m.d.name}) != nil {
		return
	}
	e.layer = m.layer
	e.flags &^= aliased
	m.n.changed()
}
