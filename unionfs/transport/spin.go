package transport

import (
	"bytes"
	goruntime "runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A spinner has a reader ask the device for a while whether there is a request, before it sleeps until there is one. To be
// woken is most of what a request costs on a machine with idle processors; the client, too, is spared from waking anybody.
//
// It is for the only reader that waits, while requests come fast (loop.spin). It takes a processor that nobody else has a use for, or
// it would take more than it gives: so it looks at how many threads want to run on the machine, and while there are more
// than processors it does not spin. And it spins less where that is of no use: after spinMisses times in vain in a row, not
// for the next spinPause requests.
type spinner struct {
	loadavg int // open on /proc/loadavg, or -1

	ready func() bool      // whether there is a request
	idle  func() bool      // whether a processor is
	now   func() time.Time // time.Now but in tests

	looked  time.Time // when idle was asked
	allowed bool      // what it said
	misses  int       // in a row
	pause   int       // how many more times not to spin
}

const (
	spinFor    = 50 * time.Microsecond // docs/TRANSPORT.md has what was measured
	spinLook   = 2 * time.Millisecond  // how long idle's answer is good for: it takes some 2 us to ask
	spinMisses = 4
	spinPause  = 8
)

func newSpinner(fd int) *spinner {
	loadavg, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		loadavg = -1 // then no processor passes for idle
	}
	return &spinner{
		loadavg: loadavg,
		ready:   func() bool { return sys.DeviceReady(fd) },
		idle:    func() bool { return anyIdle(loadavg) },
		now:     time.Now,
	}
}

func (s *spinner) close() { sys.Close(s.loadavg) }

// spin is called by a reader that counts as waiting. It has the spinner for itself until it does not.
func (l *loop) spin() {
	if l.spins && l.crowded.Load() && l.waiting.Load() == 1 {
		l.spinner.spin()
	}
}

// spin waits for a request for spinFor at most, if it is worth it.
func (s *spinner) spin() {
	if s.pause > 0 {
		s.pause--
		return
	}
	began := s.now()
	if began.Sub(s.looked) >= spinLook {
		s.looked, s.allowed = began, s.idle()
	}
	if !s.allowed {
		return
	}
	for {
		if s.ready() {
			s.misses = 0
			return
		}
		if s.now().Sub(began) >= spinFor {
			break
		}
	}
	if s.misses++; s.misses >= spinMisses {
		s.misses, s.pause = 0, spinPause
	}
}

// anyIdle tells whether no more threads want to run than this process may use processors; loadavg is open on
// /proc/loadavg. The caller and its client are among those. Where they are not to be had, it is false.
//
// Source: proc_loadavg(5), the number before the slash.
func anyIdle(loadavg int) bool {
	var buf [128]byte
	n, err := unix.Pread(loadavg, buf[:], 0)
	if err != nil {
		return false
	}
	running, ok := wantToRun(buf[:n])
	return ok && running <= goruntime.NumCPU()
}

// wantToRun reads "0.20 0.18 0.12 1/80 11206".
func wantToRun(loadavg []byte) (int, bool) {
	for range 3 {
		_, rest, ok := bytes.Cut(loadavg, []byte(" "))
		if !ok {
			return 0, false
		}
		loadavg = rest
	}
	running, _, ok := bytes.Cut(loadavg, []byte("/"))
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(sys.StringOf(running))
	return n, err == nil
}
