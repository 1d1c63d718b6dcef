package transport

import (
	"fmt"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// loop is our own way to serve a /dev/fuse descriptor: leader and followers.
//
// A reader on duty reads a request, handles it, answers, and reads the next. While requests come fast there is one: nobody
// else is woken, and that is what most of the time would go to. While few come there are two, so that one reads when the
// other is busy, and nobody has to look after them.
//
// A reader whose request takes long is relieved: somebody else goes on duty, and it stands by when it is done. It is relieved before it begins where the request is known to take long
// (takesLong); when the filesystem says so (Notifier.Blocking); and by the watchdog otherwise (watchdog.go). The
// watchdog also puts more readers on duty while one is not enough. Before it sleeps, a reader looks for the next request
// for a while, where that takes nothing from others (spin.go).
//
//	          reads a request              answers
//	reading ------------------> handling ----------> reading
//	   ^                           | relieved
//	   | on duty                   v
//	standing by <----------------- off duty, handling
//	                  answers
type loop struct {
	// Immutable.
	fd       int
	d        *dispatcher
	gone     func() // that the mount is gone; again it does nothing
	maxWrite int
	settings Info
	first    *reader

	dog watchdog

	spins   bool     // whether to use spinner
	spinner *spinner // of the only reader that waits

	lostOnce sync.Once
	surplus  atomic.Int32  // how many readers on duty are to go off duty
	waiting  atomic.Int32  // how many readers wait for a request
	crowded  atomic.Bool   // requests come fast
	callers  atomic.Uint64 // how many times a request came to a reader from another thread than the one before it

	mu      sync.Mutex
	readers atomic.Pointer[[]*reader] // all there are; replaced under mu
	idle    []*reader                 // guarded by mu; those that stand by
	onDuty  int                       // guarded by mu
	owed    int                       // guarded by mu; how many are to go on duty as soon as anybody can
	ended   bool                      // guarded by mu; nobody goes on duty any more

	running sync.WaitGroup // readers

	sending sync.RWMutex // held to use fd for a notification
	closed  bool         // guarded by sending
}

const (
	// maxReaders bounds the requests that are handled at the same time, and with them threads: Go gives up at 10,000.
	maxReaders = 4096

	// maxIdle is how many readers stand by. Each keeps the memory for a request.
	maxIdle = 4

	// Requests come fast when a reader handles fastTurns in fastTime: from there on the watchdog costs less than a
	// second reader.
	fastTurns = 16
	fastTime  = 6 * time.Millisecond
)

// A reader is a goroutine that reads requests.
type reader struct {
	l    *loop
	w    *worker
	msg  message
	wake chan struct{} // to go on duty; closed at the end

	// duty is one of the values below, with the number of the turn above it: a request is one turn.
	duty atomic.Uint64
	turn uint64 // the reader's own
	seen uint64 // the watchdog's own: duty when it looked before

	counted time.Time // the reader's own: when it looked at the clock, every few turns
	caller  uint32    // the reader's own: the thread that sent the last request
}

const (
	offDuty  = 0
	reading  = 1
	handling = 2
	dutyBits = 2
	dutyMask = 1<<dutyBits - 1
)

// newLoop answers INIT on fd. With an error fd is closed.
func newLoop(fd int, fs *requests, opts *fuse.MountOptions) (*loop, error) {
	return newLoopAfter(fd, fs, opts, func(*loop, []byte) {})
}

// newLoopAfter is newLoop, and calls prepare with the request before it answers: l.settings has what the kernel offers.
func newLoopAfter(fd int, fs *requests, opts *fuse.MountOptions, prepare func(l *loop, init []byte)) (*loop, error) {
	l := &loop{fd: fd, d: newDispatcher(fs, opts), gone: fs.gone, maxWrite: opts.MaxWrite, onDuty: 1}
	l.readers.Store(&[]*reader{})
	l.dog.init(l)
	l.spins, l.spinner = goruntime.NumCPU() > 1, newSpinner(fd) // on one processor it would keep the client from asking
	r, err := l.newReader()
	if err == nil {
		l.first = r
		if err = l.init(r, prepare); err != nil {
			l.drop(r)
		}
	}
	if err != nil {
		l.spinner.close()
		_ = unix.Close(fd) // the mount is of no use without us
		return nil, err
	}
	return l, nil
}

// init answers INIT, the first request.
func (l *loop) init(r *reader, prepare func(*loop, []byte)) error {
	n, errno := r.read()
	l.waiting.Add(-1)
	if errno != 0 {
		return fmt.Errorf("read INIT: %w", errno)
	}
	in, data, answer := r.msg.split(n)
	h := sys.View[fuse.InHeader](in)
	if h.Opcode != codeInit || len(in) < headerSize+16 {
		return fmt.Errorf("the first request is opcode %d of %d bytes, not INIT", h.Opcode, n)
	}
	l.settings = Info{Transport: Loop, Minor: minorOf(in), Offered: offeredBy(in)}
	prepare(l, in)
	size, status, _ := r.w.handle(in, data, r.msg.out(answer))
	if errno := r.msg.send(l.fd, answer, size, h.Unique, status); errno != 0 {
		return fmt.Errorf("answer INIT: %w", errno)
	}
	if status != fuse.OK {
		return fmt.Errorf("INIT of protocol 7.%d: %w", l.settings.Minor, unix.Errno(status))
	}
	return nil
}

// minorOf and offeredBy read struct fuse_init_in, which was shorter before protocol 7.36.
func minorOf(in []byte) uint32 { return initIn(in).Minor }

func offeredBy(in []byte) uint64 { return initIn(in).Flags64() }

func initIn(in []byte) *fuse.InitIn {
	whole := make([]byte, sys.SizeOf[fuse.InitIn]())
	copy(whole, in)
	return sys.View[fuse.InitIn](whole)
}

func (l *loop) newReader() (*reader, error) {
	msg, err := newMessage(l.maxWrite)
	if err != nil {
		return nil, err
	}
	r := &reader{l: l, w: l.d.worker(), msg: msg, wake: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(r)
	return r, nil
}

func (l *loop) addLocked(r *reader) {
	list := append(slices.Clone(*l.readers.Load()), r)
	l.readers.Store(&list)
}

// drop takes a reader away that is off duty.
func (l *loop) drop(r *reader) {
	l.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(*l.readers.Load()), func(o *reader) bool { return o == r })
	l.readers.Store(&list)
	l.mu.Unlock()
	l.d.drop(r.w)
	r.msg.free()
}

func (l *loop) info() Info { return l.settings }

func (l *loop) serve() {
	l.running.Add(1)
	go l.dog.run()
	l.increase(calm)
	l.first.run()
	l.running.Wait()
	l.dog.stop()
	l.spinner.close()
	l.d.fs.OnUnmount()
	l.sending.Lock()
	l.closed = true
	l.sending.Unlock()
	_ = unix.Close(l.fd) // nothing is lost: all is answered
}

// lost interrupts what is still at work, once.
func (l *loop) lost() {
	l.lostOnce.Do(func() {
		l.gone()
		l.d.interruptAll()
	})
}

// run is the life of a reader. It begins on duty.
func (r *reader) run() {
	defer r.l.running.Done()
	defer r.l.drop(r)
	for r.serveTurns() && r.standBy() {
	}
}

// serveTurns reads and handles requests until the reader is relieved, which is true, or the mount has ended.
func (r *reader) serveTurns() bool {
	r.duty.Store(r.turn<<dutyBits | reading)
	for {
		n, errno := r.read()
		if errno != 0 {
			r.l.waiting.Add(-1)
			r.duty.Store(offDuty)
			r.l.end(errno)
			return false
		}
		r.turn++
		turn := r.turn<<dutyBits | handling
		r.duty.Store(turn)
		if r.l.waiting.Add(-1) == 0 || r.turn%fastTurns == 0 && r.isFast() {
			r.l.dog.touch()
		}
		in, data, answer := r.msg.split(n)
		if takesLong(in, n) {
			r.l.relieve(r, turn)
		}
		h := sys.View[fuse.InHeader](in)
		if h.Pid != r.caller && h.Pid != 0 { // 0 is the kernel itself: FORGET, for instance
			r.caller = h.Pid
			r.l.callers.Add(1)
		}
		unique := h.Unique
		size, status, reply := r.w.handle(in, data, r.msg.out(answer))
		if reply {
			if errno := r.msg.send(r.l.fd, answer, size, unique, status); errno != 0 {
				r.l.unsent(errno, in)
			}
		}
		if r.l.surplus.Load() > 0 && r.l.goOff(r, turn) {
			return true
		}
		if !r.duty.CompareAndSwap(turn, r.turn<<dutyBits|reading) {
			return true
		}
	}
}

// isFast tells whether requests come fast now, but did not before.
func (r *reader) isFast() bool {
	if r.l.crowded.Load() {
		return false
	}
	before := r.counted
	r.counted = time.Now()
	return r.counted.Sub(before) < fastTime && r.l.crowded.CompareAndSwap(false, true)
}

// read reads one request. Errors: ENODEV when the mount is gone.
//
// The reader counts as waiting until the caller says that it is not.
func (r *reader) read() (int, unix.Errno) {
	r.l.waiting.Add(1)
	r.l.spin()
	for {
		n, errno := sys.ReadDevice(r.l.fd, r.msg.room())
		switch errno {
		case 0:
			if n >= headerSize {
				return n, 0
			}
			if n == 0 {
				return 0, unix.ENODEV // as an end of file: the device has none
			}
			r.l.d.log.Printf("a request of %d bytes is no request", n)
		case unix.EINTR, unix.ENOENT: // ENOENT: who asked has given up meanwhile
		case unix.EAGAIN: // the descriptor was passed to us like that
			waitReadable(r.l.fd)
		default:
			return 0, errno
		}
	}
}

// unsent tells that an answer was not taken. It is no news that nobody waits for one any more, or that the mount is
// gone.
func (l *loop) unsent(errno unix.Errno, in []byte) {
	if errno == unix.ENOENT || errno == unix.ENODEV || errno == unix.EPERM {
		return
	}
	l.d.log.Printf("answer to opcode %d: %v", sys.View[fuse.InHeader](in).Opcode, errno)
}

// relieve takes a reader off duty in the middle of a turn and puts another one on.
func (l *loop) relieve(r *reader, turn uint64) {
	if r.duty.CompareAndSwap(turn, turn&^dutyMask) {
		l.passOn()
	}
}

// goOff takes a reader off duty for good, if there are too many. It has handled its request.
func (l *loop) goOff(r *reader, turn uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.surplus.Load() <= 0 || l.onDuty < 2 || !r.duty.CompareAndSwap(turn, turn&^dutyMask) {
		return false
	}
	l.surplus.Add(-1)
	l.onDuty--
	return true
}

// passOn puts a reader on duty in the place of one who went off.
func (l *loop) passOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if n := len(l.idle); n > 0 {
		r := l.idle[n-1]
		l.idle = l.idle[:n-1]
		r.wake <- struct{}{}
		return
	}
	if len(*l.readers.Load()) < maxReaders {
		if msg, err := newMessage(l.maxWrite); err == nil {
			r := &reader{l: l, w: l.d.worker(), msg: msg, wake: make(chan struct{}, 1)}
			l.addLocked(r)
			l.running.Add(1)
			go r.run()
			return
		}
	}
	l.owed++
}

// standBy waits to be put on duty. It is false where there is no need for the reader any more.
func (r *reader) standBy() bool {
	l := r.l
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return false
	case l.owed > 0:
		l.owed--
		l.mu.Unlock()
		return true
	case len(l.idle) >= maxIdle:
		l.mu.Unlock()
		return false
	}
	l.idle = append(l.idle, r)
	l.mu.Unlock()
	_, on := <-r.wake
	return on
}

// end is called by a reader on duty who cannot read any more. When it was the last one, all is over.
func (l *loop) end(errno unix.Errno) {
	if errno != unix.ENODEV {
		l.d.log.Printf("read from /dev/fuse: %v", errno)
	}
	l.mu.Lock()
	l.onDuty--
	last := errno == unix.ENODEV || l.onDuty == 0
	if last && !l.ended {
		l.ended = true
		for _, r := range l.idle {
			close(r.wake)
		}
		l.idle = nil
	}
	l.mu.Unlock()
	if last {
		l.lost()
	}
}

// blocking has somebody read who is not busy.
func (l *loop) blocking() {
	if l.waiting.Load() > 0 {
		return
	}
	var busy *reader
	var turn uint64
	for _, r := range *l.readers.Load() {
		switch duty := r.duty.Load(); duty & dutyMask {
		case reading:
			return
		case handling:
			busy, turn = r, duty
		}
	}
	if busy != nil {
		l.relieve(busy, turn)
	}
}
