package bench

import (
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/bench/report"
)

// A Suite is what is to be measured.
type Suite struct {
	Systems   []System
	Workloads []Workload
	Reps      int
	Fixtures  *Fixtures
	Progress  Progress

	found findings
}

// Progress is told how far a run is.
type Progress interface {
	// Total says how many samples there will be at most. It is not called where there will be none.
	Total(samples int)

	// Step says what comes next. Skipped says that n samples will not be taken after all.
	Step(rep int, workload, system string)
	Skipped(n int, why string)

	// Done says that the last sample is taken.
	Done()
}

// column is a system that does a workload.
type column struct {
	sys     System
	t       trial
	dropped bool // it is not there, or its result was wrong
}

// row is a workload and those who do it.
type row struct {
	w       Workload
	columns []*column
}

// Run takes all samples and returns the report of them. A system that is not there is skipped; one whose result is wrong
// gets no time, and is not asked for that workload again.
//
// Errors: the measuring itself failed.
func (s *Suite) Run() (_ *report.Report, err error) {
	if err := s.found.start(s.Reps, s.Fixtures.Scale); err != nil {
		return nil, err
	}
	var rows []*row
	defer func() {
		for _, row := range rows {
			for _, c := range row.columns {
				if c.t != nil {
					err = errors.Join(err, c.t.close())
				}
			}
		}
		err = errors.Join(err, s.Fixtures.Close(), s.found.end())
	}()
	rows = s.rows()
	for rep := range s.Reps {
		for _, row := range rows {
			if err := s.found.begin(rep, row.w.Name); err != nil {
				return nil, err
			}
			for i := range row.columns {
				c := row.columns[(i+rep)%len(row.columns)]
				if c.dropped {
					continue
				}
				s.Progress.Step(rep, row.w.Name, c.sys.Name)
				if err := s.sample(row.w, c, rep); err != nil {
					return nil, fmt.Errorf("%s on %s: %w", row.w.Name, c.sys.Name, err)
				}
			}
		}
	}
	s.Progress.Done()
	return s.found.all(), nil
}

// Interrupted is the report of what is complete while Run goes on: of each workload the repetitions in which every system has
// had its turn. It may be called at any time, by any goroutine.
func (s *Suite) Interrupted() *report.Report { return s.found.complete() }

// rows finds out who is there.
func (s *Suite) rows() (rows []*row) {
	var present []System
	for _, sys := range s.Systems {
		if !slices.ContainsFunc(s.Workloads, func(w Workload) bool { return w.Can(sys) }) {
			continue
		}
		s.found.system(sys.Name)
		if err := sys.Present(s.Fixtures.Dir); err != nil {
			s.found.skip(report.Skip{System: sys.Name, Why: err.Error()})
			s.Progress.Skipped(0, fmt.Sprintf("%s is not there: %v", sys.Name, err))
			continue
		}
		present = append(present, sys)
	}
	total := 0
	for _, w := range s.Workloads {
		s.found.workload(w.Workload)
		row := &row{w: w}
		for _, sys := range present {
			if w.Can(sys) {
				row.columns = append(row.columns, &column{sys: sys})
			}
		}
		rows = append(rows, row)
		total += len(row.columns) * s.Reps
	}
	if total > 0 {
		s.Progress.Total(total)
	}
	return rows
}

// sample takes one, after preparing what only the first needs.
func (s *Suite) sample(w Workload, c *column, rep int) (err error) {
	var sample report.Sample
	if c.t == nil {
		c.t, err = w.newTrial(s.Fixtures, c.sys)
	}
	if err == nil {
		sample, err = measure(c.t)
	}
	rest := s.Reps - rep - 1
	if absent := (absentError{}); errors.As(err, &absent) {
		c.dropped = true
		s.found.skip(report.Skip{Workload: w.Name, System: c.sys.Name, Why: err.Error()})
		s.Progress.Skipped(rest, fmt.Sprintf("%s on %s: %v", w.Name, c.sys.Name, err))
		return nil
	}
	if err != nil {
		return err
	}
	sample.Workload, sample.System, sample.Rep = w.Name, c.sys.Name, rep
	s.found.sample(sample)
	if sample.Incorrect != "" {
		c.dropped = true
		s.Progress.Skipped(rest, fmt.Sprintf("%s on %s: %s", w.Name, c.sys.Name, sample.Incorrect))
	}
	return nil
}
