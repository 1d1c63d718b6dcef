package layertar

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// union is a stack of layers as a mount of them shows it, as far as packing one of them needs to know. What it finds is
// what package unionfs shows; that one keeps indexes and caches for a tree that lives, this one looks once.
type union struct {
	layers []layer // topmost first
}

type layer struct {
	fd       int    // the root
	override string // the attribute that holds owners and modes, "" where the inodes do
}

// newUnion takes the directories of the layers, topmost first. They stay the caller's.
func newUnion(dirs ...*os.File) *union {
	u := &union{}
	for _, d := range dirs {
		l := layer{fd: int(d.Fd())}
		for _, attr := range override.Names {
			if _, err := sys.Getxattr(sys.Fd(l.fd), attr, nil); err == nil {
				l.override = attr
				break
			}
		}
		u.layers = append(u.layers, l)
	}
	return u
}

// part is a directory in one layer.
type part struct {
	layer int // index in union.layers
	fd    int // O_RDONLY
	marks whiteout.Marks

	// below is where the layers below have it.
	below []string
}

// object is something that the union shows.
type object struct {
	at    sys.At      // in the topmost layer that has it
	layer int         // which that is
	stat  unix.Stat_t // as it is shown: the override attribute applied
	parts []part      // of a directory: in every layer that contributes, topmost first
}

func (o *object) close() {
	for _, p := range o.parts {
		sys.Close(p.fd)
	}
}

func (o *object) isDir() bool { return o.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// root returns the union's root.
func (u *union) root() (*object, error) {
	o := &object{}
	for i := range u.layers {
		p, err := u.openPart(i, sys.At{Dirfd: u.layers[i].fd, Name: "."}, nil, "")
		if err != nil {
			o.close()
			return nil, err
		}
		o.parts = append(o.parts, p)
		if p.marks.Opaque {
			break
		}
	}
	if len(o.parts) == 0 {
		return nil, unix.ENOENT
	}
	o.at, o.layer = sys.Fd(o.parts[0].fd), o.parts[0].layer
	var err error
	if o.stat, err = u.stat(o.layer, o.at); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// stat returns the attributes of an object of the layer as they are shown.
func (u *union) stat(layer int, at sys.At) (unix.Stat_t, error) {
	st, err := sys.Stat(at)
	if err != nil || u.layers[layer].override == "" {
		return st, err
	}
	v, err := sys.XattrValue(at, u.layers[layer].override)
	if err != nil {
		return st, nil
	}
	s, err := override.Parse(string(v))
	if err != nil {
		return st, nil // nonsense stands for nothing: the inode's own owner is shown
	}
	st.Uid, st.Gid, st.Mode = s.UID, s.GID, st.Mode&unix.S_IFMT|s.Mode&0o7777
	switch typ := s.Mode & unix.S_IFMT; {
	case typ == 0, typ == unix.S_IFDIR, typ == unix.S_IFLNK, st.Mode&unix.S_IFMT != unix.S_IFREG:
	default:
		st.Mode, st.Rdev = st.Mode&0o7777|typ, s.Rdev
	}
	return st, nil
}

// openPart opens a directory of the layer, called name where its parent is at base in the layers below.
func (u *union) openPart(layer int, at sys.At, base []string, name string) (part, error) {
	p := part{layer: layer}
	var err error
	if p.fd, err = sys.OpenNoAtime(at, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return p, err
	}
	names, err := sys.XattrNames(sys.Fd(p.fd))
	if err == nil {
		p.marks, err = whiteout.ReadMarks(sys.Fd(p.fd), names)
	}
	if errors.Is(err, whiteout.ErrBadRedirect) {
		p.marks.Opaque, err = true, nil // it leads nowhere
	}
	if err != nil {
		sys.Close(p.fd)
		return p, err
	}
	if !p.marks.Opaque {
		p.marks.Opaque = whiteout.HasOpaqueFile(p.fd)
	}
	p.below = base
	if name != "" {
		p.below = below(base, name, p.marks.Redirect)
	}
	return p, nil
}

// below returns where the layers below have the directory called name of a parent that they have at base.
func below(base []string, name, redirect string) []string {
	if redirect == "" {
		return append(slices.Clip(base), name)
	}
	if abs, is := strings.CutPrefix(redirect, "/"); is {
		return strings.Split(abs, "/")
	}
	return append(slices.Clip(base), redirect)
}

// found is what one layer has under a name.
type found struct {
	exists bool
	stat   unix.Stat_t
	last   bool // nothing of the layers below shows through
}

// find looks the name up in one layer's directory.
func (u *union) find(p *part, name string) (found, error) {
	at := sys.At{Dirfd: p.fd, Name: name}
	f := found{last: whiteout.HasFile(p.fd, name)}
	st, err := sys.Stat(at)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if isWhiteoutNode(at, &st, p.marks.Whiteouts) {
		f.last = true
		return f, nil
	}
	if f.stat, err = u.stat(p.layer, at); err != nil {
		return f, err
	}
	f.exists = true
	f.last = f.last || st.Mode&unix.S_IFMT != unix.S_IFDIR
	return f, nil
}

// isWhiteoutNode reports whether an object is a whiteout by its type or its attribute. st is the inode's own: a device
// that the override attribute tells of is a device.
func isWhiteoutNode(at sys.At, st *unix.Stat_t, marked bool) bool {
	if whiteout.IsDevice(st.Mode, st.Rdev) {
		return true
	}
	return marked && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 && whiteout.IsWhiteoutFile(at)
}

// lookup returns the entry called name of the directory, nil where it has none.
func (u *union) lookup(dir *object, name string) (*object, error) {
	o := &object{layer: -1}
	for i := range dir.parts {
		p := &dir.parts[i]
		f, err := u.find(p, name)
		if err != nil {
			o.close()
			return nil, err
		}
		isDir := f.exists && f.stat.Mode&unix.S_IFMT == unix.S_IFDIR
		if f.exists && o.layer < 0 {
			o.layer, o.at, o.stat = p.layer, sys.At{Dirfd: p.fd, Name: name}, f.stat
		}
		if isDir {
			child, err := u.openPart(p.layer, sys.At{Dirfd: p.fd, Name: name}, p.below, name)
			if err != nil {
				o.close()
				return nil, err
			}
			o.parts = append(o.parts, child)
			if child.marks.Opaque {
				break
			}
			if child.marks.Redirect != "" {
				if err := u.follow(o, child.below, p.layer+1); err != nil {
					o.close()
					return nil, err
				}
				break
			}
		}
		if f.last {
			break
		}
	}
	if o.layer < 0 {
		return nil, nil
	}
	return o, nil
}

// follow adds to o what the layers from first on have at path. Each is walked by itself, as kernel overlayfs does
// (overlayfs.rst, "redirect_dir").
func (u *union) follow(o *object, path []string, first int) error {
	for l := first; l < len(u.layers); l++ {
		p, next, last, err := u.walk(l, path)
		if err != nil {
			return err
		}
		if p != nil {
			o.parts = append(o.parts, *p)
			last = last || p.marks.Opaque
		}
		if last {
			return nil
		}
		path = next
	}
	return nil
}

// walk follows path in one layer. next is the path to follow in the layer below, last says that there is none.
func (u *union) walk(l int, path []string) (p *part, next []string, last bool, err error) {
	at, err := u.openPart(l, sys.At{Dirfd: u.layers[l].fd, Name: "."}, nil, "")
	if err != nil {
		return nil, nil, false, err
	}
	for i, name := range path {
		f, err := u.find(&at, name)
		if err != nil {
			sys.Close(at.fd)
			return nil, nil, false, err
		}
		last = last || f.last
		if !f.exists || f.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
			sys.Close(at.fd)
			return nil, append(slices.Clip(at.below), path[i:]...), last, nil
		}
		child, err := u.openPart(l, sys.At{Dirfd: at.fd, Name: name}, at.below, name)
		sys.Close(at.fd)
		if err != nil {
			return nil, nil, false, err
		}
		at = child
		last = last || i < len(path)-1 && at.marks.Opaque
	}
	return &at, at.below, last, nil
}

// list calls fn for every entry of the part by its name, and says of which name it is a whiteout, "" for none. Opaque
// marks and what AUFS keeps are left out.
func (u *union) list(p *part, fn func(name, deleted string)) error {
	var names []string
	err := sys.ReadDir(p.fd, func(e sys.Dirent) { names = append(names, e.Name) })
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		switch kind, target := whiteout.Classify(name); kind {
		case whiteout.Plain:
			f, err := u.find(p, name)
			if err != nil {
				return err
			}
			if f.exists {
				fn(name, "")
			} else {
				fn(name, name)
			}
		case whiteout.Deleted:
			fn(name, target)
		}
	}
	return nil
}

// names lists the names that the directory shows, sorted.
func (u *union) names(dir *object) ([]string, error) {
	hidden := map[string]bool{}
	var shown []string
	for i := range dir.parts {
		p := &dir.parts[i]
		var gone []string
		err := u.list(p, func(name, deleted string) {
			if deleted != "" {
				gone = append(gone, deleted)
				return
			}
			if !hidden[name] {
				shown = append(shown, name)
				gone = append(gone, name)
			}
		})
		if err != nil {
			return nil, err
		}
		for _, name := range gone {
			hidden[name] = true
		}
	}
	slices.Sort(shown)
	return shown, nil
}

// meta returns what the object has besides its data. Attributes of the union filesystem are left out, and labels of
// the machine.
func (u *union) meta(o *object) (meta, error) {
	m := meta{mode: o.stat.Mode, uid: o.stat.Uid, gid: o.stat.Gid, rdev: o.stat.Rdev, atime: o.stat.Atim, mtime: o.stat.Mtim}
	names, err := sys.XattrNames(o.at)
	if err != nil {
		return m, err
	}
	slices.Sort(names)
	for _, stored := range names {
		name, shown := whiteout.Shown(stored)
		if !shown || !packed(name) {
			continue
		}
		v, err := sys.XattrValue(o.at, stored)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EACCES) && !strings.HasPrefix(name, "user.") {
			continue
		}
		if err != nil {
			return m, err
		}
		m.xattrs = append(m.xattrs, xattr{name, string(v)})
	}
	return m, nil
}

// packed reports whether an attribute belongs to the object rather than to the machine that it is on: security
// attributes other than capabilities are labels, signatures and hashes of some policy.
func packed(name string) bool {
	switch name {
	case capability, aclAccess, aclDefault:
		return true
	case "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT": // XFS lists its ACLs twice
		return false
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}
