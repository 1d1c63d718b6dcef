package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// OpenDir tells the kernel that directories need no opening, for the life of the mount: it then caches listings.
// ENOSYS is meant (FUSE_NO_OPENDIR_SUPPORT).
func (fs *FS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// ReleaseDir is never called: directories are not opened.
func (fs *FS) ReleaseDir(*fuse.ReleaseIn) {}

// ReadDir lists names without looking them up.
func (fs *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil || !n.isDir() {
		return fs.status("readdir", unix.ENOTDIR)
	}
	if in.Offset == 0 && in.Flags&unix.O_NOATIME == 0 {
		fs.accessed(n)
	}
	x, unlock, err := fs.readIndex(n)
	if err != nil {
		return fs.status("readdir", err)
	}
	defer unlock()
	for _, dot := range fs.dots(n, in.Offset) {
		if !out.AddDirEntry(dot) {
			return fuse.OK
		}
	}
	for i := x.after(in.Offset); i < len(x.entries); i++ {
		e := &x.entries[i]
		if e.gone() {
			continue
		}
		de := fuse.DirEntry{Name: e.name, Mode: uint32(e.typ) << 12, Ino: fs.entryIno(n, e), Off: cookie(i)}
		if !out.AddDirEntry(de) {
			break
		}
	}
	return fuse.OK
}

// dots returns the entries "." and ".." as far as they come after the offset.
func (fs *FS) dots(n *node, offset uint64) []fuse.DirEntry {
	if offset >= cookieDotDot {
		return nil
	}
	parent := n.ino.Load()
	if d, ok := n.dentry(); ok {
		parent = d.parent.ino.Load()
	}
	all := []fuse.DirEntry{
		{Name: ".", Mode: unix.S_IFDIR, Ino: n.ino.Load(), Off: cookieDot},
		{Name: "..", Mode: unix.S_IFDIR, Ino: parent, Off: cookieDotDot},
	}
	return all[offset:]
}

// entryIno returns the inode number of an entry as stat(2) would show it, without making a node.
func (fs *FS) entryIno(p *node, e *entry) uint64 {
	if e.node != nil {
		return e.node.ino.Load()
	}
	d := p.source(e.layer)
	if d == nil || e.flags&inoKnown != 0 {
		return e.ino
	}
	if e.layer != 0 && e.typ != unix.DT_DIR {
		return fs.number(d.layer.device, e.ino)
	}
	// In the upper, or a directory (which may be a mount point, or merged): look closer.
	fd, err := fs.openDir(d)
	if err != nil {
		return e.ino
	}
	defer fs.releaseDir(d)
	at := sys.At{Dirfd: fd, Name: e.name}
	st, err := sys.Stat(at)
	if err != nil {
		return e.ino
	}
	if d.layer.index == 0 {
		if names, err := sys.XattrNames(at); err == nil {
			if o := fs.originOf(at, st.Ino, names); o != nil {
				return fs.number(o.Device, o.Ino)
			}
		}
		if l := fs.firstMerged(p, e); l != nil {
			if fd, err := fs.openDir(l); err == nil {
				defer fs.releaseDir(l)
				if lst, err := sys.Stat(sys.At{Dirfd: fd, Name: e.name}); err == nil {
					return fs.inoOf(l.layer, &lst)
				}
			}
		}
	}
	return fs.inoOf(d.layer, &st)
}

// firstMerged returns the topmost lower source of p in which a directory is merged into e, or nil.
func (fs *FS) firstMerged(p *node, e *entry) *dir {
	if e.merge == 0 {
		return nil
	}
	return p.source(p.dir.index.merges[e.merge-1][0])
}

// entrySize is how much room an entry takes in an answer to READDIRPLUS: struct fuse_direntplus, the name padded
// to 8 bytes.
func entrySize(name string) int { return 128 + 24 + (len(name)+7)&^7 }

// ReadDirPlus lists names together with what a lookup of each would answer.
func (fs *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil || !n.isDir() {
		return fs.status("readdirplus", unix.ENOTDIR)
	}
	if in.Offset == 0 && in.Flags&unix.O_NOATIME == 0 {
		fs.accessed(n)
	}
	for _, dot := range fs.dots(n, in.Offset) {
		// Without a nodeid: the kernel looks up neither.
		if out.AddDirLookupEntry(dot) == nil {
			return fuse.OK
		}
	}
	batch, err := fs.collect(n, in.Offset, int(in.Size))
	if err != nil {
		return fs.status("readdirplus", err)
	}
	full := false
	for _, b := range batch {
		if full {
			fs.forgetListed(b)
			continue
		}
		de := fuse.DirEntry{Name: b.name, Mode: uint32(b.typ) << 12, Ino: b.ino, Off: b.cookie}
		entry := out.AddDirLookupEntry(de)
		if entry == nil {
			full = true
			fs.forgetListed(b)
			continue
		}
		if b.node == nil {
			continue
		}
		if err := fs.fillEntry(b.node, entry); err != nil {
			*entry = fuse.EntryOut{} // just the name: a lookup will tell what is wrong with it
			fs.forgetListed(b)
		}
	}
	return fuse.OK
}

// listed is one entry on its way into an answer, with a reference to its node.
type listed struct {
	name   string
	cookie uint64
	ino    uint64
	typ    uint8
	node   *node // nil where it could not be made: then only the name is listed
}

func (fs *FS) forgetListed(l listed) {
	if l.node != nil {
		fs.forget(l.node, 1)
	}
}

// collect takes as many entries after the offset as fit into size bytes, making their nodes.
func (fs *FS) collect(n *node, offset uint64, size int) ([]listed, error) {
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if err := fs.fill(n); err != nil {
		return nil, err
	}
	x := n.dir.index
	var batch []listed
	for i := x.after(offset); i < len(x.entries); i++ {
		e := &x.entries[i]
		if e.gone() {
			continue
		}
		if size -= entrySize(e.name); size < 0 {
			break
		}
		child, err := fs.entryNode(n, e)
		l := listed{name: e.name, cookie: cookie(i), ino: e.ino, typ: e.typ}
		if err == nil {
			l.node, l.ino = child, child.ino.Load()
		}
		batch = append(batch, l)
	}
	return batch, nil
}
