// Package uring is as much of io_uring as FUSE over io_uring needs: commands to a descriptor (IORING_OP_URING_CMD) in
// submissions of 128 bytes, and waiting for their completion.
//
// A ring belongs to the thread that makes it, which is the only one to submit, and in which all completions happen, while
// it waits: so nobody is interrupted by a signal, and nothing here takes a lock.
//
//	we                                    kernel
//	submission, tail of sq    -->         io_uring_enter: reads up to the tail, moves the head
//	                          <--         completion, tail of cq
//	reads up to the tail, moves the head
//
// The libraries that there are for Go have no submissions of 128 bytes in their types, share a ring among threads and
// guard it, or start a thread of their own for completions; none has had a release in years. What is needed here is less
// than what would have to be worked around.
//
// Sources: io_uring(7), io_uring_setup(2), io_uring_enter(2); include/uapi/linux/io_uring.h.
package uring

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A Ring is a pair of queues shared with the kernel. All but New and Close allocate nothing.
type Ring struct {
	fd    int
	rings []byte // both queues but for the submissions
	sqes  []byte
	wait  []byte // struct io_uring_getevents_arg, and a struct __kernel_timespec behind it

	sqHead, sqTail *atomic.Uint32
	cqHead, cqTail *atomic.Uint32
	sqMask, cqMask uint32
	cqes           []byte
}

// include/uapi/linux/io_uring.h
const (
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap = 1 << 0
	featExtArg     = 1 << 8

	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3

	offRings = 0
	offSQEs  = 0x10000000

	opURingCmd = 46

	sqeSize = 128
	cqeSize = 16
)

// params is struct io_uring_params.
type params struct {
	SQEntries, CQEntries, Flags, SQThreadCPU, SQThreadIdle, Features, WQFd uint32
	_                                                                      [3]uint32
	SQ                                                                     sqOffsets
	CQ                                                                     cqOffsets
}

type sqOffsets struct {
	Head, Tail, RingMask, RingEntries, Flags, Dropped, Array, _ uint32
	UserAddr                                                    uint64
}

type cqOffsets struct {
	Head, Tail, RingMask, RingEntries, Overflow, CQEs, Flags, _ uint32
	UserAddr                                                    uint64
}

// sqe is struct io_uring_sqe with IORING_SETUP_SQE128, as a command has it.
type sqe struct {
	Opcode, Flags uint8
	IOPrio        uint16
	Fd            int32
	CmdOp, _      uint32
	Addr          uint64
	Len           uint32
	CmdFlags      uint32
	UserData      uint64
	_             uint64
	Cmd           [80]byte
}

type cqe struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

type eventsArg struct {
	Sigmask   uint64
	SigmaskSz uint32
	_         uint32
	TS        uint64
	Sec, Nsec int64 // what TS points to; no part of the structure
}

const eventsArgSize = 24

// New makes a ring with room for that many submissions that are under way.
//
// Preconditions: the goroutine is locked to its thread.
//
// Errors: EPERM where kernel.io_uring_disabled or a seccomp filter forbids it; ENOSYS; EINVAL before Linux 6.1.
func New(entries int) (*Ring, error) {
	buf := make([]byte, sys.SizeOf[params]())
	p := sys.View[params](buf)
	p.Flags = setupSQE128 | setupSingleIssuer | setupDeferTaskrun
	fd, err := sys.UringSetup(uint32(entries), buf)
	if err != nil {
		return nil, fmt.Errorf("io_uring_setup: %w", err)
	}
	r := &Ring{fd: fd}
	if p.Features&featSingleMmap == 0 || p.Features&featExtArg == 0 {
		err = fmt.Errorf("io_uring_setup: features %#x: %w", p.Features, unix.ENOSYS)
	} else {
		err = r.mmap(p)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) mmap(p *params) (err error) {
	size := max(p.SQ.Array+p.SQEntries*4, p.CQ.CQEs+p.CQEntries*cqeSize)
	const prot, shared = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, offRings, int(size), prot, shared); err != nil {
		return fmt.Errorf("mmap the queues of an io_uring: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, offSQEs, int(p.SQEntries*sqeSize), prot, shared); err != nil {
		return fmt.Errorf("mmap the submissions of an io_uring: %w", err)
	}
	if r.wait, err = unix.Mmap(-1, 0, sys.SizeOf[eventsArg](), prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	r.sqHead, r.sqTail = r.shared(p.SQ.Head), r.shared(p.SQ.Tail)
	r.cqHead, r.cqTail = r.shared(p.CQ.Head), r.shared(p.CQ.Tail)
	r.sqMask, r.cqMask = r.shared(p.SQ.RingMask).Load(), r.shared(p.CQ.RingMask).Load()
	r.cqes = r.rings[p.CQ.CQEs:]
	for i := range p.SQEntries { // submission i is always told in place i
		r.shared(p.SQ.Array + i*4).Store(i)
	}
	return nil
}

func (r *Ring) shared(off uint32) *atomic.Uint32 { return sys.View[atomic.Uint32](r.rings[off:]) }

// Close gives up what is under way: the kernel ends it in the background.
func (r *Ring) Close() {
	for _, m := range [][]byte{r.rings, r.sqes, r.wait} {
		if m != nil {
			_ = unix.Munmap(m) // it was mapped
		}
	}
	_ = unix.Close(r.fd) // there is nothing to lose
}

// A Command is what a driver is asked to do: struct io_uring_sqe.
type Command struct {
	Fd       int
	Op       uint32 // cmd_op, of the driver's own choice
	Addr     uint64
	Len      uint32
	UserData uint64   // comes back with the completion
	Cmd      [80]byte // of the driver's own choice
}

// Queue has c submitted by the next Enter. It is false where there is no room.
func (r *Ring) Queue(c *Command) bool {
	tail := r.sqTail.Load()
	if tail-r.sqHead.Load() > r.sqMask {
		return false
	}
	*sys.View[sqe](r.sqes[tail&r.sqMask*sqeSize:]) = sqe{
		Opcode: opURingCmd, Fd: int32(c.Fd), CmdOp: c.Op, Addr: c.Addr, Len: c.Len, UserData: c.UserData, Cmd: c.Cmd,
	}
	r.sqTail.Store(tail + 1)
	return true
}

// Enter submits what was queued, lets the kernel complete what it can, and returns when there is a completion, or after
// the timeout: at once with 0, never with a negative one. A signal is no reason to return.
//
// Errors: ETIME after the timeout; what io_uring_enter(2) says else, with submissions still queued perhaps.
func (r *Ring) Enter(timeout time.Duration) unix.Errno {
	flags, complete := uint32(enterGetEvents), uint32(1)
	var arg []byte
	switch {
	case timeout == 0:
		complete = 0
	case timeout > 0:
		a := sys.View[eventsArg](r.wait)
		*a = eventsArg{TS: sys.Address(r.wait[eventsArgSize:])}
		a.Sec, a.Nsec = int64(timeout/time.Second), int64(timeout%time.Second)
		flags |= enterExtArg
		arg = r.wait[:eventsArgSize]
	}
	for {
		queued := r.sqTail.Load() - r.sqHead.Load()
		_, errno := sys.UringEnter(r.fd, queued, complete, flags, arg)
		switch {
		case errno != 0 && errno != unix.EINTR:
			return errno
		case r.cqHead.Load() != r.cqTail.Load():
			return 0
		case timeout == 0 && errno == 0:
			return 0
		}
	}
}

// Completion takes the next completion: the UserData of the command, and its result, negative for an errno.
func (r *Ring) Completion() (userData uint64, res int32, ok bool) {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return 0, 0, false
	}
	c := *sys.View[cqe](r.cqes[head&r.cqMask*cqeSize:])
	r.cqHead.Store(head + 1)
	return c.UserData, c.Res, true
}
