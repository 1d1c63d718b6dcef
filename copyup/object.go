package copyup

import (
	"errors"
	"fmt"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// sameObject reports whether st is the object that was looked up. Attributes may differ: they are the caller's.
func sameObject(st, looked *unix.Stat_t) bool {
	return st.Dev == looked.Dev && st.Ino == looked.Ino && st.Mode&unix.S_IFMT == looked.Mode&unix.S_IFMT
}

// open opens the source with flags, and makes sure that it is the object that was looked up.
//
// O_NONBLOCK: whatever was put in its place does not make us wait, as a fifo would.
func (src *Source) open(flags int) (int, unix.Stat_t, error) {
	var fd int
	var err error
	if flags&unix.O_PATH != 0 {
		fd, err = sys.Open(src.At, flags, 0)
	} else {
		fd, err = sys.OpenNoAtime(src.At, flags|unix.O_NONBLOCK)
	}
	// ELOOP, ENXIO: it is a symbolic link or a socket by now.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		err = ErrLowerChanged
	}
	if err != nil {
		return -1, unix.Stat_t{}, fmt.Errorf("open lower: %w", err)
	}
	st, err := sys.Stat(sys.Fd(fd))
	if err == nil && !sameObject(&st, &src.Stat) {
		err = ErrLowerChanged
	}
	if err != nil {
		sys.Close(fd)
		return -1, unix.Stat_t{}, fmt.Errorf("open lower: %w", err)
	}
	return fd, st, nil
}

func (s *Stager) regular(dst sys.At, src Source, m Meta, opt ObjectOptions) (Copy, error) {
	fd, err := sys.Open(dst, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, firstMode(m, 0o600))
	if err != nil {
		return Copy{}, fmt.Errorf("create: %w", err)
	}
	c, err := s.fillRegular(fd, src, m, opt)
	c.At, c.Fd = dst, fd
	if err != nil || !opt.KeepOpen {
		sys.Close(fd)
		c.Fd = -1
	}
	return c, err
}

// createAnonymous returns a descriptor for a new regular file without a name.
func (s *Stager) createAnonymous() (int, error) {
	fd, err := sys.Open(sys.At{Dirfd: s.o.Work, Name: "."}, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	// open(2), O_TMPFILE: EOPNOTSUPP is the filesystem that cannot, EISDIR and ENOENT the kernel that cannot.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		dst := s.Temp()
		if fd, err = sys.Open(dst, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err == nil {
			err = sys.Unlink(dst)
		}
	}
	if err != nil {
		sys.Close(fd)
		return -1, fmt.Errorf("create: %w", err)
	}
	return fd, nil
}

// fillRegular gives the new regular file open as fd everything it shall have.
//
// What is made of a fifo, socket or device is empty: it stands for one that cannot be made without privilege.
func (s *Stager) fillRegular(fd int, src Source, m Meta, opt ObjectOptions) (c Copy, err error) {
	if err := step("create", nil, afterCreate); err != nil {
		return c, err
	}
	flags := unix.O_RDONLY
	switch src.Stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFLNK:
		return c, fmt.Errorf("data of a directory or symbolic link: %w", unix.EINVAL)
	case unix.S_IFREG:
	default:
		opt.Limit = 0
	}
	if opt.Limit == 0 || src.Stat.Size == 0 || src.Data != nil {
		flags = unix.O_PATH // needs no right to read it
	}
	from, before, err := src.open(flags)
	if err != nil {
		return c, err
	}
	defer sys.Close(from)
	data := from
	if src.Data != nil && opt.Limit != 0 && before.Size != 0 {
		if data, err = src.openData(&before); err != nil {
			return c, err
		}
		defer sys.Close(data)
	} else if flags == unix.O_PATH && opt.Limit != 0 && before.Size != 0 {
		return c, fmt.Errorf("read lower: %w", ErrLowerChanged)
	}

	size := before.Size
	if opt.Limit >= 0 {
		size = min(size, opt.Limit)
	}
	as := before
	if data != from {
		if as, err = sys.Stat(sys.Fd(data)); err != nil {
			return c, fmt.Errorf("read lower: %w", err)
		}
	}
	c.Bytes, err = s.copyData(fd, data, &as, size)
	if err = step("write data", err, afterData); err != nil {
		return c, err
	}
	if err := unchanged(from, &before, true); err != nil {
		return c, err
	}
	if data != from {
		if err := unchanged(data, &before, false); err != nil {
			return c, err
		}
	}
	if c.Ino, err = setAttrs(sys.Fd(fd), sys.Fd(from), m, opt); err != nil {
		return c, err
	}
	// Only data needs to be waited for: metadata of the new inode is in the filesystem's journal before its
	// rename is, and reflinked data has been on disk all along (as in ovl_copy_up_file).
	if s.o.Sync && c.Bytes > 0 {
		err = retry(func() error { return unix.Fsync(fd) })
	}
	return c, step("sync", err, afterSync)
}

// openData opens the object that holds the data of the source, which has the attributes st.
func (src *Source) openData(st *unix.Stat_t) (int, error) {
	fd, err := sys.OpenNoAtime(*src.Data, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("open data of lower: %w", err)
	}
	if err := unchanged(fd, st, false); err != nil {
		sys.Close(fd)
		return -1, err
	}
	return fd, nil
}

// unchanged makes sure that the file open as fd was not written to since it had the attributes before; of one that only
// holds the data (not whole) these say the size.
func unchanged(fd int, before *unix.Stat_t, whole bool) error {
	after, err := sys.Stat(sys.Fd(fd))
	if err == nil && (after.Size != before.Size || whole && after.Mtim != before.Mtim) {
		err = ErrLowerChanged
	}
	if err != nil {
		return fmt.Errorf("read lower: %w", err)
	}
	return nil
}

func (s *Stager) dir(dst sys.At, src Source, m Meta, opt ObjectOptions) (c Copy, err error) {
	c.At, c.Fd = dst, -1
	if err := step("create", sys.Mkdir(dst, firstMode(m, 0o700)), afterCreate); err != nil {
		return c, err
	}
	from, _, err := src.open(unix.O_PATH)
	if err != nil {
		return c, err
	}
	defer sys.Close(from)
	c.Ino, err = setAttrs(dst, sys.Fd(from), m, opt)
	return c, err
}

func (s *Stager) symlink(dst sys.At, src Source, m Meta, opt ObjectOptions) (c Copy, err error) {
	c.At, c.Fd = dst, -1
	if src.Stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return c, fmt.Errorf("target of something that is no symbolic link: %w", unix.EINVAL)
	}
	from, _, err := src.open(unix.O_PATH)
	if err != nil {
		return c, err
	}
	defer sys.Close(from)
	target, err := sys.Readlink(sys.Fd(from))
	if err != nil {
		return c, fmt.Errorf("read lower: %w", err)
	}
	if err := step("create", sys.Symlink(target, dst), afterCreate); err != nil {
		return c, err
	}
	c.Ino, err = setAttrs(dst, sys.Fd(from), m, opt)
	return c, err
}

// special copies fifos, sockets and devices, and makes them of anything that stands for one.
//
// What stands for character device 0:0 is EPERM: the device itself would be a whiteout.
func (s *Stager) special(dst sys.At, src Source, m Meta, opt ObjectOptions) (c Copy, err error) {
	c.At, c.Fd = dst, -1
	if whiteout.IsDevice(m.Mode, m.Rdev) {
		return c, fmt.Errorf("create: character device 0:0 is a whiteout: %w", unix.EPERM)
	}
	if err := step("create", sys.Mknod(dst, m.Mode&unix.S_IFMT|0o600, m.Rdev), afterCreate); err != nil {
		return c, err
	}
	from, _, err := src.open(unix.O_PATH)
	if err != nil {
		return c, err
	}
	defer sys.Close(from)
	c.Ino, err = setAttrs(dst, sys.Fd(from), m, opt)
	return c, err
}
