// Package sysmon keeps a fault of Go's runtime from stopping a process for up to a minute.
//
// Since Go 1.26 a goroutine that enters a system call looks for a pending stop of the world first and says that it is
// in a system call second. A stop that begins in between counts it as running and waits for it. What would find out is
// the runtime's monitor thread, and that goes to sleep because the world is being stopped: for a minute, or until the
// next timer of the process (src/runtime/proc.go: reentersyscall, stopTheWorldWithSema, sysmon). A server whose threads
// block in read(2) for requests, and whose clients wait for the answer of the thread that collects garbage, hangs that
// long. It takes some 100,000 stops for one to go wrong.
//
// So a process that must always answer keeps a timer pending, and a stop that goes wrong ends with it.
package sysmon

import "time"

// How long a stop that goes wrong may last, in a process that works and in one that does not. The price is a wake-up
// of the process each time.
const (
	busyPause = 100 * time.Millisecond
	idlePause = time.Second
)

// Watch bounds the pauses of the process until done is closed, nil for never. work returns a count that grows while there
// is something to do; without one, a pause may last as long as in a process that has nothing to do.
func Watch(done <-chan struct{}, work func() uint64) {
	if work == nil {
		work = func() uint64 { return 0 }
	}
	go func() {
		before := work()
		pause := time.NewTimer(busyPause)
		defer pause.Stop()
		for {
			select {
			case <-done:
				return
			case <-pause.C:
			}
			now := work()
			pause.Reset(next(before, now))
			before = now
		}
	}()
}

// next is how long to wait after a look that found now, and one before it that found before.
func next(before, now uint64) time.Duration {
	if before == now {
		return idlePause
	}
	return busyPause
}
