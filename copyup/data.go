package copyup

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	chunk      = 128 << 20 // bytes asked of one copy_file_range(2)
	bufferSize = 1 << 20   // bytes of one pread(2) and pwrite(2)
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// seekFrom is from what size on, in bytes, a file is looked at for what is allocated and never written.
const seekFrom = 1 << 20

// copyData makes the empty file dst the first size bytes of src, which has the attributes st, holes included. It
// returns the number of bytes written.
//
// Errors: those of writing; ErrLowerChanged where src ends early.
func (s *Stager) copyData(dst, src int, st *unix.Stat_t, size int64) (written int64, err error) {
	if size == 0 {
		return 0, nil
	}
	if size == st.Size && s.clone(dst, src, st.Dev) {
		return 0, nil
	}
	c := copier{dst: dst, src: src, inKernel: true}
	if size < seekFrom && st.Blocks*512 >= st.Size {
		err := c.copyRange(0, size) // no room for holes
		return c.written, err
	}
	filled := int64(0)
	for off := int64(0); off < size; {
		start, end := nextData(src, off, size)
		if err := c.copyRange(start, end); err != nil {
			return c.written, err
		}
		if start < end {
			filled = end
		}
		off = end
	}
	if filled < size {
		err = retry(func() error { return unix.Ftruncate(dst, size) })
	}
	return c.written, err
}

// clone makes dst share the blocks of src (ioctl_ficlone(2)), on device dev, and reports whether it could. A reason why
// not is of no interest: copying meets it again if it matters. Where no file of the device can, that is tried once.
func (s *Stager) clone(dst, src int, dev uint64) bool {
	if _, known := s.noClone.Load(dev); known {
		return false
	}
	err := retry(func() error { return unix.IoctlFileClone(dst, src) })
	switch err {
	case unix.EXDEV, unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS:
		s.noClone.Store(dev, true)
	}
	return err == nil
}

// nextData returns where from off on there is data in fd: from start to end, at most to size. What is before start
// is a hole. start is size where no data is left.
func nextData(fd int, off, size int64) (start, end int64) {
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO || err == nil && start >= size {
		return size, size
	}
	if err != nil {
		return off, size // the filesystem does not tell: all is data
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if err != nil || end <= start {
		end = size
	}
	return start, min(end, size)
}

// copier copies ranges of one file.
type copier struct {
	dst, src int
	inKernel bool  // copy_file_range works, as far as is known
	written  int64 // bytes
}

// copyRange copies the bytes from off to end.
func (c *copier) copyRange(off, end int64) error {
	for off < end {
		n, err := c.copySome(off, min(end-off, chunk))
		if err != nil {
			return err
		}
		off += n
		c.written += n
		if err := afterChunk.Hit(); err != nil {
			return err
		}
	}
	return nil
}

// copySome copies at least one and at most n bytes at off.
func (c *copier) copySome(off, n int64) (int64, error) {
	if c.inKernel {
		done, err := copyFileRange(c.dst, c.src, off, n)
		if done > 0 || err != nil {
			return done, err
		}
		c.inKernel = false
	}
	return c.readWrite(off, n)
}

// copyFileRange is copy_file_range(2). It returns 0 where it is of no use and the data must be read and written.
//
// That is EXDEV across filesystems, EOPNOTSUPP, ENOSYS and EINVAL where a filesystem cannot, EPERM and ETXTBSY of
// files that it refuses (swap), EIO from cifs, and 0 bytes from filesystems that make up their content as it is
// read. A true end of file or EIO is met again by reading.
func copyFileRange(dst, src int, off, n int64) (int64, error) {
	roff, woff, done := off, off, 0
	err := retry(func() (err error) {
		done, err = unix.CopyFileRange(src, &roff, dst, &woff, int(n), 0)
		return err
	})
	switch {
	case err == nil:
		return int64(done), nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EROFS):
		return 0, err
	}
	return 0, nil
}

// readWrite copies by way of a buffer.
func (c *copier) readWrite(off, n int64) (int64, error) {
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	buf := (*bp)[:min(n, bufferSize)]
	got := 0
	err := retry(func() (err error) {
		got, err = unix.Pread(c.src, buf, off)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read lower: %w", err)
	}
	if got == 0 {
		return 0, ErrLowerChanged
	}
	for done := 0; done < got; {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Pwrite(c.dst, buf[done:got], off+int64(done))
			return err
		})
		if err != nil {
			return 0, err
		}
		done += n
	}
	return int64(got), nil
}
