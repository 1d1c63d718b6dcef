package transport

import (
	"log"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

// A dispatcher takes a request that somebody has read to the filesystem, and the answer back. It serves any number of
// workers at the same time, on any transport.
//
// What comes often is decoded here and allocates nothing (operation.go). All else, all requests with extensions, and
// everything while requests are logged, goes through go-fuse's ProtocolServer.
type dispatcher struct {
	fs     fuse.RawFileSystem
	server *fuse.ProtocolServer
	opts   *fuse.MountOptions
	log    *log.Logger
	one    sync.Mutex // held while a request is handled, where it is to be one at a time

	dead  atomic.Bool // the connection is gone
	early earlyInterrupts

	mu      sync.RWMutex
	workers map[*worker]struct{} // guarded by mu
}

func newDispatcher(fs fuse.RawFileSystem, opts *fuse.MountOptions) *dispatcher {
	return &dispatcher{
		fs: fs, server: fuse.NewProtocolServer(fs, opts), opts: opts, log: opts.Logger, workers: map[*worker]struct{}{},
	}
}

// A worker handles one request after the other. It belongs to one goroutine.
type worker struct {
	d *dispatcher

	in   []byte // struct fuse_in_header and the opcode's structure
	data []byte // what follows them
	out  []byte // for the answer
	n    int    // bytes of it

	inFlight // what others may look at

	names   []byte // room for names (worker.name)
	dirents fuse.DirEntryList
	vector  [1][]byte
	header  [outHeaderSize]byte
}

// worker makes a worker, which is to be dropped when it has handled its last request.
func (d *dispatcher) worker() *worker {
	w := &worker{d: d}
	w.cancel = make(chan struct{})
	d.mu.Lock()
	d.workers[w] = struct{}{}
	d.mu.Unlock()
	return w
}

func (d *dispatcher) drop(w *worker) {
	d.mu.Lock()
	delete(d.workers, w)
	d.mu.Unlock()
}

// handle hands a request to the filesystem. in is struct fuse_in_header with the structure of the opcode behind it
// (inSize), data is what follows: names, or what is to be written. In a message of the device they lie behind each
// other; they need not. The answer without struct fuse_out_header is put into out.
//
// n is how many bytes of out are the answer, 0 unless status is OK. Without reply the kernel waits for no answer.
//
// Preconditions: in has a header at least, and is aligned to 8 bytes; so is out, which has room for 512 bytes and for
// the largest READ besides. All three may be used again as soon as handle returns.
//
// A panic of the filesystem is EIO.
func (w *worker) handle(in, data, out []byte) (n int, status fuse.Status, reply bool) {
	h := sys.View[fuse.InHeader](in)
	if h.Opcode == codeInterrupt {
		return w.interrupt(in, data, out)
	}
	op := w.operation(h, len(in))
	w.begin(h.Unique, op == nil)
	defer func() {
		if v := recover(); v != nil {
			n, status, reply = 0, w.d.opts.PanicHandler(v), answered(h.Opcode)
		}
		w.end()
		if w.d.opts.SingleThreaded {
			w.d.one.Unlock()
		}
	}()
	if w.d.opts.SingleThreaded {
		w.d.one.Lock()
	}
	if op == nil {
		return w.toServer(in, data, out)
	}
	w.in, w.data, w.out, w.n = in, data, out, 0
	if status = op(w); status != fuse.OK {
		w.n = 0
	}
	if status == fuse.EINTR && w.d.dead.Load() {
		return 0, status, false
	}
	return w.n, status, answered(h.Opcode)
}

// operation is what handles the request here, nil where go-fuse does.
func (w *worker) operation(h *fuse.InHeader, n int) func(*worker) fuse.Status {
	if h.Opcode >= codeCount || h.TotalExtlen != 0 || w.d.opts.Debug {
		return nil
	}
	op := operations[h.Opcode]
	if op != nil && n < inSizes[h.Opcode] {
		return (*worker).tooShort
	}
	return op
}

func (w *worker) tooShort() fuse.Status {
	h := input[fuse.InHeader](w)
	w.d.log.Printf("opcode %d in a request of %d bytes", h.Opcode, len(w.in))
	return fuse.EIO
}

// toServer lets go-fuse handle the request.
func (w *worker) toServer(in, data, out []byte) (n int, status fuse.Status, reply bool) {
	code := sys.View[fuse.InHeader](in).Opcode
	n, status = w.d.server.HandleRequest([][]byte{in, data}, [][]byte{w.header[:], out})
	if n < outHeaderSize {
		// No answer is due, or it did not get that far.
		return 0, status, status != fuse.OK && answered(code)
	}
	status = fuse.Status(-sys.View[fuse.OutHeader](w.header[:]).Status)
	return n - outHeaderSize, status, true
}

// name is the name that b begins with, up to its zero byte.
//
// A name that was looked up is rarely kept, so names share memory: one allocation serves hundreds. What the filesystem
// is likely to keep is a string of its own (ownName).
func (w *worker) name(b []byte) string {
	b = cstring(b)
	if len(b) > len(w.names) {
		w.names = make([]byte, max(4096, len(b)))
	}
	s := w.names[:len(b):len(b)]
	w.names = w.names[len(b):]
	copy(s, b)
	return sys.StringOf(s)
}

// ownName is name for a name that is kept.
func ownName(b []byte) string { return string(cstring(b)) }
