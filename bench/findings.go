package bench

import (
	"slices"
	"sync"

	"github.com/laminafs/lamina/bench/report"
)

// findings are what a Suite has found so far. Somebody may want to see them in the middle of it.
type findings struct {
	mu sync.Mutex
	r  report.Report

	// What is being measured: a repetition, from 0, of a workload; that is empty before the first.
	rep  int
	now  string
	done bool // nothing any more

	began use // when nothing was measured yet
}

func (f *findings) start(reps int, scale float64) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r = report.Report{Schema: report.Schema, Reps: reps, Scale: scale}
	f.began, err = readUse()
	return err
}

// begin says what is measured next. What came before is complete, and whoever worked for it has been waited for.
func (f *findings) begin(rep int, workload string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rep, f.now = rep, workload
	return f.usedLocked()
}

// end says that everything is done.
func (f *findings) end() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	return f.usedLocked()
}

// usedLocked notes how much others have used until now.
func (f *findings) usedLocked() error {
	now, err := readUse()
	if err == nil {
		f.r.Machine.Others = now.others(f.began)
	}
	return err
}

func (f *findings) system(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Systems = append(f.r.Systems, report.System{Name: name})
}

func (f *findings) workload(w report.Workload) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Workloads = append(f.r.Workloads, w)
}

func (f *findings) skip(s report.Skip) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Skipped = append(f.r.Skipped, s)
}

func (f *findings) sample(s report.Sample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Samples = append(f.r.Samples, s)
}

// all is the report itself, once nothing is added any more.
func (f *findings) all() *report.Report { return &f.r }

// complete is a copy without the samples of the repetition that is not complete. It says of which workloads nothing is left.
func (f *findings) complete() *report.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.r
	r.Systems, r.Workloads, r.Skipped = slices.Clone(r.Systems), slices.Clone(r.Workloads), slices.Clone(r.Skipped)
	r.Samples = slices.Clone(r.Samples)
	if f.done {
		return &r
	}
	r.Interrupted = f.rep + 1
	r.Samples = slices.DeleteFunc(r.Samples, func(s report.Sample) bool { return s.Workload == f.now && s.Rep == f.rep })
	if f.rep > 0 {
		return &r
	}
	reached := slices.IndexFunc(r.Workloads, func(w report.Workload) bool { return w.Name == f.now })
	for _, w := range r.Workloads[max(0, reached):] {
		r.Skipped = append(r.Skipped, report.Skip{Workload: w.Name, Why: "the run was interrupted before it was measured"})
	}
	return &r
}
