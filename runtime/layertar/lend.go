package layertar

import (
	"fmt"
	"io"
)

// Lender is a reader that has data in memory already. Apply writes files from there, and copies nothing.
type Lender interface {
	io.Reader

	// Lend returns the next 1 to max bytes, which count as read. They are valid until the next call of Lend or Read.
	// Errors: as Read, and never together with data.
	Lend(max int) ([]byte, error)
}

// borrowing is a Lender of what another reader reads.
type borrowing struct {
	io.Reader
	buf []byte // nil before it is needed
}

func (b *borrowing) Lend(max int) ([]byte, error) {
	if b.buf == nil {
		b.buf = make([]byte, bufferSize)
	}
	n, err := io.ReadAtLeast(b.Reader, b.buf[:min(max, bufferSize)], min(max, bufferSize))
	if n > 0 {
		return b.buf[:n], nil
	}
	return nil, err
}

// lend returns the next 1 to max bytes of the tar, data of the entry whose header was read last. The tar's reader, which
// reads headers and no byte more, is not told: it reads the same number of bytes again to skip them, see Read.
func (l *limited) lend(max int64) ([]byte, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, err
	}
	p, err := l.r.Lend(int(min(max, bufferSize, l.left+1)))
	if l.left -= int64(len(p)); l.left < 0 {
		return nil, fmt.Errorf("%w: the tar does not end where it may at most", ErrTooLarge)
	}
	l.lent += int64(len(p))
	return p, err
}
