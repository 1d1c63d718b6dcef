package transport

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
)

// counts is what has passed. While nobody wants requests to be timed, one costs an addition.
type counts struct {
	n             [opCount]atomic.Uint64
	errors        [opCount][errnos]atomic.Uint64
	read, written atomic.Uint64          // bytes
	timing        atomic.Pointer[timing] // nil while nobody wants to know
}

// errnos bounds the errnos that are told apart: those of Linux are below, and all others are counted as 0.
const errnos = 134

// timing is how long requests took.
type timing struct {
	since    time.Time
	inFlight atomic.Int64
	ops      [opCount]histogram
}

type histogram struct {
	buckets     [len(figures.Bounds) + 1]atomic.Uint64
	nanoseconds atomic.Uint64
}

// span is a request from begin to end.
type span struct {
	op       kind
	inFlight bool          // timing knows of it
	start    time.Duration // since epoch; 0 where it is not timed
}

// Reading the clock twice costs more than a request that is answered from memory should be charged. So of a kind that
// comes often, one in timedOneIn is timed once there were timedFirst.
const (
	timedFirst = 1 << 10
	timedOneIn = 4
)

// epoch is from where the monotonic clock is read: time.Since reads that one alone.
var epoch = time.Now()

// begin counts a request. A FORGET is not timed: millions come at once, none of which does anything but count.
func (c *counts) begin(op kind) span {
	n := c.n[op].Add(1)
	if t := c.timing.Load(); t != nil && op != opForget {
		return t.begin(op, n)
	}
	return span{op: op}
}

// end counts how it ended, and returns its status.
func (c *counts) end(s span, status fuse.Status) fuse.Status {
	if s.inFlight || status != fuse.OK {
		c.ended(s, status)
	}
	return status
}

func (c *counts) ended(s span, status fuse.Status) {
	if status != fuse.OK {
		c.failed(s.op, status)
	}
	if s.inFlight {
		c.timing.Load().end(s)
	}
}

func (c *counts) failed(op kind, status fuse.Status) {
	if status < 0 || status >= errnos {
		status = 0
	}
	c.errors[op][status].Add(1)
}

// panicked ends a request whose method, in capitals, did not return: the loop answers EIO. How long it took is not told.
func (c *counts) panicked(method string) {
	for op, name := range opNames {
		if strings.ReplaceAll(name, "_", "") == method {
			c.failed(kind(op), fuse.EIO)
			if t := c.timing.Load(); t != nil {
				t.inFlight.Add(-1)
			}
		}
	}
}

// time makes requests be timed from now on.
func (c *counts) time() *timing {
	if t := c.timing.Load(); t != nil {
		return t
	}
	c.timing.CompareAndSwap(nil, &timing{since: time.Now()})
	return c.timing.Load()
}

// begin begins the nth request of the kind.
func (t *timing) begin(op kind, n uint64) span {
	t.inFlight.Add(1)
	s := span{op: op, inFlight: true}
	if n <= timedFirst || n%timedOneIn == 0 {
		s.start = time.Since(epoch)
	}
	return s
}

func (t *timing) end(s span) {
	t.inFlight.Add(-1)
	if s.start == 0 {
		return
	}
	took := time.Since(epoch) - s.start
	h := &t.ops[s.op]
	h.buckets[bucket(took)].Add(1)
	h.nanoseconds.Add(uint64(took))
}

// bucket is the one that a duration falls into. Most requests are in one of the first.
func bucket(d time.Duration) int {
	for i, bound := range figures.Bounds {
		if d <= bound {
			return i
		}
	}
	return len(figures.Bounds)
}

// figures are the counts as they are. timed says that requests are to be timed from now on.
func (c *counts) figures(timed bool) (f figures.Requests, timedSince time.Time) {
	t := c.timing.Load()
	if timed {
		t = c.time()
	}
	f = figures.Requests{ReadBytes: c.read.Load(), WrittenBytes: c.written.Load()}
	for op := range opCount {
		// Requests go on: the count of all is read last, so that no part of it is more.
		o := figures.Opcode{Name: opNames[op], Errors: c.errorsOf(op)}
		f.Interrupted += o.Errors["EINTR"]
		if t != nil {
			o.Latency = t.ops[op].figures()
		}
		if o.Count = c.n[op].Load(); o.Count > 0 {
			f.Opcodes = append(f.Opcodes, o)
		}
	}
	if t != nil {
		timedSince = t.since
		f.InFlight = max(t.inFlight.Load(), 0)
	}
	return f, timedSince
}

func (c *counts) errorsOf(op kind) map[string]uint64 {
	var errors map[string]uint64
	for errno := range c.errors[op] {
		n := c.errors[op][errno].Load()
		if n == 0 {
			continue
		}
		if errors == nil {
			errors = map[string]uint64{}
		}
		name := unix.ErrnoName(unix.Errno(errno))
		if name == "" {
			name = "other"
		}
		errors[name] += n
	}
	return errors
}

// figures are nil where nothing was timed.
func (h *histogram) figures() *figures.Histogram {
	f := &figures.Histogram{Seconds: time.Duration(h.nanoseconds.Load()).Seconds()}
	var n uint64
	for i := range h.buckets {
		f.Buckets[i] = h.buckets[i].Load()
		n += f.Buckets[i]
	}
	if n == 0 {
		return nil
	}
	return f
}

func (c *counts) write(w io.Writer) error {
	for op := range c.n {
		if n := c.n[op].Load(); n > 0 {
			if _, err := fmt.Fprintf(w, "%s %d\n", opNames[op], n); err != nil {
				return err
			}
		}
	}
	return nil
}

// total is how many requests came.
func (c *counts) total() uint64 {
	var sum uint64
	for op := range c.n {
		sum += c.n[op].Load()
	}
	return sum
}
