package unionfs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

var faultLinked = fault.New("unionfs.link.linked") // name there, link count in the index not yet changed

// Link gives an object a further name.
func (fs *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n := fs.nodes.get(in.Oldnodeid)
	if n == nil {
		return fs.status("link", unix.ESTALE)
	}
	if n.isDir() {
		return fs.status("link", unix.EPERM)
	}
	p, err := fs.writableParent(in.NodeId, name)
	if err == nil {
		err = fs.copyUp(n, wholeFile)
	}
	if err == nil {
		err = fs.link(n, p, name)
	}
	if err != nil {
		return fs.status("link", err)
	}
	n.lookups.Add(1)
	if err := fs.fillEntry(n, out); err != nil {
		fs.forget(n, 1)
		return fs.status("link", err)
	}
	return fuse.OK
}

// link makes name in p a name of n. Both have been copied up.
func (fs *FS) link(n, p *node, name string) error {
	defer lockDirs(p)()
	if p.dir.dead {
		return unix.ENOENT
	}
	if err := fs.fill(p); err != nil {
		return err
	}
	x := p.dir.index
	var flags entryFlags
	if e := x.get(name); e != nil {
		if !e.gone() {
			return unix.EEXIST
		}
		flags = e.flags
	}
	up := p.upperDir()
	fd, err := fs.openDir(up)
	if err != nil {
		return err
	}
	defer fs.releaseDir(up)
	path := fs.upperPath(n, p, name) // before the lock on n
	defer lockNodes(n)()
	from, _, release, err := fs.locateLocked(n)
	if err != nil {
		return err
	}
	defer release()
	if h := n.hard(); h != nil {
		fs.links.intend(h, 1, path, false)
	}
	if err := fs.linkOver(from, sys.At{Dirfd: fd, Name: name}, flags); err != nil {
		if h := n.hard(); h != nil {
			_ = fs.links.settle(h) // a stale intent tells of a name that is not there
		}
		return err
	}
	e := x.show(name, n.typ, n, n.ino.Load())
	e.flags &^= whNode
	if e.flags&whFile != 0 && whiteout.RemoveFile(fd, name) == nil {
		e.flags &^= whFile
	}
	p.dir.kids++
	p.changed()
	n.addDentryLocked(dentry{p, name})
	n.changed()
	if n.hard() != nil {
		_ = faultLinked.Hit() // too late to fail
		if err := fs.links.count(n.hard(), 1); err != nil {
			fs.log.Printf("link: link count of a lower file: %v", err)
		}
		return nil
	}
	if st, err := sys.Stat(from); err == nil {
		fs.links.joined(n, fs.identity(fs.upper, &st).ino)
	}
	return nil
}

// linkOver links from to a name that is free but for a whiteout in it.
func (fs *FS) linkOver(from, to sys.At, flags entryFlags) error {
	if flags&whNode == 0 {
		return sys.Link(from, to)
	}
	tmp := fs.stage.Temp()
	if err := sys.Link(from, tmp); err != nil {
		return err
	}
	if err := sys.Rename(tmp, to, 0); err != nil {
		fs.stage.Discard(tmp)
		return err
	}
	return nil
}

// Readlink returns the target of a symbolic link. The kernel keeps it.
func (fs *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return nil, fs.status("readlink", unix.ESTALE)
	}
	loc, err := fs.locate(n)
	if err != nil {
		return nil, fs.status("readlink", err)
	}
	defer loc.done()
	target, err := sys.Readlink(loc.At)
	if n.up && !fs.cfg.NoAtime {
		n.changed() // the access time
	}
	return []byte(target), fs.status("readlink", err)
}
