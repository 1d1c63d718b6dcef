package unionfs

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// Kernel overlayfs with metacopy=on copies only the metadata of a file up when that is all that changes. Such a file, a
// hole of the right size in our layer, has its data in a layer below: under the name it has, or the one that its redirect
// says. A layer is untrusted: what is found there is a regular file with data of its own and of the same size, or it is
// EIO.

// openMetacopy opens, to read, what holds the data of the lower regular file at, in d, when that is a metacopy; -1 where
// it is not. st are the file's own attributes.
func (fs *FS) openMetacopy(d *dir, at sys.At, st *unix.Stat_t) (int, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, nil
	}
	names, err := sys.XattrNames(at)
	if err != nil || !whiteout.IsMetacopy(names) {
		return -1, err
	}
	return fs.searchData(d, at, st, names)
}

// searchData is openMetacopy for a file whose attributes are called names, which say that it is one.
func (fs *FS) searchData(d *dir, at sys.At, st *unix.Stat_t, names []string) (int, error) {
	s := dataSearch{fs: fs, size: st.Size}
	redirect, meta, err := whiteout.ReadMetacopy(at, names)
	if err == nil && meta {
		err = s.run(d, at.Name, redirect)
	}
	if err == nil && s.fd < 0 || !meta {
		err = unix.EIO
	}
	if err != nil {
		return -1, fmt.Errorf("layer %s: %s: no data for a file made with metacopy=on: %w", d.layer.path, at.Name, err)
	}
	return s.fd, nil
}

// metacopyOf returns the descriptor to read the data of the lower file at, which is n's content, from: fd, which is open
// on the file itself, or another one for it. Precondition: n.loc is held.
func (fs *FS) metacopyOf(n *node, fd int, at sys.At) (int, error) {
	if n.isPlain() {
		return fd, nil
	}
	names, err := sys.XattrNames(sys.Fd(fd))
	if err == nil {
		n.xattrs.Store(xattrsOf(names)) // nobody adds one to a lower file, and with loc held it stays that
		if !whiteout.IsMetacopy(names) {
			return fd, nil
		}
	}
	defer sys.Close(fd)
	if err != nil {
		return -1, err
	}
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return -1, err
	}
	return fs.searchData(n.lower, at, &st, names)
}

// fillBlocks corrects the number of blocks that a lower file shows: with none at all, tar(1) would take a metacopy for a
// file without data.
func (fs *FS) fillBlocks(d *dir, at sys.At, st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Blocks*512 >= st.Size {
		return // nothing is missing
	}
	fd, err := fs.openMetacopy(d, at, st)
	if err != nil {
		st.Blocks = (st.Size + 511) / 512 // who reads it is told then
		return
	}
	if fd < 0 {
		return
	}
	defer sys.Close(fd)
	if data, err := sys.Stat(sys.Fd(fd)); err == nil {
		st.Blocks = data.Blocks
	}
}

// dataSearch goes through the layers below a metacopy.
type dataSearch struct {
	fs    *FS
	size  int64    // bytes that the data must have
	parts []string // where it is to be in the next layer
	fd    int      // what was found, -1 until then
}

// run finds the data of the file called name in d.
func (s *dataSearch) run(d *dir, name, redirect string) error {
	s.fd = -1
	base, err := s.fs.below(d)
	if err != nil {
		return err
	}
	if redirect == "" {
		redirect = name // beside the others
	}
	s.parts = redirectTo(base, redirect)
	if !strings.HasPrefix(redirect, "/") {
		hidden, err := s.hidden(d, name)
		if err != nil || hidden {
			return err
		}
	}
	for l := d.layer.index + 1; l < len(s.fs.layers); l++ {
		last, err := s.look(s.fs.layers[l])
		if err != nil || last || s.fd >= 0 {
			return err
		}
	}
	return nil
}

// hidden reports whether the layer of d lets nothing of lower layers show through under the name.
func (s *dataSearch) hidden(d *dir, name string) (bool, error) {
	fd, err := s.fs.openDir(d)
	if err != nil {
		return true, err
	}
	hides := whiteout.HasFile(fd, name)
	s.fs.releaseDir(d)
	if hides {
		return true, nil
	}
	return s.fs.severed(d)
}

// look looks into the layer l, and says whether the search ends there.
func (s *dataSearch) look(l *layer) (last bool, err error) {
	above, name := s.parts[:len(s.parts)-1], s.parts[len(s.parts)-1]
	w, err := s.fs.walkLayer(l, above)
	if err != nil || w.dir == nil {
		s.parts = append(w.parts, name)
		return w.last, err
	}
	defer func() {
		if w.dir != l.root {
			s.fs.fds.forget(&w.dir.fd)
		}
	}()
	m, err := s.fs.readMarks(w.dir)
	if err != nil {
		return true, err
	}
	next := w.parts
	if k := len(next); k > 0 {
		next = below(next[:k-1], next[k-1], m)
	}
	fd, err := s.fs.openDir(w.dir)
	if err != nil {
		return true, ignoreSealed(err)
	}
	defer s.fs.releaseDir(w.dir)
	at := sys.At{Dirfd: fd, Name: name}
	redirect, err := s.open(at)
	last = w.last && !fromRoot(m) || m.Opaque || whiteout.HasFile(fd, name)
	switch {
	case err == unix.ENOENT:
		s.parts = redirectTo(next, name)
		return last, nil
	case err != nil || s.fd >= 0:
		return true, err
	case redirect == "":
		redirect = name
	}
	s.parts = redirectTo(next, redirect)
	return last && !strings.HasPrefix(redirect, "/"), nil
}

// open opens at, if it holds the data. It may be a metacopy itself, with a redirect or without.
//
// Errors: ENOENT where there is nothing; EIO where it is something else.
func (s *dataSearch) open(at sys.At) (redirect string, err error) {
	st, err := sys.Stat(at)
	if err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != s.size {
		return "", unix.EIO
	}
	names, err := sys.XattrNames(at)
	if err != nil {
		return "", err
	}
	redirect, meta, err := whiteout.ReadMetacopy(at, names)
	if err != nil || meta {
		return redirect, err
	}
	if whiteout.IsMetacopy(names) {
		return "", unix.EIO
	}
	fd, err := sys.OpenNoAtime(at, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	// What was looked at is what was opened: it may be somebody else's tree.
	if opened, err := sys.Stat(sys.Fd(fd)); err != nil || opened.Ino != st.Ino || opened.Dev != st.Dev {
		sys.Close(fd)
		return "", unix.EIO
	}
	s.fd = fd
	return "", nil
}
