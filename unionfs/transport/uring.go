package transport

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// ringLoop is FUSE over io_uring: the kernel puts a request into memory that we gave it, and wakes a thread that runs on the
// very processor which the request comes from. One system call brings the answer and waits for the next request. The
// loop goes on beside it, for what does not come this way: FORGET, INTERRUPT, and what was asked before the rings were
// ready.
//
//	processor 0                          processor 1
//	queue 0 of the kernel                queue 1
//	  entry   entry   (entry)              entry   entry
//	    |       |        |                   |       |
//	  thread  thread  (thread)             thread  thread       each with a ring of its own
//
// The kernel gives a request to an entry that is free. Each thread has one: so a request is never given to a thread that
// is at work on another, and one that takes long holds up nobody as long as there is another thread. There are a few to
// begin with, one more as soon as all but one are at work, and so on up to depth; a request that says it takes long
// (blocking, takesForever) does not count (uring_queue.go). Processors that are offline send no requests, but the kernel
// wants an entry for each that might come: one thread has all these.
//
// Memory: a thread has room for the largest request and for its answer, some 1.1 MiB with max_write=1M. What a large request
// has touched of it is given back after a second without requests.
//
// Whether a server may is seen in three steps, and the first that fails makes it a plain loop:
//
//	INIT offers OVER_IO_URING        else: before Linux 6.14, or fuse.enable_uring=N
//	rings are made                   else: kernel.io_uring_disabled, seccomp, RLIMIT_NOFILE
//	(INIT is answered: with it)
//	entries are registered           else: no memory. The kernel is told that it will not be (withdraw)
//
// The kernel holds all requests back until each queue has an entry.
//
// Source: linux/Documentation/filesystems/fuse/fuse-io-uring.rst; include/uapi/linux/fuse.h; fs/fuse/dev_uring.c.
type ringLoop struct {
	*loop

	payload int // bytes of the largest request, and of the largest answer

	firsts []*ringThread // from the beginning, one for each queue
	others []*ringThread // from the beginning, too
	byID   sync.Map      // thread id -> *ringThread

	file  atomic.Uint64 // nodeid of a file that the kernel knows, or knew; 0 for none
	kicks atomic.Uint64 // how many there were
}

// isFile says that a node is a file.
func (u *ringLoop) isFile(node uint64) {
	if u.file.Load() != node {
		u.file.Store(node)
	}
}

// uringEnabled tells whether the administrator of the machine has allowed it: he has to.
func uringEnabled() bool {
	b, err := os.ReadFile("/sys/module/fuse/parameters/enable_uring")
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

// newUring answers INIT on fd, and becomes a plain loop where the kernel does not go along; wanted says so in the log.
// With an error fd is closed.
func newUring(fd int, fs *requests, opts *fuse.MountOptions, wanted bool) (carrier, error) {
	opts.ExtraCapabilities |= fuse.CAP_OVER_IO_URING
	u := &ringLoop{payload: payloadSize(opts.MaxWrite)}
	var no error
	l, err := newLoopAfter(fd, fs, opts, func(l *loop, init []byte) {
		u.loop = l
		if no = u.prepare(); no != nil {
			sys.View[fuse.InitIn](init).Flags2 &^= fuse.CAP_OVER_IO_URING >> 32 // as if it had not been offered
		}
	})
	if err != nil {
		_ = u.stop() // there is no kernel to hear of it
		return nil, err
	}
	if no == nil {
		if no = u.register(); no == nil {
			l.settings.Transport = Uring
			l.spins = false // nobody waits for what comes by the device
			return u, nil
		}
		if err := u.stop(); err != nil {
			// The kernel would hold all requests back, waiting for entries.
			l.drop(l.first)
			l.spinner.close()
			_ = unix.Close(fd) // nothing is left to be said
			return nil, fmt.Errorf("FUSE over io_uring: %w; then: %w", no, err)
		}
	}
	if wanted {
		l.d.log.Printf("warning: no FUSE over io_uring, the requests are read from /dev/fuse: %v", no)
	}
	return l, nil
}

// payloadSize is how much memory the kernel wants for the largest request (fs/fuse/dev_uring.c, fuse_uring_create).
func payloadSize(maxWrite int) int {
	const minReadBuffer = 8192 // FUSE_MIN_READ_BUFFER
	return (max(maxWrite, minReadBuffer) + pageSize - 1) &^ (pageSize - 1)
}

// prepare makes the threads and their rings.
func (u *ringLoop) prepare() error {
	if u.settings.Offered&fuse.CAP_OVER_IO_URING == 0 {
		return errors.New("the kernel does not offer it (Linux 6.14 and fuse.enable_uring=Y)")
	}
	cpus, err := processors()
	if err != nil {
		return err
	}
	var offline []*ringQueue
	for cpu := range cpus.possible {
		q := &ringQueue{u: u, cpu: cpu, pin: cpus.usable[cpu]}
		if !cpus.online[cpu] {
			offline = append(offline, q)
			continue
		}
		u.firsts = append(u.firsts, newRingThread(u, q))
		for range atFirst(len(cpus.online)) - 1 {
			u.others = append(u.others, newRingThread(u, q))
		}
	}
	if len(offline) > 0 {
		u.firsts = append(u.firsts, newRingThread(u, offline...))
	}
	for _, t := range u.threads() {
		t.start()
	}
	for _, t := range u.threads() {
		if e := <-t.said; err == nil {
			err = e // the others say the same
		}
	}
	if err != nil {
		_ = u.stop() // the kernel has not heard of them yet
	}
	return err
}

// threads are all that there are from the beginning.
func (u *ringLoop) threads() []*ringThread { return slices.Concat(u.firsts, u.others) }

// register gives the kernel an entry for each queue, and then the others. It goes over to the ring with the first entry
// of the last queue that has none: from then on there is no way back. So the queue that may be one too many comes first,
// and other entries that are refused are done without.
func (u *ringLoop) register() error {
	for _, t := range slices.Backward(u.firsts) {
		if err := t.do(ringRegister); err != nil {
			return err
		}
	}
	u.others = slices.DeleteFunc(u.others, func(t *ringThread) bool {
		refused := t.do(ringRegister) != nil
		if refused {
			_ = t.do(ringEnd) // it says nothing
		}
		return refused
	})
	return nil
}

// stop ends the threads before any of them serves. An error says that the kernel did not hear of it.
func (u *ringLoop) stop() (err error) {
	heard := false
	for _, t := range u.threads() {
		switch e := t.do(ringStop); {
		case e == nil:
			heard = true
		case err == nil:
			err = e // the others say the same
		}
	}
	u.firsts, u.others = nil, nil
	if heard {
		return nil
	}
	return err
}

func (u *ringLoop) serve() {
	for _, t := range u.threads() {
		u.running.Add(1)
		t.next <- ringServe
	}
	u.loop.serve()
}

// blocking has another thread for the processor of the caller, where that is at work on a request of a ring.
func (u *ringLoop) blocking() {
	if t, ok := u.byID.Load(unix.Gettid()); ok {
		t.(*ringThread).takesLong()
		return
	}
	u.loop.blocking()
}

// The notifications of the loop wait for who may wait for an answer; so does the thread that makes them. What is stored comes
// from beside the requests, of no such thread.

func (u *ringLoop) invalInode(nodeid uint64, off, length int64) fuse.Status {
	if off >= 0 {
		u.blocking()
	}
	return u.loop.invalInode(nodeid, off, length)
}

func (u *ringLoop) invalEntry(parent uint64, name string) fuse.Status {
	u.blocking()
	return u.loop.invalEntry(parent, name)
}

func (u *ringLoop) delete(parent, child uint64, name string) fuse.Status {
	u.blocking()
	return u.loop.delete(parent, child, name)
}
