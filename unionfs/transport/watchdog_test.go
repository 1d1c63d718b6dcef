package transport

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func newFakeLoop(t *testing.T) (*fakeKernel, *waitfs, *loop) {
	fs := newWaitfs()
	k, _ := newFakeKernel(t, Options{Transport: Loop}, fs)
	return k, fs, k.s.carrier.(*loop)
}

func (l *loop) readersOnDuty() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.onDuty
}

// Where nobody is ever found reading and the process does not compute either, more readers go on duty, up to a bound;
// and when one suffices, they go off again.
func TestMoreReadersWhereTheyWait(t *testing.T) {
	k, _, l := newFakeLoop(t)
	w := &watchdog{l: l} // beside the loop's own, which has nothing to do
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
	for range maxBlocked - 1 {
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
	for range freeFor + 1 {
		w.balance(false)
	}
	k.send(lookup(unique, "x"))
	k.expect(unique, fuse.OK)
	if n := l.readersOnDuty(); n != 1 {
		t.Errorf("%d readers on duty, want 1", n)
	}
}

// Where the process computes all the time, more readers than there are processors for would only take them from others.
func TestNoMoreReadersWhereTheyCompute(t *testing.T) {
	_, _, l := newFakeLoop(t)
	w := &watchdog{l: l}
	for range 100 {
		w.balance(true)
		w.since, w.cpu = time.Now(), processTime()-time.Hour
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if most := mostComputing(); l.onDuty > most {
		t.Errorf("%d readers on duty, want at most %d", l.onDuty, most)
	}
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
	waitFor(t, "that readers leave", func() bool { return len(*l.readers.Load()) <= maxIdle+1 })
	waitFor(t, "that the watchdog sleeps", l.dog.asleep.Load)
	k.send(lookup(2, "slow")) // and it wakes up
	k.send(lookup(4, "x"))
	k.expect(2, fuse.OK)
	k.expect(4, fuse.OK)
}
