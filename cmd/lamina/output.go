package main

import (
	"io"
	"os"
	"sync"
)

// output is standard output. It remembers that something could not be written: what writes tables does not say so, and
// nor does a container, whose output is copied behind its back.
type output struct {
	*os.File

	mu  sync.Mutex
	err error // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	o.note(err)
	return n, err
}

func (o *output) WriteString(s string) (int, error) { return o.Write([]byte(s)) }

// ReadFrom keeps io.Copy from the file's own, which would go past Write.
func (o *output) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{o}, r) }

func (o *output) note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

// failed is why something is missing, nil where nothing is.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// screen is where progress is shown.
type screen interface {
	io.Writer
	Fd() uintptr
}

var (
	_ screen = (*output)(nil)
	_ screen = (*os.File)(nil)
)
