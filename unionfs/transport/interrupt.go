package transport

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

// interrupting is what stands for the number of a request while somebody interrupts it. A request that has it as its own,
// up to which a kernel would have to count, cannot be interrupted.
const interrupting = math.MaxUint64

// inFlight is the request that a worker is at, for those who interrupt it.
//
//	worker                          whoever interrupts
//	unique = U
//	...                             unique: U -> interrupting
//	                                close(cancel)
//	unique: U -> 0 fails
//	waits for cancel, makes another
type inFlight struct {
	unique   atomic.Uint64 // number of the request, 0 for none, or interrupting
	byServer atomic.Bool   // go-fuse handles it, and has a channel of its own
	cancel   chan struct{} // closed when the request is to give up
}

// begin says that a request is handled from now on.
func (w *worker) begin(unique uint64, byServer bool) {
	if w.byServer.Load() != byServer {
		w.byServer.Store(byServer)
	}
	if unique == interrupting {
		unique = 0
	}
	w.unique.Store(unique)
	if w.d.dead.Load() || w.d.early.has(unique) {
		w.d.giveUp(w, unique)
	}
}

// end says that the filesystem is done with it.
func (f *inFlight) end() {
	if u := f.unique.Load(); u != interrupting && f.unique.CompareAndSwap(u, 0) {
		return
	}
	<-f.cancel // whoever interrupts is about to close it
	f.cancel = make(chan struct{})
	f.unique.Store(0)
}

// interruptHere closes the channel of the request if that is still being handled, and here.
func (f *inFlight) interruptHere(unique uint64) bool {
	if unique == 0 || f.byServer.Load() || !f.unique.CompareAndSwap(unique, interrupting) {
		return false
	}
	close(f.cancel)
	return true
}

// interrupt handles INTERRUPT. A request that is not found, because it has ended or is not begun, is EAGAIN: the kernel
// asks again if it still waits for it; but not where the request came over io_uring, so we have to keep it in mind.
func (w *worker) interrupt(in, data, out []byte) (n int, status fuse.Status, reply bool) {
	if len(in) >= inSizes[codeInterrupt] {
		unique := sys.View[fuse.InterruptIn](in).Unique
		w.d.mu.RLock()
		defer w.d.mu.RUnlock()
		for other := range w.d.workers {
			if other.interruptHere(unique) {
				return 0, fuse.OK, false
			}
		}
		w.d.early.note(unique)
		for other := range w.d.workers { // it may have begun in between, or be with go-fuse
			if unique != 0 && other.unique.Load() == unique {
				w.d.giveUp(other, unique)
				return 0, fuse.OK, false
			}
		}
	}
	return w.toServer(in, data, out)
}

// earlyInterrupts are the last requests that were to be interrupted and were not found.
//
//	begin                  interrupt
//	unique = U             looks for U
//	has(U)?                note(U)
//	                       looks for U
type earlyInterrupts struct {
	n    atomic.Uint32 // how many there were
	last [16]atomic.Uint64
}

func (e *earlyInterrupts) note(unique uint64) {
	e.last[e.n.Add(1)%uint32(len(e.last))].Store(unique)
}

func (e *earlyInterrupts) has(unique uint64) bool {
	if e.n.Load() == 0 || unique == 0 {
		return false
	}
	for i := range e.last {
		if e.last[i].Load() == unique {
			return true
		}
	}
	return false
}

// interruptAll makes all requests give up, those included that are still to begin: the connection is gone.
func (d *dispatcher) interruptAll() {
	d.dead.Store(true)
	d.mu.RLock()
	defer d.mu.RUnlock()
	for w := range d.workers {
		if u := w.unique.Load(); u != 0 && u != interrupting {
			d.giveUp(w, u)
		}
	}
}

// giveUp interrupts request unique of w.
func (d *dispatcher) giveUp(w *worker, unique uint64) {
	if w.byServer.Load() {
		go d.chase(w, unique)
	} else {
		w.interruptHere(unique)
	}
}

// chase interrupts request unique of w, which go-fuse handles, or is just about to. A ProtocolServer can only be asked
// by an INTERRUPT, and knows only of requests that it has begun.
func (d *dispatcher) chase(w *worker, unique uint64) {
	msg := make([]byte, inSizes[codeInterrupt])
	in := sys.View[fuse.InterruptIn](msg)
	*in = fuse.InterruptIn{InHeader: fuse.InHeader{Length: uint32(len(msg)), Opcode: codeInterrupt}, Unique: unique}
	out := make([]byte, outHeaderSize)
	for w.unique.Load() == unique {
		if n, status := d.server.HandleRequest([][]byte{msg}, [][]byte{out}); n == 0 && status == fuse.OK {
			return // no answer: it was found
		}
		time.Sleep(time.Millisecond)
	}
}
