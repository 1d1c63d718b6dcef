package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// PackOptions say how Pack works. The zero value is the default.
type PackOptions struct {
	// Warn is told what of an object is lost: a socket, an attribute that a tar cannot hold. Default: nobody is told.
	Warn func(path string, err error)
}

// Pack writes the upper directory of a union as a layer. lowers are the directories below it, topmost first; they are
// needed where the upper has a directory that was moved, which is written out in full.
//
// The tar depends on the upper's content only: marks come first in their directory, then the entries by name; times are
// those of the files, to the nanosecond, and access times are left out. Marks in kernel overlayfs format are written as
// the files that OCI layers have, objects with an override attribute as what they stand for. Sockets are left out.
//
// Errors: *EntryError; those of w; the context's.
// Source: OCI image-spec layer.md, "Representing Changes".
func Pack(ctx context.Context, w io.Writer, upper *os.File, lowers []*os.File, o PackOptions) error {
	if o.Warn == nil {
		o.Warn = func(string, error) {}
	}
	p := &packer{ctx: ctx, o: o, union: newUnion(append([]*os.File{upper}, lowers...)...), tar: tar.NewWriter(w),
		links: map[fileID]string{}}
	root, err := p.union.root()
	if err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	defer root.close()
	if err := p.root(root); err != nil {
		return err
	}
	if err := p.content("", root, false, false); err != nil {
		return err
	}
	if err := p.tar.Close(); err != nil {
		return fmt.Errorf("pack layer: %w", err)
	}
	return nil
}

// packer is one run of Pack.
type packer struct {
	ctx   context.Context
	o     PackOptions
	union *union
	tar   *tar.Writer

	// links has the first name of each file that has several.
	links map[fileID]string
}

type fileID struct{ dev, ino uint64 }

// root writes an entry for the root where the upper's is not as those below it are.
func (p *packer) root(root *object) error {
	if len(root.parts) > 1 {
		lower := root.parts[1]
		st, err := p.union.stat(lower.layer, sys.Fd(lower.fd))
		if err != nil {
			return &EntryError{"./", err}
		}
		if !differ(&st, &root.stat) {
			return nil
		}
	}
	return p.entry("./", root)
}

// content writes what is in the directory called path, which is in the upper or full.
//
// full says that no layer below will show through, so that all that the union shows is written; opaque that it needs
// a mark for that.
func (p *packer) content(path string, dir *object, full, opaque bool) error {
	var names, marks []string
	hidden := map[string]bool{} // names that have a whiteout
	var err error
	if full {
		names, err = p.union.names(dir)
	} else {
		opaque = opaque || dir.parts[0].marks.Opaque
		err = p.union.list(&dir.parts[0], func(name, deleted string) {
			if deleted != "" {
				hidden[deleted] = true
			} else {
				names = append(names, name)
			}
		})
	}
	if err != nil {
		return &EntryError{path, err}
	}
	for name := range hidden {
		if _, here := slices.BinarySearch(names, name); here {
			continue // what is there hides what is below; a directory gets an opaque mark for it
		}
		wh, err := whiteout.Name(name)
		if err != nil {
			return &EntryError{path + name, fmt.Errorf("whiteout: %w", err)}
		}
		marks = append(marks, wh)
	}
	if opaque {
		marks = append(marks, whiteout.OpaqueName)
	}
	slices.Sort(marks)
	for _, mark := range marks {
		if err := p.mark(path + mark); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := p.child(path, dir, name, full, hidden[name]); err != nil {
			return err
		}
	}
	return nil
}

// mark writes a whiteout or an opaque mark. It has no owner, mode or time that would mean anything.
func (p *packer) mark(path string) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := p.tar.WriteHeader(h); err != nil {
		return &EntryError{path, err}
	}
	return nil
}

// child writes the entry called name of the directory, and what is below it.
func (p *packer) child(path string, dir *object, name string, full, opaque bool) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	path += name
	if len(path) > maxPath {
		return &EntryError{path, unix.ENAMETOOLONG}
	}
	o, err := p.union.lookup(dir, name)
	if err != nil {
		return &EntryError{path, err}
	}
	if o == nil {
		return &EntryError{path, unix.ENOENT} // it was listed: someone changes the layer
	}
	defer o.close()
	if !o.isDir() {
		return p.entry(path, o)
	}
	path += "/"
	if err := p.entry(path, o); err != nil {
		return err
	}
	if !full && o.parts[0].marks.Redirect != "" {
		return p.content(path, o, true, true)
	}
	return p.content(path, o, full, opaque)
}

// entry writes one object: header and data.
func (p *packer) entry(path string, o *object) error {
	err := p.writeEntry(path, o)
	if err == nil || errors.Is(err, p.ctx.Err()) {
		return err
	}
	return &EntryError{path, err}
}

func (p *packer) writeEntry(path string, o *object) error {
	if o.stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
		p.o.Warn(path, errors.New("a socket has no place in a layer"))
		return nil
	}
	h, err := p.header(path, o)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return p.tar.WriteHeader(h)
	}
	fd, err := sys.OpenNoAtime(o.at, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	return copyFile(p.ctx, p.tar, f, h.Size)
}

// copyFile writes size bytes of f.
func copyFile(ctx context.Context, w io.Writer, f io.Reader, size int64) error {
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	// The writer is wrapped: tar.Writer's own ReadFrom is not exported, and io.Copy must not look for another.
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, &limited{ctx: ctx, r: &borrowing{Reader: io.LimitReader(f, size)}, left: size}, *bp)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d bytes of %d: the file was cut while it was packed: %w", n, size, io.ErrUnexpectedEOF)
	}
	return nil
}

// header makes the tar header of an object.
func (p *packer) header(path string, o *object) (*tar.Header, error) {
	names, err := sys.XattrNames(o.at)
	if err != nil {
		return nil, err
	}
	if o.stat.Mode&unix.S_IFMT == unix.S_IFREG && whiteout.IsMetacopy(names) {
		return nil, errors.New("is a metacopy: its data is in a lower layer of kernel overlayfs (mount option metacopy=on)")
	}
	m, err := p.union.meta(o)
	if err != nil {
		return nil, err
	}
	h := &tar.Header{
		Name: path, Mode: int64(m.mode & 0o7777), Uid: int(m.uid), Gid: int(m.gid),
		ModTime: time.Unix(m.mtime.Sec, m.mtime.Nsec), Format: tar.FormatPAX,
	}
	p.setXattrs(path, h, m.xattrs)
	id := fileID{o.stat.Dev, o.stat.Ino}
	if first, again := p.links[id]; again && !o.isDir() {
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, first, nil
		return h, nil
	}
	switch m.mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, o.stat.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		return h, nil
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = sys.Readlink(o.at); err != nil {
			return nil, err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(m.rdev)), int64(unix.Minor(m.rdev))
	}
	if o.stat.Nlink > 1 {
		p.links[id] = path
	}
	return h, nil
}

// setXattrs puts extended attributes into PAX records, which cannot hold every name: "=" ends the key.
func (p *packer) setXattrs(path string, h *tar.Header, xattrs []xattr) {
	for _, x := range xattrs {
		if strings.ContainsRune(x.name, '=') {
			p.o.Warn(path, fmt.Errorf("a tar cannot hold the extended attribute %q", x.name))
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+x.name] = x.value
	}
}
