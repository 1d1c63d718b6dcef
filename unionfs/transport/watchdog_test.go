package transport

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

func newFakeLoop(t *testing.T) (*fakeKernel, *waitfs, *loop) {
	fs := newWaitfs()
	k, _ := newFakeKernel(t, Options{Transport: Loop}, fs)
	l := k.s.carrier.(*loop)
	waitFor(t, "both readers", func() bool { return l.readersOnDuty() == calm })
	return k, fs, l
}

func (l *loop) readersOnDuty() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.onDuty
}

// ownWatchdog is a watchdog that only does what it is told, in the place of the loop's.
func (l *loop) ownWatchdog(t *testing.T) *watchdog {
	waitFor(t, "that the watchdog sleeps", l.dog.asleep.Load)
	l.dog.asleep.Store(false) // so nobody wakes it
	return &watchdog{l: l}
}

// Where nobody is ever found reading and the process does not compute either, more readers go on duty, up to a bound;
// and when one suffices, they go off again.
func TestMoreReadersWhereTheyWait(t *testing.T) {
	k, _, l := newFakeLoop(t)
	w := l.ownWatchdog(t)
	for range maxBlocked + 3 {
		for range busyFor {
			w.balance(true)
			w.since, w.cpu = time.Now().Add(-time.Hour), processTime()
		}
	}
	if n := l.readersOnDuty(); n != maxBlocked {
		t.Errorf("%d readers on duty, want %d", n, maxBlocked)
	}
	unique := uint64(2)
	for range maxBlocked - calm {
		before := l.readersOnDuty()
		for range freeFor + 1 {
			w.balance(false)
		}
		for l.readersOnDuty() == before {
			k.send(lookup(unique, "x"))
			k.expect(unique, fuse.OK)
			unique += 2
		}
	}
	if n := l.readersOnDuty(); n != calm {
		t.Errorf("%d readers on duty, want %d", n, calm)
	}
}

// Where the process computes all the time, more readers than there are processors for would only take them from others.
func TestNoMoreReadersWhereTheyCompute(t *testing.T) {
	_, _, l := newFakeLoop(t)
	w := l.ownWatchdog(t)
	for range 100 {
		w.balance(true)
		w.since, w.cpu = time.Now(), processTime()-time.Hour
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := max(mostComputing(), calm); l.onDuty > most {
		t.Errorf("%d readers on duty, want at most %d", l.onDuty, most)
	}
}

// While requests come fast one reader is on duty, and afterwards two again.
func TestOneReaderWhenFast(t *testing.T) {
	k, _, l := newFakeLoop(t)
	unique := uint64(2)
	for end := time.Now().Add(limit); l.readersOnDuty() != 1; unique += 2 {
		if time.Now().After(end) {
			t.Fatalf("%d readers on duty after %d requests", l.readersOnDuty(), unique/2)
		}
		for range 4 { // more than one at a time, so that a slow machine is fast enough
			k.send(lookup(unique, "x"))
		}
		for range 4 {
			k.expect(unique, fuse.OK)
		}
	}
	waitFor(t, "a second reader", func() bool { return l.readersOnDuty() == calm })
	waitFor(t, "that the watchdog sleeps", l.dog.asleep.Load)
}

// After a crowd few readers stay, and when nothing comes any more the watchdog sleeps.
func TestReadersGoHome(t *testing.T) {
	k, fs, l := newFakeLoop(t)
	const many = 100
	for i := range uint64(many) {
		k.send(lookup(2*i+2, "blocking"))
		<-fs.began
	}
	if n := len(*l.readers.Load()); n <= many {
		t.Errorf("%d readers for %d requests that wait", n, many)
	}
	close(fs.release)
	for range many {
		k.receive()
	}
	waitFor(t, "that readers leave", func() bool { return len(*l.readers.Load()) <= maxIdle+calm })
	waitFor(t, "that the watchdog sleeps", l.dog.asleep.Load)
	k.send(lookup(2, "slow")) // and it wakes up
	k.send(lookup(4, "x"))
	answered := map[uint64]bool{} // in any order: two readers are on duty
	for range 2 {
		h := *sys.View[fuse.OutHeader](k.receive())
		answered[h.Unique] = h.Status == 0
	}
	if !answered[2] || !answered[4] {
		t.Errorf("answered are %v, want 2 and 4", answered)
	}
}
