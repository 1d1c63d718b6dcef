package bench

import (
	"errors"
	goruntime "runtime"
	"time"

	"github.com/laminafs/lamina/bench/report"
)

// A trial is one system doing one workload. The steps are those of the package comment; end is called after each begin,
// whatever has failed, and close once.
type trial interface {
	begin() error
	run() error
	check() error
	end() error
	close() error

	// requests are those that the server has answered, by opcode; nil where it does not tell. Asking costs it some, so
	// that the gauges are read between.
	requests() (map[string]int64, error)
	gauges() (gauges, error)

	// took is the wall time that the work itself has measured; 0 for none. objects is how many it was about, for what
	// an object costs in memory; 0 for none.
	took() time.Duration
	objects() int64

	// resetPeak begins a new largest resident set; memory tells it. before is what memory gave before the run.
	resetPeak() error
	memory() (*report.Memory, error)
}

// gauges are counters that only grow.
type gauges struct {
	client, server time.Duration
}

// absentError says that a system cannot do this here: it is skipped.
type absentError struct{ error }

func (e absentError) Unwrap() error { return e.error }

// measure takes one sample. What goes wrong with the work or its result is told by the sample.
//
// Errors: absentError where the system cannot be had; others that the measuring itself failed.
func measure(t trial) (s report.Sample, err error) {
	defer func() {
		e := t.end()
		if err == nil && e != nil && s.Incorrect == "" {
			s = report.Sample{Incorrect: "end: " + e.Error()}
		}
	}()
	if err := t.begin(); err != nil {
		if absent := (absentError{}); errors.As(err, &absent) {
			return s, err
		}
		return report.Sample{Incorrect: "prepare: " + err.Error()}, nil
	}
	held, err := t.memory()
	if err != nil {
		return s, err
	}
	if err := t.resetPeak(); err != nil {
		return s, err
	}
	goruntime.GC() // not in the middle of it
	asked, err := t.requests()
	if err != nil {
		return s, err
	}
	before, err := t.gauges()
	if err != nil {
		return s, err
	}
	machine, err := readTicks()
	if err != nil {
		return s, err
	}
	start := time.Now()
	failed := t.run()
	s.Wall = time.Since(start)
	ticked, err := readTicks()
	if err != nil {
		return s, err
	}
	if failed != nil {
		return report.Sample{Incorrect: failed.Error()}, nil
	}
	after, err := t.gauges()
	if err != nil {
		return s, err
	}
	if s.Memory, err = t.memory(); err != nil {
		return s, err
	}
	answered, err := t.requests()
	if err != nil {
		return s, err
	}
	s.Requests = grown(asked, answered)
	s.Client, s.Server = after.client-before.client, after.server-before.server
	s.Others, s.Steal = ticked.busy-machine.busy-s.Client-s.Server, ticked.steal-machine.steal
	if own := t.took(); own > 0 {
		s.Wall = own
	}
	if s.Memory != nil && held != nil {
		s.Memory.Before, s.Memory.Objects = held.After, t.objects()
	}
	if err := t.check(); err != nil {
		return report.Sample{Incorrect: "wrong result: " + err.Error()}, nil
	}
	return s, nil
}

// grown is by how much counters grew, without those that did not.
func grown(before, after map[string]int64) map[string]int64 {
	if after == nil {
		return nil
	}
	diff := map[string]int64{}
	for op, n := range after {
		if d := n - before[op]; d > 0 {
			diff[op] = d
		}
	}
	return diff
}
