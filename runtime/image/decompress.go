package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

// Compression is how a stream is compressed.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
)

// magics are the first bytes of compressed streams. Those that we cannot read are named in the error.
var magics = []struct {
	magic []byte
	name  string
	c     compression
}{
	{[]byte{0x1f, 0x8b, 0x08}, "gzip", gzipped},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, "zstd", zstandard},
	{[]byte("BZh"), "bzip2", -1},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0}, "xz", -1},
}

func detect(head []byte) (compression, error) {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			if m.c < 0 {
				return 0, fmt.Errorf("%s compression is not supported", m.name)
			}
			return m.c, nil
		}
	}
	// A skippable frame may come first (RFC 8878, 3.1.2).
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return zstandard, nil
	}
	return plain, nil
}

// Windows of zstd, in bytes. All but its "ultra" levels are content with the usual one; the largest is what zstd(1)
// takes without being asked to (--long). A load is to take less than 150 MB, so there is one of these at a time.
const (
	usualWindow = 8 << 20
	maxWindow   = 128 << 20
)

// windows bounds the memory of all zstd windows that are open at once: one that is large, or several of the usual.
var windows = semaphore.NewWeighted(maxWindow)

// decompress reads r, compressed or not. Closing it does not close r.
func decompress(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c, err := detect(head)
	if err != nil {
		return nil, err
	}
	switch c {
	case gzipped:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, unexpected(err)
		}
		return &named{z, z, "gzip"}, nil
	case zstandard:
		return newZstd(ctx, b, head)
	}
	return io.NopCloser(b), nil
}

func newZstd(ctx context.Context, r io.Reader, head []byte) (io.ReadCloser, error) {
	window := uint64(usualWindow) // for a frame that is not the first
	var h zstd.Header
	if h.Decode(head) == nil && !h.Skippable {
		window = max(window, h.WindowSize)
	}
	if window > maxWindow {
		return nil, fmt.Errorf("zstd: needs a window of %d bytes, more than %d", window, maxWindow)
	}
	share := int64(usualWindow)
	if window > usualWindow {
		share = maxWindow // alone
	}
	if err := windows.Acquire(ctx, share); err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		windows.Release(share)
		return nil, fmt.Errorf("zstd: %w", err)
	}
	n := &named{Reader: z, name: "zstd"}
	n.Closer = closer(func() {
		z.Close()
		if n.Reader, z = nil, nil; share == maxWindow {
			debug.FreeOSMemory() // before the next one of this size is made
		}
		windows.Release(share)
	})
	return n, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// named says in errors what was being decompressed.
type named struct {
	io.Reader
	io.Closer
	name string
}

func (n *named) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && err != io.EOF && !strings.HasPrefix(err.Error(), n.name) {
		err = fmt.Errorf("%s: %w", n.name, err)
	}
	return k, err
}

// unexpected is the error of a stream that ends where something must follow.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
