package image

import (
	"context"
	"io"
	"sync"
)

const (
	chunkSize   = 256 << 10 // bytes
	chunksAhead = 8         // of one layer: what is decompressed before somebody wants it
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

// newReadAhead reads what fill copies to its writer. fill's error is that of the stream.
func newReadAhead(ctx context.Context, fill func(ctx context.Context, w io.Writer) error) *readAhead {
	r := &readAhead{ready: make(chan *[]byte, chunksAhead), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.done)
		w := chunkWriter{r: r}
		err := fill(r.ctx, &w)
		if err == nil {
			err = w.flush()
		}
		if err == nil {
			err = io.EOF
		}
		r.err = err
		close(r.ready)
	}()
	return r
}

// Read implements io.Reader.
func (r *readAhead) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		r.recycle()
		select {
		case c, ok := <-r.ready:
			if !ok {
				r.ended = true
				return 0, r.err
			}
			r.chunk, r.rest = c, *c
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
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

type chunkWriter struct {
	r *readAhead
	c *[]byte
	n int
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		if w.c == nil {
			w.c, w.n = chunks.Get().(*[]byte), 0
		}
		k := copy((*w.c)[w.n:], p[done:])
		w.n += k
		done += k
		if w.n == chunkSize {
			if err := w.flush(); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

func (w *chunkWriter) flush() error {
	if w.c == nil {
		return nil
	}
	*w.c = (*w.c)[:w.n]
	select {
	case w.r.ready <- w.c:
		w.c = nil
		return nil
	case <-w.r.ctx.Done():
		return w.r.ctx.Err()
	}
}
