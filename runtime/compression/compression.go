// Package compression reads streams that may be compressed, by whatever of gzip, bzip2, xz and zstd: what Docker takes
// wherever it takes a tar.
//
// The streams are hostile: none makes us take more memory than Window bytes, all that are read at once taken together.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
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

// A Kind is how a stream is compressed.
type Kind int

const (
	Plain Kind = iota
	Gzip
	Bzip2
	XZ
	Zstd
)

// HeadSize is how many bytes tell the kind of a stream.
const HeadSize = zstd.HeaderMaxSize

// Detect tells the kind of a stream by its first HeadSize bytes, or all it has.
//
// Source: RFC 1952, 2.3.1; RFC 8878, 3.1.1 and 3.1.2; the .xz file format, 2.1.1.1; of bzip2 there is its source alone.
func Detect(head []byte) Kind {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd // a frame that is to be skipped comes first
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return XZ
	case isBzip2(head):
		return Bzip2
	}
	return Plain
}

// isBzip2 looks at the first block too, or at the end of a stream without any: the name of a tar's first file may begin with
// "BZh9".
func isBzip2(head []byte) bool {
	const block, end = "\x31\x41\x59\x26\x53\x59", "\x17\x72\x45\x38\x50\x90"
	return len(head) >= 10 && string(head[:3]) == "BZh" && '1' <= head[3] && head[3] <= '9' &&
		(string(head[4:10]) == block || string(head[4:10]) == end)
}

// Window is the most memory in bytes that what was read before is kept in, for all streams together: a load is to take less
// than 150 MB.
const Window = 128 << 20

// windows bounds it: one stream with a large window is read at a time, or several of the usual size.
var windows = semaphore.NewWeighted(Window)

// Open reads r, compressed or not. It waits until there is memory; closing gives it back, and does not close r.
//
// Errors name the compression.
func Open(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(HeadSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch Detect(head) {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err == io.EOF { // where something must follow
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, name("gzip", err)
		}
		return &named{z, closer(func() {}), "gzip"}, nil
	case Bzip2:
		return &named{bzip2.NewReader(b), closer(func() {}), "bzip2"}, nil
	case XZ:
		return openXZ(ctx, b)
	case Zstd:
		return openZstd(ctx, b, head)
	}
	return io.NopCloser(b), nil
}

// hold takes a share of the windows. let gives it back; one that is all of it is the machine's again by then.
func hold(ctx context.Context, share int64) (let func(), err error) {
	if err := windows.Acquire(ctx, share); err != nil {
		return nil, err
	}
	return func() {
		if share == Window {
			debug.FreeOSMemory() // before the next one of this size is made
		}
		windows.Release(share)
	}, nil
}

// named says in errors what was being decompressed.
type named struct {
	io.Reader
	io.Closer
	name string
}

func (n *named) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = name(n.name, err)
	}
	return k, err
}

func name(compression string, err error) error {
	if strings.HasPrefix(err.Error(), compression) {
		return err
	}
	return fmt.Errorf("%s: %w", compression, err)
}

// A closer never fails: what was wrong with the stream, Read has told.
type closer func()

func (c closer) Close() error { c(); return nil }
