package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/idmap"
)

// treeReader unpacks a tar. Every name is looked up below root, from which nothing leads out (openat2(2)).
type treeReader struct {
	root   int
	dir    string // where the tar goes, absolute below root
	links  bool   // symbolic links on the way to a name are followed: the container's own tree, not what the tar brings
	o      *copyRequest
	ids    idShift
	n      int64 // bytes of content
	parent int   // the last directory that was needed, and its name
	name   string
	dirs   []dirTime
}

// dirTime is a directory whose time is set when all is in it.
type dirTime struct {
	name string
	h    *tar.Header
}

// putTree unpacks a tar in the directory dir.
func putTree(r io.Reader, root int, dir string, o *copyRequest, ids idShift) error {
	t := &treeReader{root: root, dir: path.Clean("/" + dir), links: true, o: o, ids: ids, parent: -1}
	return t.run(r)
}

func (t *treeReader) run(r io.Reader) error {
	fd, err := openIn(t.root, t.dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return notThere(t.dir, err)
	}
	sys.Close(fd)
	defer func() { sys.Close(t.parent) }()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := t.entry(h, tr); err != nil {
			return err
		}
	}
	for i := len(t.dirs) - 1; i >= 0; i-- {
		d := t.dirs[i]
		if at, err := t.at(d.name); err == nil {
			_ = t.setTime(at, d.h) // it may be gone, and is no less copied
		}
	}
	// What is behind the end of the archive, so that who writes it does not get EPIPE.
	_, err = io.Copy(io.Discard, r)
	return err
}

// cleanName is an entry's name without what means nothing, empty for the directory itself.
func cleanName(name string) (string, error) {
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return "", fail(ErrInvalid, "tar entry %q leads out of the destination", name)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// at finds the directory of a name, and makes it where it is missing.
func (t *treeReader) at(name string) (sys.At, error) {
	where, base := path.Split(name)
	where = strings.TrimSuffix(where, "/")
	if t.parent >= 0 && t.name == where {
		return sys.At{Dirfd: t.parent, Name: base}, nil
	}
	fd, err := t.open(where, true)
	if err != nil {
		return sys.At{}, &os.PathError{Op: "open", Path: path.Join(t.dir, where), Err: err}
	}
	sys.Close(t.parent)
	t.parent, t.name = fd, where
	return sys.At{Dirfd: fd, Name: base}, nil
}

// open opens a directory of the destination by name.
func (t *treeReader) open(where string, create bool) (int, error) {
	fd, err := t.openOnce(where)
	if err != unix.ENOENT || !create || where == "" {
		return fd, err
	}
	up, base := path.Split(where)
	above, err := t.open(strings.TrimSuffix(up, "/"), true)
	if err != nil {
		return -1, err
	}
	defer sys.Close(above)
	if err := sys.Mkdir(sys.At{Dirfd: above, Name: base}, 0o755); err != nil && err != unix.EEXIST {
		return -1, err
	}
	_ = t.chown(sys.At{Dirfd: above, Name: base}, &tar.Header{}) // as far as it goes
	return t.openOnce(where)
}

func (t *treeReader) openOnce(where string) (int, error) {
	if t.links || where == "" {
		return openIn(t.root, path.Join(t.dir, where), unix.O_PATH|unix.O_DIRECTORY)
	}
	dir, err := openIn(t.root, t.dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer sys.Close(dir)
	return unix.Openat2(dir, where, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// entry unpacks one entry.
func (t *treeReader) entry(h *tar.Header, r io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		return nil // the destination is there, and stays as it is
	}
	at, err := t.at(name)
	if err != nil {
		return err
	}
	st, err := sys.Stat(at)
	there := err == nil
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	isDir := there && st.Mode&unix.S_IFMT == unix.S_IFDIR
	if h.Typeflag == tar.TypeDir {
		err = t.makeDir(at, name, h, there, isDir)
	} else {
		err = t.makeOther(at, name, h, r, there, isDir)
	}
	if err != nil {
		return fmt.Errorf("copy to %s: %w", path.Join(t.dir, name), err)
	}
	return nil
}

func (t *treeReader) makeDir(at sys.At, name string, h *tar.Header, there, isDir bool) error {
	if there && !isDir {
		if t.o.NoDirOver {
			return fail(ErrInvalid, "cannot overwrite non-directory with directory")
		}
		if err := sys.Unlink(at); err != nil {
			return err
		}
	}
	if !isDir {
		if err := sys.Mkdir(at, 0o700); err != nil {
			return err
		}
	}
	t.dirs = append(t.dirs, dirTime{name, h})
	return t.attributes(at, h)
}

func (t *treeReader) makeOther(at sys.At, name string, h *tar.Header, r io.Reader, there, isDir bool) error {
	if isDir {
		if t.o.NoDirOver {
			return fail(ErrInvalid, "cannot overwrite directory with non-directory")
		}
		if err := sys.RemoveAll(at); err != nil {
			return err
		}
		sys.Close(t.parent) // it may have been in what is gone
		t.parent = -1
		var err error
		if at, err = t.at(name); err != nil {
			return err
		}
	} else if there && h.Typeflag != tar.TypeReg {
		if err := sys.Unlink(at); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return t.makeFile(at, h, r, there && !isDir)
	case tar.TypeSymlink:
		if err := sys.Symlink(h.Linkname, at); err != nil {
			return err
		}
	case tar.TypeLink:
		return t.makeLink(at, h)
	case tar.TypeFifo:
		if err := sys.Mknod(at, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		if err := sys.Mknod(at, kind|0o600, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))); err != nil {
			return err
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fail(ErrInvalid, "tar entry of type %q", string(h.Typeflag))
	}
	return t.attributes(at, h)
}

// makeFile writes a file anew. One that something is mounted on is written to.
func (t *treeReader) makeFile(at sys.At, h *tar.Header, r io.Reader, there bool) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	if there {
		err := sys.Unlink(at)
		if err == unix.EBUSY {
			flags, err = unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW, nil
		}
		if err != nil {
			return err
		}
	}
	fd, err := sys.Open(at, flags, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), at.Name)
	n, err := io.Copy(f, r)
	t.n += n
	if err == nil {
		err = t.attributes(sys.Fd(fd), h)
	}
	return errors.Join(err, f.Close())
}

// makeLink makes a hard link to what the tar brought before.
func (t *treeReader) makeLink(at sys.At, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil || target == "" {
		return fail(ErrInvalid, "hard link to %q", h.Linkname)
	}
	dir, base := path.Split(target)
	fd, err := t.open(strings.TrimSuffix(dir, "/"), false)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.Link(sys.At{Dirfd: fd, Name: base}, at)
}

// attributes sets owner, attributes, mode and time, in that order: chown(2) drops set-id bits and capabilities.
func (t *treeReader) attributes(at sys.At, h *tar.Header) error {
	if err := t.chown(at, h); err != nil && t.o.Archive {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !copiedXattr(name) {
			continue
		}
		err := sys.Setxattr(at, name, []byte(value), 0)
		if err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := sys.Chmod(at, uint32(h.Mode)&0o7777); err != nil {
			return err
		}
	}
	return t.setTime(at, h)
}

func (t *treeReader) chown(at sys.At, h *tar.Header) error {
	var uid, gid uint32
	if t.o.Archive {
		uid, gid = uint32(h.Uid), uint32(h.Gid)
	}
	err := sys.Chown(at, int(outside(uid, t.ids.uids)), int(outside(gid, t.ids.gids)))
	if err == unix.EINVAL && identity().Kind == idmap.Single {
		// An owner that does not exist here: everything is root's where one ID is mapped, and so is this.
		return sys.Chown(at, int(outside(0, t.ids.uids)), int(outside(0, t.ids.gids)))
	}
	return err
}

func (t *treeReader) setTime(at sys.At, h *tar.Header) error {
	mtime := unix.NsecToTimespec(h.ModTime.UnixNano())
	atime := mtime
	if h.AccessTime.After(time.Unix(0, 0)) {
		atime = unix.NsecToTimespec(h.AccessTime.UnixNano())
	}
	return sys.Utimens(at, atime, mtime)
}
