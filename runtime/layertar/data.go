package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 256 << 10 // bytes of one read and write
	holeSize   = 4 << 10   // bytes: the smallest hole that filesystems keep
	longRun    = 64 << 10  // bytes: zeros that become a hole though the tar has none
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

var zeros [holeSize]byte

// limited reads from r until the context ends or more than left bytes come.
type limited struct {
	ctx  context.Context
	r    Lender
	left int64
	rec  recording
	lent int64 // bytes that lend gave and Read has not skipped yet
}

func (l *limited) Read(p []byte) (int, error) {
	if l.lent > 0 {
		n := min(int64(len(p)), l.lent)
		l.lent -= n
		return int(n), nil // nobody looks at them
	}
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1] // one more, to tell the end from the limit
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("%w: the tar does not end where it may at most", ErrTooLarge)
	}
	if rerr := l.rec.read(p[:n]); rerr != nil {
		return n, rerr
	}
	return n, err
}

// isSparse reports whether the entry says that it has holes. archive/tar reads all forms of the map (old GNU; PAX 0.0,
// 0.1 and 1.0) and gives holes as zeros.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// writeData writes the data of the current entry to the new file fd. What has holes in the tar gets holes on disk, and so
// does a long run of zeros in any other file: the tar of a commit has no holes, and a disk image of a terabyte would not
// fit.
func (u *unpacker) writeData(fd int, h *tar.Header) error {
	if h.Size == 0 {
		return nil
	}
	if isSparse(h) {
		return u.writeSparse(fd, h)
	}
	holes := false
	for off := int64(0); off < h.Size; {
		p, err := u.in.lend(h.Size - off)
		if err != nil {
			return fmt.Errorf("read data: %w", unexpected(err))
		}
		u.in.rec.data(p)
		if len(p) >= longRun && allZero(p) {
			holes = true
		} else if err := pwrite(fd, p, off); err != nil {
			return fmt.Errorf("write data: %w", err)
		}
		off += int64(len(p))
	}
	if holes {
		return ftruncate(fd, h.Size)
	}
	return nil
}

// writeSparse does the same for a file that has holes in the tar.
func (u *unpacker) writeSparse(fd int, h *tar.Header) error {
	u.in.rec.inData = true
	defer func() { u.in.rec.inData = false }()
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	off := int64(0)
	for {
		// Of the whole buffer: only who reads on is told of data that the map says nothing of.
		n, err := io.ReadFull(u.tar, *bp)
		if err != nil && err != io.EOF && !(errors.Is(err, io.ErrUnexpectedEOF) && off+int64(n) == h.Size) {
			return fmt.Errorf("read data: %w", err)
		}
		u.in.rec.data((*bp)[:n])
		if err := pwriteSparse(fd, (*bp)[:n], off); err != nil {
			return fmt.Errorf("write data: %w", err)
		}
		off += int64(n)
		if err != nil {
			break
		}
	}
	if off != h.Size {
		return fmt.Errorf("read data: %d bytes of %d: %w", off, h.Size, io.ErrUnexpectedEOF)
	}
	return ftruncate(fd, h.Size)
}

// unexpected is the error of a stream that ends where more must follow.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pwriteSparse writes those blocks of buf that are not all zeros.
func pwriteSparse(fd int, buf []byte, off int64) error {
	for start := 0; start < len(buf); {
		end := start
		for end < len(buf) && !isHole(buf[end:min(end+holeSize, len(buf))]) {
			end = min(end+holeSize, len(buf))
		}
		if err := pwrite(fd, buf[start:end], off+int64(start)); err != nil {
			return err
		}
		start = min(end+holeSize, len(buf)) // the block at end is a hole, or there is none
	}
	return nil
}

// allZero reports whether buf is zeros; data that is not stops it at its first block.
func allZero(buf []byte) bool {
	for len(buf) > 0 {
		n := min(len(buf), holeSize)
		if !isHole(buf[:n]) {
			return false
		}
		buf = buf[n:]
	}
	return true
}

func isHole(block []byte) bool { return bytes.Equal(block, zeros[:len(block)]) }

func pwrite(fd int, buf []byte, off int64) error {
	for len(buf) > 0 {
		n, err := unix.Pwrite(fd, buf, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		buf, off = buf[n:], off+int64(n)
	}
	return nil
}

func ftruncate(fd int, size int64) error {
	for {
		if err := unix.Ftruncate(fd, size); err != unix.EINTR {
			return err
		}
	}
}
