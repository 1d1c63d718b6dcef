package transport

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeSpin is a spinner whose device and clock are the test's: each look at the clock takes 1 us.
type fakeSpin struct {
	*spinner
	clock time.Time
	after int  // looks at the device until there is a request, -1 for never
	idle  bool // a processor is

	polls, asks int // looks at the device, and for an idle processor
}

func newFakeSpin() *fakeSpin {
	f := &fakeSpin{clock: time.Unix(1000, 0), idle: true}
	f.spinner = &spinner{
		ready: func() bool {
			f.polls++
			f.after--
			return f.after == 0
		},
		idle: func() bool { f.asks++; return f.idle },
		now:  func() time.Time { f.clock = f.clock.Add(time.Microsecond); return f.clock },
	}
	return f
}

// wait spins for a request that is there at the look after, and tells how often it looked.
func (f *fakeSpin) wait(after int) (polls int, found bool) {
	f.polls, f.after = 0, after
	f.spin()
	return f.polls, f.after == 0
}

// It looks until there is a request, and no longer than spinFor.
func TestSpinIsBounded(t *testing.T) {
	f := newFakeSpin()
	for _, after := range []int{1, 2, 20} {
		if polls, found := f.wait(after); polls != after || !found {
			t.Errorf("%d looks, found %v; want it found at look %d", polls, found, after)
		}
	}
	if polls, found := f.wait(-1); polls != int(spinFor/time.Microsecond) || found {
		t.Errorf("%d looks in vain, found %v; want %v of them", polls, found, spinFor)
	}
}

// While all processors are at work it does not look at all, and asks for them once in spinLook.
func TestNoSpinOnABusyMachine(t *testing.T) {
	f := newFakeSpin()
	f.idle = false
	waits := 0
	for end := f.clock.Add(10 * spinLook); f.clock.Before(end); waits++ {
		if polls, found := f.wait(1); polls != 0 || found {
			t.Fatalf("%d looks at the device of a busy machine", polls)
		}
	}
	if f.asks > 11 || waits < 1000 {
		t.Errorf("it asked %d times for an idle processor in %d waits", f.asks, waits)
	}
	f.idle = true
	f.clock = f.clock.Add(spinLook)
	if _, found := f.wait(1); !found {
		t.Error("it does not spin although a processor is idle again")
	}
	f.idle = false
	f.clock = f.clock.Add(spinLook)
	if polls, _ := f.wait(1); polls != 0 {
		t.Error("it spins although no processor is idle any more")
	}
}

// Where it waits in vain it hardly spins any more; and as before as soon as it is of use again.
func TestSpinsLessInVain(t *testing.T) {
	f := newFakeSpin()
	const waits = 10000
	spun := 0
	for range waits {
		if polls, _ := f.wait(-1); polls > 0 {
			spun++
		}
	}
	if most := waits * spinMisses / (spinMisses + spinPause); spun < most-spinMisses || spun > most+spinMisses {
		t.Errorf("it spun %d times of %d in vain, want some %d", spun, waits, most)
	}
	for found := false; !found; { // at most once spinPause
		_, found = f.wait(1)
	}
	for i := range waits {
		if _, found := f.wait(1 + i%3); !found {
			t.Fatalf("it does not spin at wait %d, although it is of use", i)
		}
	}
	for range spinMisses - 1 {
		f.wait(-1)
	}
	if _, found := f.wait(1); !found {
		t.Errorf("%d misses among hits end it", spinMisses-1)
	}
}

func TestWantToRun(t *testing.T) {
	for text, want := range map[string]int{"0.20 0.18 0.12 1/80 11206\n": 1, "14.15 14.69 11.33 17/319 8432\n": 17} {
		if n, ok := wantToRun([]byte(text)); n != want || !ok {
			t.Errorf("%q: %d, %v, want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{"", "0.20", "0.20 0.18 0.12 ", "0.20 0.18 0.12 180", "0.20 0.18 0.12 a/80"} {
		if n, ok := wantToRun([]byte(text)); ok {
			t.Errorf("%q passes for %d", text, n)
		}
	}
	if anyIdle(-1) {
		t.Error("without /proc a processor passes for idle")
	}
	s := newSpinner(-1)
	defer s.close()
	var buf [128]byte
	n, err := unix.Pread(s.loadavg, buf[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	if running, ok := wantToRun(buf[:n]); running < 1 || !ok { // this thread
		t.Errorf("%q: %d, %v", buf[:n], running, ok)
	}
}

// Only the one reader that waits spins, while requests come fast.
func TestWhoSpins(t *testing.T) {
	for _, tt := range []struct {
		name           string
		spins, crowded bool
		waiting        int32
		want           bool
	}{
		{"the only one", true, true, 1, true},
		{"few requests", true, false, 1, false},
		{"another one waits", true, true, 2, false},
		{"beside rings", false, true, 1, false},
	} {
		f := newFakeSpin()
		f.after = 1
		l := &loop{spins: tt.spins, spinner: f.spinner}
		l.crowded.Store(tt.crowded)
		l.waiting.Store(tt.waiting)
		l.spin()
		if got := f.polls > 0; got != tt.want {
			t.Errorf("%s: spins %v, want %v", tt.name, got, tt.want)
		}
	}
}
