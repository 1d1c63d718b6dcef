package transport

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchdog looks after the readers of a loop while requests come, and sleeps else.
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
	// A look costs some 5 us. What blocks once blocks again: then it looks often.
	patience   = time.Millisecond
	impatience = 200 * time.Microsecond

	impatientFor = 20 // looks
	quietFor     = 4  // looks without a request, and it sleeps
	busyFor      = 8  // looks
	freeFor      = 50 // looks
	maxBlocked   = 16 // readers on duty, where they wait
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
		for quiet := 0; quiet < quietFor; {
			timer.Reset(w.pause())
			select {
			case <-w.done:
				return
			case <-timer.C:
			}
			if w.look() {
				quiet = 0
			} else {
				quiet++
			}
		}
		w.asleep.Store(true)
		// A request may have come before the reader could see that we sleep.
		if w.anyHandling() {
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

func (w *watchdog) anyHandling() bool {
	for _, r := range *w.l.readers.Load() {
		if r.duty.Load()&dutyMask == handling {
			return true
		}
	}
	return false
}

// look tells whether anything has happened since the last look.
func (w *watchdog) look() bool {
	active, anyReading := false, false
	for _, r := range *w.l.readers.Load() {
		duty := r.duty.Load()
		switch {
		case duty&dutyMask == handling && duty == r.seen:
			w.l.relieve(r, duty)
			w.impatient = impatientFor
			active = true
		case duty&dutyMask == handling:
			active = true
		case duty&dutyMask == reading:
			anyReading = true
			active = active || duty != r.seen
		}
		r.seen = duty
	}
	w.balance(active && !anyReading)
	return active
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
	if l.onDuty < 2 || l.surplus.Load() > 0 {
		return false
	}
	l.surplus.Add(1)
	return true
}
