package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Sample is one run of a workload on a system.
type Sample struct {
	Workload, System string
	Round            int

	Wall   time.Duration
	Client time.Duration // CPU time of those who used the mount
	Server time.Duration // CPU time of those who served it; what the kernel does by itself is nobody's

	// Requests that came to the server, by opcode; nil where it does not tell.
	Requests map[string]int64 `json:",omitempty"`
}

// A Suite is what is to be measured.
type Suite struct {
	Systems   []System
	Workloads []Workload
	Rounds    int
	Fixtures  *Fixtures
	Progress  io.Writer // a line for each workload of a round
}

// Run takes all samples.
func (s *Suite) Run() ([]Sample, error) {
	var samples []Sample
	for round := range s.Rounds {
		for _, w := range s.Workloads {
			fmt.Fprintf(s.Progress, "round %d of %d: %s\n", round+1, s.Rounds, w.Name)
			for i := range s.Systems {
				sys := s.Systems[(i+round)%len(s.Systems)]
				sample, err := measure(sys, w, s.Fixtures)
				if err != nil {
					return samples, fmt.Errorf("%s on %s: %w", w.Name, sys.Name, err)
				}
				sample.Round = round
				samples = append(samples, sample)
			}
		}
	}
	return samples, nil
}

// measure takes one sample.
func measure(sys System, w Workload, f *Fixtures) (s Sample, err error) {
	lowers, err := w.Lowers(f)
	if err != nil {
		return s, err
	}
	plain := lowers[0]
	if w.Writes && sys.Name == Plain {
		plain = filepath.Join(f.Dir, "plain")
		if err := run("cp", "-a", lowers[0], plain); err != nil {
			return s, err
		}
		defer os.RemoveAll(plain)
	}
	m, err := sys.Mount(filepath.Join(f.Dir, "mount"), lowers, plain)
	if err != nil {
		return s, err
	}
	defer func() {
		if e := m.Unmount(); err == nil {
			err = e
		}
	}()
	if w.Prepare != nil {
		if err := w.Prepare(f, m.Dir); err != nil {
			return s, fmt.Errorf("prepare: %w", err)
		}
	}
	goruntime.GC() // not in the middle of it

	before, err := readGauges(m)
	if err != nil {
		return s, err
	}
	start := time.Now()
	if err := w.Run(f, m.Dir); err != nil {
		return s, err
	}
	s.Wall = time.Since(start)
	after, err := readGauges(m)
	if err != nil {
		return s, err
	}
	s.Workload, s.System = w.Name, sys.Name
	s.Client, s.Server = after.client-before.client, after.server-before.server
	if after.requests != nil {
		s.Requests = map[string]int64{}
		for op, n := range after.requests {
			if d := n - before.requests[op]; d > 0 {
				s.Requests[op] = d
			}
		}
	}
	return s, nil
}

// gauges are counters that only grow.
type gauges struct {
	client, server time.Duration
	requests       map[string]int64
}

func readGauges(m *Mount) (g gauges, err error) {
	// The server first: asking for the requests costs it some.
	if g.server, err = m.ServerCPU(); err != nil {
		return g, err
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			return g, err
		}
		g.client += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	g.requests, err = m.Requests()
	return g, err
}
