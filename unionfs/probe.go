package unionfs

import (
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// A name in a large directory is probed at first: looked for in the layers by itself, since to read all names takes
// long and who wants one mostly wants few. The index then is partial: it holds the names that were found so far, which are
// true as those of a complete one are. It is completed when the names are listed, before any of them changes, and when
// so many were probed that reading all would have been no more work.
const (
	// probeFrom is the st_size of a directory from which on its names are probed, in bytes beyond the first block, over all
	// layers: some hundred names on ext4, xfs and btrfs, 800 on tmpfs. A filesystem that gives no such size is not probed.
	probeFrom = 16 << 10

	// dirBlock is the size of a directory that holds little or nothing, where directories have blocks.
	dirBlock = 4096

	// probeBytes is how much of st_size is read in the time in which a name is probed in one layer.
	probeBytes = 128

	// probeLayers is in how many layers a name is probed at most.
	probeLayers = 8
)

// find is child for a name that is only looked at.
func (fs *FS) find(p *node, name string) (*node, error) {
	p.dir.mu.RLock()
	known := p.dir.index != nil && !p.dir.index.partial
	p.dir.mu.RUnlock()
	if known {
		return fs.child(p, name)
	}
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if err := fs.prepareProbe(p); err != nil {
		return nil, err
	}
	if x := p.dir.index; x.partial && x.lookup(name) == nil {
		x.probes--
		if err := fs.probe(p, x, name); err != nil {
			return nil, err
		}
	}
	return fs.childLocked(p, name)
}

// probes reports whether names in the directory n are probed. Precondition: n.dir.mu is not held.
func (fs *FS) probes(n *node) bool {
	n.dir.mu.RLock()
	x := n.dir.index
	partial := x != nil && x.partial
	n.dir.mu.RUnlock()
	return partial || x == nil && fs.probesFor(n.sources()) > 0
}

// prepareProbe makes an index of p: a partial one, in which one more name may be probed, where p is large; else the
// complete one. Precondition: p.dir.mu is held exclusively.
func (fs *FS) prepareProbe(p *node) error {
	if p.dir.index == nil && !p.dir.dead {
		if probes := fs.probesFor(p.sources()); probes > 0 {
			p.dir.index = newIndex(0).countIn(&fs.counts.indexed)
			p.dir.index.partial, p.dir.index.probes = true, probes
		}
	}
	if x := p.dir.index; x != nil && x.probes > 0 {
		return nil
	}
	return fs.fill(p)
}

// probesFor returns how many names may be probed in a directory with these places before all are read, 0 for none.
func (fs *FS) probesFor(dirs []*dir) int {
	if len(dirs) > probeLayers {
		return 0
	}
	size := int64(0)
	for _, d := range dirs {
		fd, err := fs.openDir(d)
		if err != nil {
			return 0 // reading it meets that again
		}
		st, err := sys.Stat(sys.Fd(fd))
		fs.releaseDir(d)
		if err != nil {
			return 0
		}
		size += max(0, st.Size-dirBlock)
	}
	if size < probeFrom {
		return 0
	}
	return int(size / probeBytes / int64(len(dirs)))
}

// probe looks for one name in all layers of p, and adds what it is to the partial index x.
//
// Precondition: p.dir.mu is held exclusively.
func (fs *FS) probe(p *node, x *index, name string) error {
	m := merger{fs: fs, x: x}
	dirs := p.sources()
	for i, d := range dirs {
		last, err := m.probe(d, name, i == len(dirs)-1)
		if err != nil || last {
			return err
		}
	}
	return nil
}

// probe adds the entry called name of d, if there is one, and reports whether lower layers have no part in it. The
// lowest layer hides nothing from others.
func (m *merger) probe(d *dir, name string, lowest bool) (last bool, err error) {
	fd, err := m.fs.openDir(d)
	if err != nil {
		return false, ignoreSealed(err)
	}
	defer m.fs.releaseDir(d)
	at := sys.At{Dirfd: fd, Name: name}
	st, err := sys.Stat(at)
	switch {
	case err == unix.ENOENT:
	case err != nil:
		return true, err
	case isWhiteout(d, at, &st):
		m.whiteout(d, name, whNode)
		return true, nil
	default:
		m.entry(d, sys.Dirent{Name: name, Ino: st.Ino, Type: direntType(st.Mode)})
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return true, nil
		}
	}
	if lowest || !whiteout.HasFile(fd, name) {
		return false, nil
	}
	m.whiteout(d, name, whFile)
	return true, nil
}

// isWhiteout reports whether the entry of d with attributes st is a whiteout by what it is.
func isWhiteout(d *dir, at sys.At, st *unix.Stat_t) bool {
	empty := st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
	return whiteout.IsDevice(st.Mode, st.Rdev) || d.marked && empty && whiteout.IsWhiteoutFile(at)
}

// adopt takes over what a partial index knows of the nodes in the directory.
func (x *index) adopt(old *index) {
	for i := range old.entries {
		o := &old.entries[i]
		if o.node == nil {
			continue
		}
		e := x.get(o.name)
		if e == nil || e.gone() {
			// Somebody changed a layer. The node stays what it is while the kernel knows it.
			e = x.insert(o.name)
			e.layer, e.flags = o.layer, e.flags|o.flags
		}
		x.setType(e, o.typ)
		e.node, e.ino = o.node, o.ino
		e.flags |= inoKnown
	}
}
