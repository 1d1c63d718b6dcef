package transport

import (
	goruntime "runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// watchdog looks after the readers of a loop while requests come fast, or all readers are busy, and sleeps else.
//
// A reader that is found in the same request twice is relieved. When none is found reading for a while although requests
// wait, there is more to do than the readers on duty can: if they wait for something, or where there are many processors,
// one more goes on duty. On two processors a second reader that computes takes more from its clients than it gives.
//
// It looks often where a request that takes long would hold up others: requests came from several threads of late, or
// somebody had to be relieved. While one thread asks, nobody else waits for the answer that it waits for itself.
type watchdog struct {
	l      *loop
	asleep atomic.Bool
	wake   chan struct{}
	done   chan struct{}

	// The watchdog's own.
	timer     *time.Timer
	requests  uint64        // that have come since it weighed
	callers   uint64        // loop.callers, when it weighed
	several   bool          // requests come from several threads
	crowd     bool          // at the last look somebody was busy, and nobody reading
	impatient int           // how many more times to look often, whoever asks
	busy      int           // how many times in a row nobody was found reading
	free      int           // how many times in a row somebody was
	since     time.Time     // when busy was 0
	cpu       time.Duration // of the process, then
}

const (
	// A look costs 15 to 40 us of processor time on a virtual machine, all but one to set a timer and to wake up.
	patience   = time.Millisecond
	impatience = 200 * time.Microsecond

	impatientFor   = 20 // looks
	severalCallers = 3  // times that another thread asked than the one before, in the time of patience

	// It weighs once in the time of patience.
	few        = 2  // requests in that time
	quietFor   = 4  // times with few requests, and it sleeps
	busyFor    = 8  // times
	freeFor    = 50 // times
	maxBlocked = 16 // readers on duty, where they wait
	calm       = 2  // readers on duty, where few requests come
)

func (w *watchdog) init(l *loop) {
	w.l, w.wake, w.done = l, make(chan struct{}, 1), make(chan struct{})
	w.asleep.Store(true)
}

// touch says that a request has come.
func (w *watchdog) touch() {
	if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}

func (w *watchdog) stop() { close(w.done) }

func (w *watchdog) run() {
	w.timer = time.NewTimer(time.Hour)
	defer w.timer.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-w.wake:
		}
		w.begin()
		for quiet := 0; quiet < quietFor; {
			for looked := time.Duration(0); looked < patience; {
				d := w.pause()
				if !w.sleep(d) {
					return
				}
				w.look()
				looked += d
			}
			if w.weigh() > few {
				quiet = 0
			} else {
				quiet++
			}
		}
		w.l.crowded.Store(false)
		w.l.increase(calm)
		w.asleep.Store(true)
		// All may have become busy before they could see that we sleep.
		if w.l.waiting.Load() == 0 {
			w.touch()
		}
	}
}

// begin is how it wakes up.
func (w *watchdog) begin() {
	w.busy, w.free, w.several, w.requests, w.callers = 0, 0, false, 0, w.l.callers.Load()
	if w.l.crowded.Load() {
		w.l.reduce()
	}
}

// pause is how long it is to the next look.
func (w *watchdog) pause() time.Duration {
	if w.impatient > 0 {
		w.impatient--
		return impatience
	}
	if w.several {
		return impatience
	}
	return patience
}

// sleep waits until the next look, and tells whether there is to be one.
//
// Timers of Go's runtime know no less than a millisecond while the process is idle (epoll_wait(2)). Below that the thread
// sleeps without a word to the runtime: who looks after the processor of a thread in a system call does so every 20 us,
// which costs more than we do. But where others may want that processor, the runtime is told.
func (w *watchdog) sleep(d time.Duration) bool {
	if d < time.Millisecond {
		if w.impatient > 0 || goruntime.GOMAXPROCS(0) < 2 {
			ts := unix.NsecToTimespec(int64(d))
			_ = unix.Nanosleep(&ts, nil) // a signal makes it a shorter sleep
		} else {
			sys.SleepThread(d)
			goruntime.Gosched() // somebody has waited for the processor, perhaps
		}
		select {
		case <-w.done:
			return false
		default:
			return true
		}
	}
	w.timer.Reset(d)
	select {
	case <-w.done:
		return false
	case <-w.timer.C:
		return true
	}
}

// look relieves who is in the same request as at the last look.
func (w *watchdog) look() {
	busy, anyReading := false, false
	for _, r := range *w.l.readers.Load() {
		duty := r.duty.Load()
		w.requests += duty>>dutyBits - r.seen>>dutyBits
		switch {
		case duty&dutyMask == handling && duty == r.seen:
			w.l.relieve(r, duty)
			w.impatient = impatientFor
			busy = true
		case duty&dutyMask == handling:
			busy = true
		case duty&dutyMask == reading:
			anyReading = true
		}
		r.seen = duty
	}
	w.crowd = busy && !anyReading
}

// weigh tells how many requests have come since it was called before, and decides by them how many readers there are to be,
// and how often to look.
func (w *watchdog) weigh() (requests uint64) {
	w.balance(w.crowd && w.l.backlog())
	callers := w.l.callers.Load()
	w.several = callers-w.callers >= severalCallers
	w.callers = callers
	requests, w.requests = w.requests, 0
	return requests
}

// backlog tells whether requests wait to be read.
func (l *loop) backlog() bool { return sys.DeviceReady(l.fd) }

// balance puts readers on duty and takes them off, by whether all are busy.
func (w *watchdog) balance(busy bool) {
	if !busy {
		w.busy = 0
		if w.free++; w.free > freeFor && w.l.reduce() {
			w.free = 0
		}
		return
	}
	if w.busy == 0 {
		w.since, w.cpu = time.Now(), processTime()
	}
	w.free = 0
	if w.busy++; w.busy < busyFor {
		return
	}
	w.busy = 0
	most := mostComputing()
	if processTime()-w.cpu < time.Since(w.since)/2 {
		most = maxBlocked // they do not compute: they wait
	}
	w.l.increase(most)
}

// mostComputing is how many readers on duty are worth their processors.
func mostComputing() int { return min(max(1, goruntime.NumCPU()/4), maxBlocked) }

// processTime is the processor time that the process has used.
func processTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// increase puts one reader more on duty, where there are fewer than most.
func (l *loop) increase(most int) {
	l.mu.Lock()
	more := !l.ended && l.onDuty < most
	if more {
		l.onDuty++
	}
	l.mu.Unlock()
	if more {
		l.passOn()
	}
}

// reduce has one reader go off duty, where there are several.
func (l *loop) reduce() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	least := int32(1)
	if !l.crowded.Load() {
		least = calm
	}
	if int32(l.onDuty)-l.surplus.Load() <= least || l.surplus.Load() > 0 {
		return false
	}
	l.surplus.Add(1)
	return true
}
