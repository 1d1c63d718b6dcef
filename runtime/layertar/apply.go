package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Apply unpacks an uncompressed layer into dir, an empty directory, and reads layer to its end, what follows the
// archive included. size is the sum of the sizes of the regular files, in bytes; a file with several names counts once.
//
// Whiteouts stay the files they are in the tar. A later entry replaces an earlier one of the same name, whatever their
// types, except that a directory keeps what is in it.
//
// layer may be a Lender.
//
// Errors: *EntryError, which names the entry and wraps ErrInvalid, ErrTooLarge or the system's error; ErrTooLarge, those
// of archive/tar and of layer itself; the context's. What was unpacked until then is the caller's to remove.
func Apply(ctx context.Context, dir *os.File, layer io.Reader, o Options) (size int64, err error) {
	o = o.fill()
	lender, ok := layer.(Lender)
	if !ok {
		lender = &borrowing{Reader: layer}
	}
	in := &limited{ctx: ctx, r: lender, left: o.MaxSize, rec: recording{to: o.Record}}
	u := &unpacker{o: o, in: in, tar: tar.NewReader(in), euid: uint32(os.Geteuid()), egid: uint32(os.Getegid())}
	if err := u.openRoot(dir); err != nil {
		return 0, fmt.Errorf("unpack layer: %w", err)
	}
	defer u.closeAll()
	if err := u.all(); err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, in)
	if err == nil {
		err = in.rec.flush()
	}
	if err != nil {
		return 0, fmt.Errorf("unpack layer: %w", err)
	}
	return u.size, nil
}

// unpacker is one run of Apply.
type unpacker struct {
	o          Options
	in         *limited
	tar        *tar.Reader // reads in
	lowers     *union      // nil before they are needed
	euid, egid uint32

	stack []frame // the directories from the root to the one that the current entry is in
	entry string  // the current entry's name

	seen newborn

	size      int64
	overrides bool // something is in an override attribute
	rootEntry bool // the root directory has an entry

	// defaultACLs is set once some directory has a default ACL. What is made in such a directory inherits from it,
	// which no entry asked for: it is taken off while the directory is open.
	defaultACLs bool
}

func (u *unpacker) warn(err error) { u.o.Warn(u.entry, err) }

// all unpacks the entries, and completes the directories.
func (u *unpacker) all() error {
	for n := int64(0); ; n++ {
		h, err := u.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // split tells more
			if n == 0 {
				return fmt.Errorf("unpack layer: first entry: %w", err)
			}
			return fmt.Errorf("unpack layer: after entry %s: %w", quote(u.entry), err)
		}
		if n >= u.o.MaxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, u.o.MaxEntries)
		}
		if err := u.in.rec.flush(); err != nil {
			return err
		}
		// A global header says nothing that archive/tar would apply; git-archive(1) keeps a comment there.
		if h.Typeflag != tar.TypeXGlobalHeader {
			u.entry = h.Name
			if err := u.unpack(h); err != nil {
				return &EntryError{h.Name, err}
			}
		}
		if err := u.in.rec.file(h.Name); err != nil {
			return err
		}
	}
	if err := u.leaveTo(0); err != nil {
		return &EntryError{u.entry, err}
	}
	if err := u.finishRoot(); err != nil {
		return fmt.Errorf("unpack layer: root directory: %w", err)
	}
	return nil
}

// unpack makes what one entry says.
func (u *unpacker) unpack(h *tar.Header) error {
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	for i, p := range parts {
		if isMark(p) && (i < len(parts)-1 || !markType(h.Typeflag)) {
			return invalid("%q is a whiteout, and so a regular file", p)
		}
	}
	if len(parts) == 0 {
		return u.root(h)
	}
	parent, name := parts[:len(parts)-1], parts[len(parts)-1]
	if h.Typeflag == tar.TypeLink {
		return u.hardlink(parent, name, h.Linkname)
	}
	m, err := metaOf(h)
	if err != nil {
		return err
	}
	if err := u.enter(parent); err != nil {
		return err
	}
	at := sys.At{Dirfd: u.top().fd, Name: name}
	switch m.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return u.directory(at, &m)
	case unix.S_IFREG:
		return u.regular(at, h, &m)
	case unix.S_IFLNK:
		return u.symlink(at, h.Linkname, &m)
	default:
		return u.special(at, &m)
	}
}

// markType reports whether a whiteout may be of the type. AUFS makes all of them links to one file.
func markType(flag byte) bool { return types[flag] == unix.S_IFREG || flag == tar.TypeLink }

// root gives the layer's root directory what its entry says.
func (u *unpacker) root(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return invalid("the layer's root is a directory")
	}
	m, err := metaOf(h)
	if err != nil {
		return err
	}
	if err := u.leaveTo(0); err != nil {
		return err
	}
	u.rootEntry = true
	if err := clearXattrs(sys.Fd(u.top().fd)); err != nil {
		return err
	}
	return u.describe(&m)
}

// directory makes the directory, or takes the one that is there, and makes it the top of the stack: the entries that
// follow are likely to be in it.
func (u *unpacker) directory(at sys.At, m *meta) error {
	born := u.born(m) && m.mode&rwx == rwx
	perm := uint32(rwx)
	if born {
		perm = m.mode & 0o777
	}
	err := sys.Mkdir(at, perm)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if st, err = sys.Stat(at); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return u.sameDirectory(at, m)
		}
		if err = sys.Unlink(at); err == nil {
			err = sys.Mkdir(at, perm)
		}
	}
	if err != nil {
		return err
	}
	if born {
		if done, err := u.pushBorn(at, m); done || err != nil {
			return err
		}
	}
	if err := u.push(at.Name); err != nil {
		return err
	}
	return u.describe(m)
}

// sameDirectory gives a directory that is there what a further entry says of it.
func (u *unpacker) sameDirectory(at sys.At, m *meta) error {
	if err := u.push(at.Name); err != nil {
		return err
	}
	if err := clearXattrs(sys.Fd(u.top().fd)); err != nil {
		return err
	}
	return u.describe(m)
}

// regular makes a regular file.
func (u *unpacker) regular(at sys.At, h *tar.Header, m *meta) error {
	if h.Size > u.o.MaxSize-u.size {
		return fmt.Errorf("%w: with this file of %d bytes it has more than %d", ErrTooLarge, h.Size, u.o.MaxSize)
	}
	u.size += h.Size
	born := u.born(m) && !isMark(at.Name)
	perm := uint32(0o600)
	if born {
		perm = m.mode & 0o777
	}
	fd := -1
	err := u.replace(at, func() (err error) {
		fd, err = sys.Open(at, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
		return err
	})
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := u.writeData(fd, h); err != nil {
		return err
	}
	if born {
		if born, err = u.asBorn(fd, m); err != nil {
			return err
		}
		if born {
			return setTimes(at, m)
		}
		if err := sys.Chmod(sys.Fd(fd), 0o600); err != nil { // that an attribute can be set
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return u.dress(at, m)
}

func (u *unpacker) symlink(at sys.At, target string, m *meta) error {
	if err := u.replace(at, func() error { return sys.Symlink(target, at) }); err != nil {
		return err
	}
	if u.seen.owned && u.ours(m) && len(m.xattrs) == 0 {
		return setTimes(at, m)
	}
	return u.dress(at, m)
}

// special makes a fifo or a device, or where that is not possible, a file that stands in for it.
func (u *unpacker) special(at sys.At, m *meta) error {
	if u.o.Owners == Real {
		err := u.replace(at, func() error { return sys.Mknod(at, m.mode&unix.S_IFMT|0o600, m.rdev) })
		if err == nil {
			err = sys.Chown(at, int(m.uid), int(m.gid)) // it bears no user attribute: all of it must be possible
		}
		if err == nil {
			return u.complete(at, m, m.mode)
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	err := u.replace(at, func() error { return sys.Mknod(at, unix.S_IFREG|0o600, 0) })
	if err != nil {
		return err
	}
	if err := u.setOverride(at, m); err != nil {
		return err
	}
	return u.complete(at, m, m.standIn())
}

// hardlink gives an object of this layer a further name.
func (u *unpacker) hardlink(parent []string, name, target string) error {
	from, err := split(target)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	source, self, err := u.linkSource(from, append(parent[:len(parent):len(parent)], name))
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	defer sys.Close(source)
	if self {
		return nil
	}
	if err := u.enter(parent); err != nil {
		return err
	}
	to := sys.At{Dirfd: u.top().fd, Name: name}
	if err := u.replace(to, func() error { return sys.Link(sys.Fd(source), to) }); err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(target), err)
	}
	return nil
}

// linkSource opens, as O_PATH, the object that a hard link leads to. self says that it is the link itself.
func (u *unpacker) linkSource(from, to []string) (fd int, self bool, err error) {
	if len(from) == 0 {
		return -1, false, invalid("is the layer's root")
	}
	if err := u.walk(from[:len(from)-1]); err != nil {
		return -1, false, err
	}
	name := from[len(from)-1]
	fd, err = sys.Open(sys.At{Dirfd: u.top().fd, Name: name}, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, false, invalid("the layer has no such entry before this one")
	}
	if err != nil {
		return -1, false, err
	}
	st, err := sys.Stat(sys.Fd(fd))
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = invalid("is a directory")
	}
	if err != nil {
		sys.Close(fd)
		return -1, false, err
	}
	return fd, slices.Equal(from, to), nil
}

// replace calls make, which makes the object at; where there is one already, that is removed first.
func (u *unpacker) replace(at sys.At, make func() error) error {
	err := make()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := sys.RemoveAll(at); err != nil {
		return fmt.Errorf("remove what an earlier entry made: %w", err)
	}
	return make()
}

// dress gives a new object that is no directory its owner, attributes, mode and times, in that order: chown(2) drops
// set-id bits and capabilities, and a user attribute can be set only while the owner may write.
func (u *unpacker) dress(at sys.At, m *meta) error {
	if isMark(at.Name) {
		// Whose a mark is has no meaning; that it can be opened and removed by whoever keeps the layer has.
		return u.complete(at, &meta{mode: unix.S_IFREG | 0o644, atime: m.atime, mtime: m.mtime}, unix.S_IFREG|0o644)
	}
	mode, err := u.setOwner(at, m)
	if err != nil {
		return err
	}
	return u.complete(at, m, mode)
}

func (u *unpacker) complete(at sys.At, m *meta, mode uint32) error {
	if err := u.setXattrs(at, m); err != nil {
		return err
	}
	if mode&unix.S_IFMT != unix.S_IFLNK {
		if err := sys.Chmod(at, mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return setTimes(at, m)
}

func setTimes(at sys.At, m *meta) error {
	if err := sys.Utimens(at, m.atime, m.mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// finishRoot completes the root: where anything is in an override attribute, the root has one.
func (u *unpacker) finishRoot() error {
	f := u.top()
	at := sys.Fd(f.fd)
	if !u.rootEntry && u.o.Root != nil {
		if err := u.o.Root(f.fd); err != nil {
			return err
		}
		st, err := sys.Stat(at)
		if err != nil {
			return err
		}
		*f = frameOf(f.name, f.fd, &st)
	}
	if u.o.Owners == Xattr || u.overrides {
		if _, err := sys.Getxattr(at, override.Containers, nil); errors.Is(err, unix.ENODATA) {
			st, err := sys.Stat(at)
			if err != nil {
				return err
			}
			m := meta{mode: st.Mode, uid: st.Uid, gid: st.Gid}
			if u.o.Owners == Xattr {
				m = meta{mode: unix.S_IFDIR | 0o755}
			}
			if err := u.setOverride(at, &m); err != nil {
				return err
			}
		}
	}
	return u.settle(f, at)
}
