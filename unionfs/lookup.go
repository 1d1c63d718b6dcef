package unionfs

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// maxNameLen is NAME_MAX, in bytes.
const maxNameLen = 255

// Lookup finds a name in a directory. That there is none is an answer too, and kept by the kernel.
func (fs *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p, err := fs.parent(in.NodeId, name)
	if err != nil {
		return fs.status("lookup", err)
	}
	if whiteout.Reserved(name) {
		return fs.negative(out)
	}
	n, err := fs.find(p, name)
	if err == unix.ENOENT {
		return fs.negative(out)
	}
	if err != nil {
		return fs.status("lookup", err)
	}
	if err := fs.fillEntry(n, out); err != nil {
		fs.forget(n, 1)
		return fs.status("lookup", err)
	}
	return fuse.OK
}

// parent returns the directory with that nodeid and checks that name could be in one.
func (fs *FS) parent(nodeid uint64, name string) (*node, error) {
	p := fs.nodes.get(nodeid)
	switch {
	case p == nil:
		return nil, unix.ESTALE
	case !p.isDir():
		return nil, unix.ENOTDIR
	case len(name) > maxNameLen:
		return nil, unix.ENAMETOOLONG
	}
	return p, nil
}

// negative answers that there is no such name.
func (fs *FS) negative(out *fuse.EntryOut) fuse.Status {
	*out = fuse.EntryOut{}
	out.SetEntryTimeout(fs.timeout)
	return fuse.OK
}

// fillEntry fills the answer for a node to which a reference was taken.
func (fs *FS) fillEntry(n *node, out *fuse.EntryOut) error {
	if err := fs.attr(n, &out.Attr); err != nil {
		return err
	}
	out.NodeId = n.id
	out.Generation = fs.nodes.generation(n.id)
	out.SetEntryTimeout(fs.timeout)
	out.SetAttrTimeout(fs.attrTimeout(n))
	return nil
}

// child returns the node of a name, with a reference taken. Errors: ENOENT.
func (fs *FS) child(p *node, name string) (*node, error) {
	x, unlock, err := fs.readIndex(p)
	if err != nil {
		return nil, err
	}
	e := x.lookup(name)
	if e == nil {
		unlock()
		return nil, unix.ENOENT
	}
	if n := e.node; n != nil {
		n.lookups.Add(1)
		unlock()
		return n, nil
	}
	unlock()
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	return fs.childLocked(p, name)
}

// childLocked is child with p.dir.mu held exclusively and the index filled.
func (fs *FS) childLocked(p *node, name string) (*node, error) {
	e := p.dir.index.lookup(name)
	if e == nil {
		return nil, unix.ENOENT
	}
	return fs.entryNode(p, e)
}

// readIndex returns the directory's index, complete, with its lock held shared until unlock is called.
func (fs *FS) readIndex(n *node) (x *index, unlock func(), err error) {
	for made := false; ; made = true {
		n.dir.mu.RLock()
		if x := n.dir.index; x != nil && !x.partial {
			if !made {
				fs.counts.indexHits.Add(1)
			}
			return x, n.dir.mu.RUnlock, nil
		}
		n.dir.mu.RUnlock()
		if err := fs.fillAlone(n); err != nil {
			return nil, nil, err
		}
	}
}

// fillAlone is fill that takes the lock.
func (fs *FS) fillAlone(n *node) error {
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return fs.fill(n)
}

// entryNode returns the node of an entry with a reference taken, and makes it where the kernel did not know it.
//
// Precondition: p.dir.mu is held exclusively.
func (fs *FS) entryNode(p *node, e *entry) (*node, error) {
	if e.node != nil {
		e.node.lookups.Add(1)
		return e.node, nil
	}
	n, err := fs.makeNode(p, e)
	if err != nil {
		return nil, err
	}
	n.loc.Lock()
	n.addDentryLocked(dentry{p, e.name})
	n.loc.Unlock()
	e.node = n
	e.ino, e.flags = n.ino.Load(), e.flags|inoKnown
	p.dir.index.setType(e, n.typ)
	p.dir.kids++
	return n, nil
}

// makeNode makes the node for an entry, or finds it by another name of the same object. A reference is taken.
func (fs *FS) makeNode(p *node, e *entry) (*node, error) {
	d := p.source(e.layer)
	if d == nil {
		return nil, fmt.Errorf("entry %q: no source in layer %d: %w", e.name, e.layer, unix.EIO)
	}
	fd, err := fs.openDir(d)
	if err != nil {
		return nil, err
	}
	defer fs.releaseDir(d)
	at := sys.At{Dirfd: fd, Name: e.name}
	st, err := sys.Stat(at)
	if err != nil {
		return nil, err
	}
	fs.meet(d.layer, at, st.Dev)
	n := &node{}
	n.ino.Store(fs.inoOf(d.layer, &st))
	n.lookups.Store(1)
	changes := n.changes.Load()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err := fs.makeDirNode(n, p, e, d, at, &st)
		if err != nil {
			n.dir.index.leave()
			return n, err
		}
		merged := len(n.sources()) > 1
		if merged && n.dir.index != nil {
			st.Nlink = uint64(2 + n.dir.index.subdirs)
		}
		if d.layer.override == "" && (!merged || n.dir.index != nil) { // else the link count is yet to be found
			fs.putAttr(n, changes, &st)
		}
		return n, nil
	}
	var origin *whiteout.Origin
	if d.layer.index == 0 {
		n.up = true
		names, err := sys.XattrNames(at)
		if err != nil {
			return nil, err
		}
		n.xattrs.Store(xattrsOf(names))
		if origin = fs.originOf(at, st.Ino, names); origin != nil {
			n.ino.Store(fs.number(origin.Device, origin.Ino))
		}
	} else {
		n.lower = d
	}
	several := st.Nlink > 1
	if d.layer.override != "" {
		if err := applyOverride(at, d.layer.override, &st); err != nil {
			return nil, err
		}
	}
	n.typ = direntType(st.Mode)
	if !n.up {
		fs.fillBlocks(d, at, &st)
	}
	if several && !(fs.cfg.NoIndex && fs.upper != nil && d.layer.index != 0) {
		var known *node
		if d.layer.index == 0 {
			known = fs.links.findUpper(&st, origin, n)
		} else {
			known = fs.links.findLower(d.layer, at, &st, n)
		}
		if known != n {
			return known, nil
		}
	}
	if n.id == 0 {
		fs.nodes.add(n)
	}
	if n.hard() == nil {
		fs.putAttr(n, changes, &st)
	}
	return n, nil
}

// putAttr keeps attributes that were read when n.changes was changes.
func (fs *FS) putAttr(n *node, changes uint32, st *unix.Stat_t) {
	var a fuse.Attr
	fs.fillAttr(n, st, &a)
	fs.attrs.put(n, changes, &a)
}

// xattrsOf returns what the names of all its extended attributes say of an object.
func xattrsOf(names []string) uint32 {
	for _, name := range names {
		if _, ok := whiteout.Shown(name); ok || whiteout.MeansMetacopy(name) {
			return xattrsSome
		}
	}
	return xattrsNone
}

// makeDirNode makes n the node of a directory: entry e of p, found in d.
func (fs *FS) makeDirNode(n, p *node, e *entry, d *dir, at sys.At, st *unix.Stat_t) error {
	n.typ, n.dir = unix.DT_DIR, &dirState{}
	dirs := []*dir{newDir(d.layer, d, e.name)}
	if e.merge != 0 {
		for _, l := range p.dir.index.merges[e.merge-1] {
			if s := p.source(l); s != nil {
				dirs = append(dirs, newDir(s.layer, s, e.name))
			}
		}
	}
	if err := fs.mergeDir(n, dirs, !fs.cfg.StaticNlink); err != nil {
		return err
	}
	if d.layer.index == 0 {
		names, err := sys.XattrNames(at)
		if err != nil {
			return err
		}
		if origin := fs.originOf(at, st.Ino, names); origin != nil {
			n.ino.Store(fs.number(origin.Device, origin.Ino))
		} else if len(n.dir.lowers) > 0 {
			// An upper directory that was not copied up by us: the number is that of the lower it is merged with,
			// which the merged directory had before anybody wrote to it.
			low := n.dir.lowers[0]
			if fd, err := fs.openDir(low); err == nil {
				if lst, err := sys.Stat(sys.Fd(fd)); err == nil {
					fs.meet(low.layer, sys.Fd(fd), lst.Dev)
					n.ino.Store(fs.inoOf(low.layer, &lst))
				}
				fs.releaseDir(low)
			}
		}
	}
	fs.nodes.add(n)
	return nil
}
