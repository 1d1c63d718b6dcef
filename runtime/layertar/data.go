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
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

var zeros [holeSize]byte

// limited reads from r until the context ends or more than left bytes come.
type limited struct {
	ctx  context.Context
	r    io.Reader
	left int64
	rec  recording
}

func (l *limited) Read(p []byte) (int, error) {
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

// writeData writes an entry's data to the new file fd. What has holes in the tar gets holes on disk, and so does a long
// run of zeros in any other file: the tar of a commit has no holes, and a disk image of a terabyte would not fit.
func writeData(fd int, r io.Reader, h *tar.Header, rec *recording) error {
	if h.Size == 0 {
		return nil
	}
	rec.inData = true
	defer func() { rec.inData = false }()
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	sparse := isSparse(h)
	holes := sparse
	off := int64(0)
	for {
		n, err := io.ReadFull(r, *bp)
		if err != nil && err != io.EOF && !(errors.Is(err, io.ErrUnexpectedEOF) && off+int64(n) == h.Size) {
			return fmt.Errorf("read data: %w", err)
		}
		rec.data((*bp)[:n])
		write := pwrite
		switch {
		case sparse:
			write = pwriteSparse
		case n == bufferSize && allZero(*bp):
			write, holes = pwriteNothing, true
		}
		if werr := write(fd, (*bp)[:n], off); werr != nil {
			return fmt.Errorf("write data: %w", werr)
		}
		off += int64(n)
		if err != nil {
			break
		}
	}
	if off != h.Size {
		return fmt.Errorf("read data: %d bytes of %d: %w", off, h.Size, io.ErrUnexpectedEOF)
	}
	if holes {
		return ftruncate(fd, h.Size)
	}
	return nil
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

// allZero looks at buf, whose length is a multiple of holeSize; a file that is none stops it at its first block.
func allZero(buf []byte) bool {
	for ; len(buf) > 0; buf = buf[holeSize:] {
		if !isHole(buf[:holeSize]) {
			return false
		}
	}
	return true
}

// pwriteNothing leaves a hole.
func pwriteNothing(int, []byte, int64) error { return nil }

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
