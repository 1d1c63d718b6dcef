package transport

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uring"
)

// A ringThread is an operating system's thread with a ring of its own. It takes requests of one queue, or of several where
// these have none.
type ringThread struct {
	u    *ringLoop
	w    *worker
	ring *uring.Ring
	mem  []byte

	entries []*ringEntry
	answers []byte // for the answer to a request that has data, apart from those
	asked   bool   // the kernel was asked to take them
	live    int    // that it has, or has given a request
	touched bool   // a large request has touched memory

	next chan ringStep
	said chan error // how a step went

	at   *ringQueue // where the request comes from that it is at work on
	long bool       // at.beginLong was called for it
}

// ringStep is what a thread is told to do next.
type ringStep int

const (
	ringRegister ringStep = iota // give the kernel the entries, and say how it went
	ringKick                     // have the kernel look for requests that wait
	ringServe                    // until the mount is gone, and end
	ringStop                     // withdraw, if anything was registered, and end
	ringEnd                      // end
)

// How long a thread keeps memory that a large request has touched.
const keepMemory = time.Second

func newRingThread(u *ringLoop, queues ...*ringQueue) *ringThread {
	t := &ringThread{u: u, next: make(chan ringStep, 1), said: make(chan error, 1)}
	for _, q := range queues {
		t.entries = append(t.entries, &ringEntry{q: q})
	}
	return t
}

// start begins the thread, which says when it has a ring.
//
// The goroutine keeps its thread, which ends with it: it was pinned to a processor. The process' first thread cannot end,
// and so is not for it.
func (t *ringThread) start() {
	go func() {
		goruntime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			t.run()
			return
		}
		other := make(chan struct{})
		go func() {
			goruntime.LockOSThread()
			close(other)
			t.run()
		}()
		<-other
		goruntime.UnlockOSThread()
	}()
}

// do has the thread do a step, and says how it went.
func (t *ringThread) do(step ringStep) error {
	t.next <- step
	return <-t.said
}

// run is the life of a thread.
func (t *ringThread) run() {
	t.said <- t.open()
	for step := range t.next {
		switch step {
		case ringRegister:
			t.said <- t.register()
		case ringKick:
			t.kick()
			t.said <- nil
		case ringServe:
			t.serve()
			t.close()
			t.u.running.Done()
			return
		case ringStop:
			err := t.withdraw()
			t.close()
			t.said <- err
			return
		case ringEnd:
			t.close()
			t.said <- nil
			return
		}
	}
}

// open makes ring and memory.
func (t *ringThread) open() (err error) {
	t.pin()
	if t.ring, err = uring.New(len(t.entries)); err != nil {
		return err
	}
	t.mem, err = unix.Mmap(-1, 0, len(t.entries)*entrySize(t.u.payload)+tail+pageSize,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("memory for requests: %w", err)
	}
	for i, e := range t.entries {
		e.place(t.mem[i*entrySize(t.u.payload):], t.u.payload)
	}
	t.answers = t.mem[len(t.mem)-tail-pageSize:]
	t.w = t.u.d.worker()
	return nil
}

// pin has the thread run where its requests come from: then neither has to wait for another processor to wake up.
func (t *ringThread) pin() {
	if len(t.entries) != 1 || !t.entries[0].q.pin {
		return
	}
	var set unix.CPUSet
	set.Set(t.entries[0].q.cpu)
	_ = unix.SchedSetaffinity(0, &set) // it works as well elsewhere, but slower
}

func (t *ringThread) close() {
	t.u.byID.Delete(unix.Gettid())
	if t.ring != nil {
		t.ring.Close()
	}
	if t.w != nil {
		t.u.d.drop(t.w)
	}
	if t.mem != nil {
		_ = unix.Munmap(t.mem) // it was mapped
	}
}

// register gives the kernel all entries. What it does not take comes back at once.
func (t *ringThread) register() error {
	for i, e := range t.entries {
		if !t.ring.Queue(e.registration(t.u.fd, i)) {
			return errors.New("the ring has no room for its entries")
		}
	}
	t.asked = true
	if errno := t.ring.Enter(0); errno != 0 {
		return fmt.Errorf("register with FUSE: io_uring_enter: %w", errno)
	}
	if _, res, ok := t.ring.Completion(); ok {
		return fmt.Errorf("register with FUSE: %w", unix.Errno(-res))
	}
	t.live = len(t.entries)
	for _, e := range t.entries {
		e.q.threads.Add(1)
	}
	return nil
}

// kick has the kernel give a request to the entry, if any waits for one. It does so by itself only when an entry comes back
// with an answer, not when there is a new one (fs/fuse/dev_uring.c, fuse_uring_do_register). So a request is made, from this
// processor, to which there is no answer: NOTIFY_REPLY, which the kernel sends when it is asked for what it has of a file,
// here nothing. Where no file is known, whoever waits does so until the next request comes from this processor.
func (t *ringThread) kick() {
	if node := t.u.file.Load(); node != 0 {
		// The kernel's own numbers start at 2, and are even.
		out := fuse.NotifyRetrieveOut{NotifyUnique: 1<<62 + 2*t.u.kicks.Add(1), Nodeid: node}
		_ = t.u.notify(notifyRetrieve, bytesOf(out)) // the node may be gone
	}
}

// withdraw tells the kernel that there will be no entries. It does not hold requests back any more after it was given one
// that it cannot take (fs/fuse/dev_uring.c, fuse_uring_cmd).
func (t *ringThread) withdraw() error {
	if !t.asked {
		return errors.New("nothing was registered")
	}
	c := t.entries[0].registration(t.u.fd, 0)
	c.Len = 0
	for !t.ring.Queue(c) {
		if errno := t.ring.Enter(0); errno != 0 {
			return fmt.Errorf("withdraw from FUSE: io_uring_enter: %w", errno)
		}
	}
	if errno := t.ring.Enter(0); errno != 0 {
		return fmt.Errorf("withdraw from FUSE: io_uring_enter: %w", errno)
	}
	return nil
}

// serve takes requests until the mount is gone.
func (t *ringThread) serve() {
	t.u.byID.Store(unix.Gettid(), t)
	for t.live > 0 {
		timeout := time.Duration(-1)
		if t.touched {
			timeout = keepMemory
		}
		switch errno := t.ring.Enter(timeout); errno {
		case 0:
		case unix.ETIME:
			t.forgetMemory()
			continue
		default:
			t.u.d.log.Printf("io_uring_enter: %v", errno)
			t.leave(len(t.entries))
			return
		}
		for {
			i, res, ok := t.ring.Completion()
			if !ok {
				break
			}
			t.completed(t.entries[i], int(i), res)
		}
	}
}

// completed takes an entry that comes back from the kernel: with a request, or for good.
func (t *ringThread) completed(e *ringEntry, i int, res int32) {
	if res >= 0 {
		t.ring.Queue(t.answer(e, i)) // there is room for each entry
		return
	}
	err := unix.Errno(-res)
	if goneError(err) {
		t.leave(1)
		t.u.lost()
		return
	}
	// The answer was not taken, and the kernel has forgotten the entry.
	t.u.d.log.Printf("answer by io_uring: %v", err)
	if e.refused++; e.refused > maxRefused {
		t.leave(1)
		return
	}
	t.ring.Queue(e.registration(t.u.fd, i))
}

// maxRefused is how often an entry is registered again.
const maxRefused = 100

// leave says that n entries are with the kernel no more.
func (t *ringThread) leave(n int) { t.live -= min(n, t.live) }

// goneError tells whether an error says that the mount is gone.
func goneError(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ECANCELED)
}

// answer handles the request in e, and is the command that brings the answer to the kernel and fetches the next request.
func (t *ringThread) answer(e *ringEntry, i int) *uring.Command {
	t.at = e.q
	e.q.begin()
	in, data := e.request()
	out := e.payload
	if len(data) > 0 {
		out = t.answers
	}
	if takesForever(in) {
		t.takesLong()
	}
	h := *sys.View[fuse.InHeader](in)
	n, status := 0, fuse.OK
	switch h.Opcode {
	case codeNotifyReply: // our own (kick)
	case codeRead, codeWrite:
		t.u.isFile(h.NodeId)
		fallthrough
	default:
		n, status, _ = t.w.handle(in, data, out)
	}
	if len(data) > 0 {
		copy(e.payload, out[:n])
	}
	t.touched = t.touched || max(len(data), n) > keptSize
	if t.long {
		t.long = false
		e.q.endLong()
	}
	e.q.end()
	return e.commit(t.u.fd, i, h.Unique, n, status)
}

// takesForever tells whether a request waits for what somebody else does.
func takesForever(in []byte) bool { return sys.View[fuse.InHeader](in).Opcode == codeSetLkw }

// takesLong says that the request the thread is at work on will take long.
func (t *ringThread) takesLong() {
	if !t.long {
		t.long = true
		t.at.beginLong()
	}
}

// keptSize is how many bytes of an entry's memory are kept for good.
const keptSize = 128 << 10

// forgetMemory gives back what large requests have touched. The kernel writes to it in this very thread only.
func (t *ringThread) forgetMemory() {
	t.touched = false
	for _, e := range t.entries {
		_ = unix.Madvise(e.payload[keptSize:], unix.MADV_DONTNEED) // it is kept, then
	}
}
