package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/bench/report"
	"github.com/laminafs/lamina/runtime/idmap"
)

// plan is what is to be measured. It is handed to the processes that measure it.
type plan struct {
	Systems, Workloads []string
	Callers            []bench.Caller
	Reps               int
	Scale              float64
	Bin                string
	Rootfs, NoRootfs   string
	NoFio              bool
	Scratch            scratch
}

func (p *plan) systems() (list []bench.System, err error) {
	for _, name := range p.Systems {
		s, err := bench.NewSystem(name, p.Bin)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// check returns the workloads that one of the systems does.
//
// Errors: there is none, or what was asked for makes no sense.
func (p *plan) check() ([]bench.Workload, error) {
	systems, err := p.systems()
	if err != nil {
		return nil, err
	}
	workloads, err := p.workloads()
	if err != nil {
		return nil, err
	}
	for i, s := range systems {
		if slices.ContainsFunc(systems[:i], func(o bench.System) bool { return o.Name == s.Name }) {
			return nil, fmt.Errorf("--systems: %s is there twice", s.Name)
		}
	}
	workloads = slices.DeleteFunc(workloads, func(w bench.Workload) bool { return !slices.ContainsFunc(systems, w.Can) })
	if len(workloads) == 0 {
		return nil, errors.New("nothing to be measured: none of --systems does any of --workloads")
	}
	return workloads, nil
}

func (p *plan) workloads() ([]bench.Workload, error) {
	return bench.Match(bench.Workloads(p.Callers...), p.Workloads)
}

// stages are the processes that measure. Root's is one. An ordinary user's unions are mounted in a namespace in which
// he is root; his launchers make their own, which they can only where they are not in one: the set-id newuidmap(1)
// has no power over a namespace that does not know root.
func (p *plan) stages(id *idmap.Identity) []stage {
	if id.Kind == idmap.Root {
		return []stage{{Plan: p, Unions: true, Launchers: true, Namespaces: true}}
	}
	return []stage{{Plan: p, Unions: true, Namespaces: true}, {Plan: p, Launchers: true}}
}

// suite is what a stage measures, on the directory dir.
func (s *stage) suite(dir string, progress bench.Progress) (*bench.Suite, error) {
	p := s.Plan
	suite := &bench.Suite{
		Reps: p.Reps, Progress: progress,
		Fixtures: &bench.Fixtures{Dir: dir, Scale: p.Scale, Bin: p.Bin, NoFio: p.NoFio, Rootfs: p.Rootfs, NoRootfs: p.NoRootfs, Remove: removeTree},
	}
	var err error
	if suite.Systems, err = p.systems(); err != nil {
		return nil, err
	}
	all, err := p.workloads()
	for _, w := range all {
		if w.Launches() && s.Launchers || !w.Launches() && s.Unions {
			suite.Workloads = append(suite.Workloads, w)
		}
	}
	return suite, err
}

// add joins what a stage has found to the rest.
func add(r, more *report.Report) {
	r.Systems = append(r.Systems, more.Systems...)
	r.Workloads = append(r.Workloads, more.Workloads...)
	r.Samples = append(r.Samples, more.Samples...)
	r.Skipped = append(r.Skipped, more.Skipped...)
	r.Interrupted = more.Interrupted
	r.Machine.Others = max(r.Machine.Others, more.Machine.Others)
}
