package transport

import (
	"fmt"
	"io"
	"log"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/sysmon"
)

// maxBackground bounds the requests that the kernel sends without a process waiting for each: readahead and
// asynchronous direct IO. The kernel's own default of 12 starves a parallel read.
const maxBackground = 64

// Server answers the requests of one mount.
type Server struct {
	requests requests
	conn     connection
	carrier  carrier
	done     chan struct{}
}

// A carrier brings requests from the kernel to the filesystem and answers back.
type carrier interface {
	// serve answers requests until the mount is gone and the last one is answered; then it tells the filesystem, and
	// closes the descriptor.
	serve()

	// lost says that the mount is gone: requests that wait for something are to give up.
	lost()

	info() Info

	// What a Notifier does.
	blocking()
	invalInode(nodeid uint64, off, length int64) fuse.Status
	invalEntry(parent uint64, name string) fuse.Status
	delete(parent, child uint64, name string) fuse.Status
	store(nodeid uint64, off int64, data []byte) fuse.Status
}

// The values of Options.Transport.
const (
	Auto   = "auto"   // what works best here
	Loop   = "loop"   // our own reader of the device (loop.go)
	Uring  = "uring"  // FUSE over io_uring, and our own reader for the rest (uring.go); Loop where that is not to be had
	Gofuse = "gofuse" // go-fuse's
)

// Names are the values of Options.Transport.
var Names = []string{Auto, Loop, Uring, Gofuse}

// Info tells how the kernel is talked to.
type Info struct {
	Transport string // one of the values of Options.Transport, never Auto
	Minor     uint32 // of the kernel's FUSE protocol, 7.Minor
	Offered   uint64 // what the kernel can do: fuse.CAP_*
}

// Serve begins to answer with fs. It returns when the kernel's first request, INIT, is answered. A panic of fs in
// one request is an EIO for that request and a stack in the log. debug logs every request.
//
// gone is called once, within a second of the end of the mount and before fs is told. Requests may still be at work.
//
// Errors: the kernel's FUSE is too old, or the mount is gone already; the descriptor is closed.
func (m *Mount) Serve(fs fuse.RawFileSystem, logger *log.Logger, debug bool, gone func()) (*Server, error) {
	s := &Server{done: make(chan struct{})}
	s.requests.gone = sync.OnceFunc(gone)
	s.requests.RawFileSystem = fs
	if m.opts.AllowRoot {
		s.requests.guard = &guard{owner: uint32(unix.Geteuid())}
	}
	if err := s.conn.open(m.Fd); err != nil {
		_ = unix.Close(m.Fd) // nothing was read from it
		return nil, fmt.Errorf("fuse: %w", err)
	}
	c, err := newCarrier(m.Fd, &s.requests, &m.opts, m.opts.protocol(logger, debug, s.requests.panicked))
	if err != nil {
		s.conn.close()
		return nil, fmt.Errorf("fuse: %w", err)
	}
	s.carrier = c
	s.requests.n[opInit].Add(1)
	m.notifier.device.Store(&s.conn)
	m.notifier.attach(c)
	sysmon.Watch(s.done, func() uint64 {
		if s.Lost() {
			s.requests.gone()
			c.lost()
		}
		return s.requests.total()
	})
	go func() {
		defer close(s.done)
		defer s.conn.close()
		c.serve()
		m.notifier.detach()
	}()
	return s, nil
}

// newCarrier answers INIT on fd by the transport that o names. With an error fd is closed.
func newCarrier(fd int, fs *requests, o *Options, opts *fuse.MountOptions) (carrier, error) {
	switch o.Transport {
	case "", Auto:
		if uringEnabled() {
			return newUring(fd, fs, opts, false)
		}
		return newLoop(fd, fs, opts)
	case Loop:
		return newLoop(fd, fs, opts)
	case Gofuse:
		return newGofuse(fd, fs, opts)
	case Uring:
		return newUring(fd, fs, opts, true)
	}
	_ = unix.Close(fd) // nothing was read from it
	return nil, fmt.Errorf("no transport is called %q", o.Transport)
}

// protocol is what we agree on with the kernel.
func (o *Options) protocol(logger *log.Logger, debug bool, panicked func(method string)) *fuse.MountOptions {
	opts := &fuse.MountOptions{
		Name:                     Subtype,
		MaxWrite:                 o.maxWrite(),
		MaxBackground:            maxBackground,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		EnableAcl:                !o.NoACL,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO | fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 |
			fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_SETXATTR_EXT,
		// A pipe per request is not worth it for small reads, and most are small.
		DisableSplice:  true,
		SingleThreaded: o.SingleThreaded,
		Debug:          debug,
		Logger:         logger,
		PanicHandler:   panicHandler(logger, panicked),
	}
	if !o.Passthrough {
		opts.DisabledCapabilities |= fuse.CAP_PASSTHROUGH // filesystems that are stacked on us would see it
	}
	if o.Writeback {
		opts.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	return opts
}

// Info tells how the kernel is talked to.
func (s *Server) Info() Info { return s.carrier.info() }

// Lost tells whether the mount is gone now.
func (s *Server) Lost() bool { return s.conn.lost() }

// Done is closed when the mount is gone and the last request has been answered: nothing calls the filesystem after.
func (s *Server) Done() <-chan struct{} { return s.done }

// WriteRequests writes how many requests came, a line "OPCODE N" for each opcode that did.
func (s *Server) WriteRequests(w io.Writer) error { return s.requests.write(w) }

// Figures tells what has passed. timed says that requests are to be timed from now on; timedSince is the zero time where
// they are not.
func (s *Server) Figures(timed bool) (f figures.Requests, timedSince time.Time) {
	return s.requests.figures(timed)
}

// panicHandler logs a panic with the request it happened in and its stack, and counts it.
func panicHandler(logger *log.Logger, panicked func(method string)) func(any) fuse.Status {
	return func(v any) fuse.Status {
		stack := make([]byte, 64<<10)
		stack = stack[:goruntime.Stack(stack, false)]
		op := panicOp()
		logger.Printf("panic in %s: %v\n%s", op, v, stack)
		panicked(op)
		return fuse.EIO
	}
}

// panicOp names the request that the calling goroutine handles, by the method of requests that it is in.
func panicOp() string {
	pcs := make([]uintptr, 256)
	frames := goruntime.CallersFrames(pcs[:goruntime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if _, op, ok := strings.Cut(f.Function, "(*requests)."); ok {
			return strings.ToUpper(op)
		}
		if !more {
			return "a request"
		}
	}
}
