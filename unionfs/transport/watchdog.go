package transport

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog looks after the readers of a loop while requests come fast, or all readers are busy, and sleeps else.
//
// A reader that is found in the same request twice is relieved. When none is found reading for a while, there is more to
// do than the readers on duty can: if they wait for something, or where there are many processors, one more goes on
// duty. On two processors a second reader that computes takes more from its clients than it gives.
type watchdog struct {
	l      *loop
	asleep atomic.Bool
	wake   chan struct{}
	done   chan struct{}

	// The watchdog's own.
	busy      int           // how many times in a row nobody was found reading
	free      int           // how many times in a row somebody was
	since     time.Time     // when busy was 0
	cpu       time.Duration // of the process, then
	impatient int           // how many more times to look often
}

const (
	// A look costs 10 to 50 us, most of it to wake up. What blocks once blocks again: then it looks often.
	patience   = time.Millisecond
	impatience = 200 * time.Microsecond

	impatientFor = 20 // looks
	few          = 2  // requests between two looks
	quietFor     = 4  // looks with few requests, and it sleeps
	busyFor      = 8  // looks
	freeFor      = 50 // looks
	maxBlocked   = 16 // readers on duty, where they wait
	calm         = 2  // readers on duty, where few requests come
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
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-w.wake:
		}
		w.busy, w.free = 0, 0
		if w.l.crowded.Load() {
			w.l.reduce()
		}
		for quiet := 0; quiet < quietFor; {
			timer.Reset(w.pause())
			select {
			case <-w.done:
				return
			case <-timer.C:
			}
			if w.look() > few {
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

func (w *watchdog) pause() time.Duration {
	if w.impatient > 0 {
		w.impatient--
		return impatience
	}
	return patience
}

// look tells how many requests have come since the last look.
func (w *watchdog) look() (requests uint64) {
	busy, anyReading := false, false
	for _, r := range *w.l.readers.Load() {
		duty := r.duty.Load()
		requests += duty>>dutyBits - r.seen>>dutyBits
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
	w.balance(busy && !anyReading)
	return requests
}

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
func mostComputing() int { return min(max(1, runtime.NumCPU()/4), maxBlocked) }

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
