package image

import (
	"context"
	"io"
	"sync"

	"github.com/laminafs/lamina/runtime/layertar"
)

const (
	chunkSize   = 128 << 10 // bytes
	chunksAhead = 4         // of one layer: what is decompressed before somebody wants it
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}

// readAhead reads a stream in a goroutine of its own, a few chunks before they are wanted.
type readAhead struct {
	ctx    context.Context
	cancel context.CancelFunc
	ready  chan *[]byte // each as long as it is full
	err    error        // of the stream; set before ready is closed
	done   chan struct{}

	chunk *[]byte
	rest  []byte // of chunk
	ended bool   // err was returned
}

var _ layertar.Lender = (*readAhead)(nil)

// newReadAhead reads what fill gives, chunks of this package's pool. fill's error is that of the stream.
func newReadAhead(ctx context.Context, fill func(ctx context.Context, give func(*[]byte) error) error) *readAhead {
	r := &readAhead{ready: make(chan *[]byte, chunksAhead), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.done)
		err := fill(r.ctx, r.give)
		if err == nil {
			err = io.EOF
		}
		r.err = err
		close(r.ready)
	}()
	return r
}

// give hands a chunk over to who reads.
func (r *readAhead) give(c *[]byte) error {
	select {
	case r.ready <- c:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// copyChunks gives what in reads, in chunks that are full but for the last. also gets it too. n is in bytes.
func copyChunks(give func(*[]byte) error, in io.Reader, also io.Writer) (n int64, err error) {
	for err == nil {
		c := chunks.Get().(*[]byte)
		k := 0
		for k < chunkSize && err == nil { // not io.ReadFull, which says of a stream that ends that it is cut short
			var more int
			more, err = in.Read((*c)[k:])
			k += more
		}
		if k == 0 || err != nil && err != io.EOF {
			chunks.Put(c)
			break
		}
		*c = (*c)[:k]
		n += int64(k)
		if _, err := also.Write(*c); err != nil {
			return n, err
		}
		if err := give(c); err != nil {
			return n, err
		}
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// Read implements io.Reader.
func (r *readAhead) Read(p []byte) (int, error) {
	b, err := r.Lend(len(p))
	return copy(p, b), err
}

// Lend implements layertar.Lender.
func (r *readAhead) Lend(max int) ([]byte, error) {
	if len(r.rest) == 0 {
		r.recycle()
		select {
		case c, ok := <-r.ready:
			if !ok {
				r.ended = true
				return nil, r.err
			}
			r.chunk, r.rest = c, *c
		case <-r.ctx.Done():
			return nil, r.ctx.Err()
		}
	}
	b := r.rest[:min(max, len(r.rest))]
	r.rest = r.rest[len(b):]
	return b, nil
}

// failed is the error that Read ended with, nil where that was io.EOF or it has not ended.
func (r *readAhead) failed() error {
	if !r.ended || r.err == io.EOF {
		return nil
	}
	return r.err
}

func (r *readAhead) recycle() {
	if r.chunk != nil {
		*r.chunk = (*r.chunk)[:chunkSize]
		chunks.Put(r.chunk)
		r.chunk = nil
	}
}

// Close ends the goroutine and waits for it.
func (r *readAhead) Close() error {
	r.cancel()
	<-r.done
	return nil
}
