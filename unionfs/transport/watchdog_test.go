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

// oneReader has a single reader on duty, as while requests come fast, and nobody who looks after it but the caller.
func oneReader(t *testing.T) (*fakeKernel, *waitfs, *loop, *watchdog) {
	k, fs, l := newFakeLoop(t)
	w := l.ownWatchdog(t)
	l.crowded.Store(true)
	if !l.reduce() {
		t.Fatal("both readers stay")
	}
	for unique := uint64(1000); l.readersOnDuty() != 1; unique += 2 {
		k.send(lookup(unique, "x"))
		k.expect(unique, fuse.OK)
	}
	waitFor(t, "that the other stands by", func() bool { return l.standingBy() == 1 })
	w.weigh() // what was before does not count
	return k, fs, l, w
}

// A reader that is at the same request at two looks is relieved, and not before: then the requests that wait are answered
// while the first one is still at work.
func TestRelievedAtTheSecondLook(t *testing.T) {
	k, fs, l, w := oneReader(t)
	w.look() // at what was before
	k.send(lookup(2, "slow"))
	<-fs.began
	k.send(lookup(4, "x"))
	k.send(lookup(6, "slow"))
	w.look()
	if n := len(*l.readers.Load()) - l.standingBy(); n != 1 || !l.backlog() {
		t.Errorf("after one look %d readers are at work, backlog %v; want 1 and true", n, l.backlog())
	}
	w.look()
	k.expect(4, fuse.OK)
	<-fs.began // the third
	k.send(lookup(8, "x"))
	w.look()
	w.look()
	k.expect(8, fuse.OK)
	if l.backlog() {
		t.Error("requests wait although a reader is free")
	}
	if n := l.readersOnDuty(); n != 1 {
		t.Errorf("%d readers on duty, want the 1 that there was", n)
	}
	close(fs.release)
	left := map[uint64]bool{}
	for range 2 {
		left[sys.View[fuse.OutHeader](k.receive()).Unique] = true
	}
	if !left[2] || !left[6] {
		t.Errorf("answered at the end are %v, want 2 and 6", left)
	}
}

func (l *loop) standingBy() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.idle)
}

// from is a request that a thread sends.
func from(pid uint32, p []byte) []byte {
	sys.View[fuse.InHeader](p).Pid = pid
	return p
}

// It looks often while several threads ask, and after it had to relieve somebody; not while one thread asks, whatever
// the kernel itself sends between.
func TestLooksOftenWhereOthersWait(t *testing.T) {
	k, fs, _, w := oneReader(t)
	ask := func(pids ...uint32) {
		for i := range uint64(40) {
			k.send(from(pids[int(i)%len(pids)], lookup(2*i+2, "x")))
			k.expect(2*i+2, fuse.OK)
		}
		w.look()
		w.weigh()
	}
	for _, tt := range []struct {
		name string
		pids []uint32
		want time.Duration
	}{
		{"one thread", []uint32{7}, patience},
		{"two threads", []uint32{7, 8}, impatience},
		{"one again", []uint32{7}, patience},
		{"one and the kernel", []uint32{7, 0}, patience},
		{"the kernel", []uint32{0}, patience},
	} {
		ask(tt.pids...)
		if d := w.pause(); d != tt.want {
			t.Errorf("%s: it looks again after %v, want %v", tt.name, d, tt.want)
		}
	}
	k.send(from(7, lookup(2, "slow")))
	<-fs.began
	w.look()
	w.look()
	for i := range impatientFor {
		if d := w.pause(); d != impatience {
			t.Fatalf("after somebody was relieved it looks again after %v, at pause %d", d, i)
		}
	}
	if d := w.pause(); d != patience {
		t.Errorf("long after that it looks again after %v, want %v", d, patience)
	}
	close(fs.release)
	k.expect(2, fuse.OK)
}

// More readers go on duty for requests that wait to be read, and for nothing else: a client that waits for its answer needs
// no second reader, however long its requests take.
func TestMoreReadersForABacklogOnly(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		k, fs, l, w := oneReader(t)
		k.send(lookup(2, "slow"))
		<-fs.began
		if waiting {
			k.send(lookup(4, "x"))
		}
		for range busyFor {
			w.crowd = true // as look finds it, but that it relieves nobody
			w.weigh()
			w.since, w.cpu = time.Now().Add(-time.Hour), processTime()
		}
		want := 1
		if waiting {
			want = 2
			k.expect(4, fuse.OK)
		}
		if n := l.readersOnDuty(); n != want {
			t.Errorf("requests wait: %v; %d readers on duty, want %d", waiting, n, want)
		}
		close(fs.release)
		k.expect(2, fuse.OK)
	}
}

// What is stored is stored from beside the requests: the reader that is at work stays on duty.
func TestStoreRelievesNobody(t *testing.T) {
	k, fs, l, _ := oneReader(t)
	k.send(lookup(2, "slow"))
	<-fs.began
	if status := k.m.Notifier().Store(7, 0, []byte("abc")); status != fuse.OK {
		t.Fatal(status)
	}
	k.receive() // the notification
	onDuty := 0
	for _, r := range *l.readers.Load() {
		if r.duty.Load()&dutyMask == handling {
			onDuty++
		}
	}
	if onDuty != 1 {
		t.Errorf("%d readers are on duty with a request, want the 1 that there was", onDuty)
	}
	close(fs.release)
	k.expect(2, fuse.OK)
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
		const atOnce = 16 // so that a slow machine is fast enough
		for range atOnce {
			k.send(lookup(unique, "x"))
		}
		for range atOnce {
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
