package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/laminafs/lamina/bench/report"
)

// How warm work is. At the second reading the kernel does what it does then only: it activates pages, and asks a FUSE server
// for times that it does not trust after a READ.
const (
	once  = 1 // the second time is measured
	twice = 2 // the third, which is as all that follow
)

// A unionWork is a workload that is done on a mounted tree.
type unionWork struct {
	layers func(f *Fixtures) (*Layers, error)

	// writes says that the work changes the tree: the plain directory is then a copy.
	writes bool

	// warm is how often the work is done before it is measured; prepare, which may be nil, makes what it needs.
	warm    int
	prepare func(j *job) error

	// run does the work and returns what it saw.
	run func(j *job) (string, error)

	// left returns what the tree is like afterwards; nil where the work has seen enough.
	left func(j *job) ([]string, error)

	// objects is how many the work is about; nil where nobody asks.
	objects func(f *Fixtures) int64
}

// A job is one doing of the work.
type job struct {
	f    *Fixtures
	dir  string        // the tree
	took time.Duration // as the work itself has measured it; 0: from its beginning to its end
	more any           // what prepare leaves for run
}

func (j *job) path(name string) string { return filepath.Join(j.dir, name) }

// a unionTrial is a union doing a unionWork.
type unionTrial struct {
	work   *unionWork
	name   string // of the workload
	sys    System
	f      *Fixtures
	layers *Layers

	m    *Mount // nil for the plain directory
	copy string // of the plain directory, where it is changed
	j    *job
	saw  string
}

var _ trial = (*unionTrial)(nil)

// newTrial makes the layers, and learns from the plain directory what is right.
func (w *unionWork) newTrial(name string, f *Fixtures, sys System) (trial, error) {
	layers, err := w.layers(f)
	if err != nil {
		return nil, absentError{err}
	}
	if _, known := f.right[name]; !known {
		plain, err := NewSystem(Plain, "")
		if err != nil {
			return nil, err
		}
		right, err := (&unionTrial{work: w, name: name, sys: plain, f: f, layers: layers}).once()
		if err != nil {
			return nil, absentError{fmt.Errorf("it does not work on a plain directory: %w", err)}
		}
		if f.right == nil {
			f.right = map[string][]string{}
		}
		f.right[name] = right
	}
	return &unionTrial{work: w, name: name, sys: sys, f: f, layers: layers}, nil
}

// once does the work without measuring it, and returns what came of it.
func (t *unionTrial) once() (result []string, err error) {
	defer func() { err = errors.Join(err, t.end()) }()
	if err := t.begin(); err != nil {
		return nil, err
	}
	if err := t.run(); err != nil {
		return nil, err
	}
	return t.result()
}

func (t *unionTrial) begin() (err error) {
	t.j = &job{f: t.f}
	switch {
	case t.sys.Name != Plain:
		if t.m, err = t.sys.Mount(filepath.Join(t.f.Dir, "mount"), t.layers); err != nil {
			return absentError{err}
		}
		t.j.dir = t.m.Dir
	case t.work.writes:
		t.copy = filepath.Join(t.f.Dir, "copy")
		t.j.dir = t.copy
		if err := os.Mkdir(t.copy, 0o755); err != nil {
			return err
		}
		if err := run("cp", "-a", t.layers.Plain+"/.", t.copy); err != nil {
			return err
		}
	default:
		t.j.dir = t.layers.Plain
	}
	if t.work.prepare != nil {
		if err := t.work.prepare(t.j); err != nil {
			return err
		}
	}
	for range t.work.warm {
		if _, err := t.work.run(t.j); err != nil {
			return err
		}
	}
	return nil
}

func (t *unionTrial) run() (err error) {
	t.saw, err = t.work.run(t.j)
	return err
}

// result is what the work saw, and then what it left.
func (t *unionTrial) result() ([]string, error) {
	if t.work.left == nil {
		return []string{t.saw}, nil
	}
	left, err := t.work.left(t.j)
	return append([]string{t.saw}, left...), err
}

func (t *unionTrial) check() error {
	got, err := t.result()
	if err != nil {
		return err
	}
	if d := difference(got, t.f.right[t.name]); d != "" {
		return errors.New(d)
	}
	return nil
}

func (t *unionTrial) end() (err error) {
	if t.m != nil {
		err = t.m.Unmount()
		t.m = nil
	}
	if t.copy != "" {
		err = errors.Join(err, os.RemoveAll(t.copy))
		t.copy = ""
	}
	return err
}

func (t *unionTrial) close() error { return nil }

func (t *unionTrial) requests() (map[string]int64, error) {
	if t.m == nil {
		return nil, nil
	}
	return t.m.Requests()
}

func (t *unionTrial) gauges() (g gauges, err error) {
	if t.m != nil {
		if g.server, err = t.m.ServerCPU(); err != nil {
			return g, err
		}
	}
	g.client, err = selfCPU()
	return g, err
}

func (t *unionTrial) took() time.Duration { return t.j.took }

func (t *unionTrial) objects() int64 {
	if t.work.objects == nil {
		return 0
	}
	return t.work.objects(t.f)
}

func (t *unionTrial) pid() int {
	if t.m == nil {
		return 0
	}
	return t.m.Pid()
}

func (t *unionTrial) resetPeak() error {
	if t.pid() == 0 {
		return nil
	}
	return resetPeak(t.pid())
}

func (t *unionTrial) memory() (*report.Memory, error) {
	pid := t.pid()
	if pid == 0 {
		return nil, nil
	}
	var m report.Memory
	var err error
	if m.Peak, err = statusBytes(pid, "VmHWM"); err != nil {
		return nil, err
	}
	if m.After, err = statusBytes(pid, "VmRSS"); err != nil {
		return nil, err
	}
	m.FDs, m.FDLimit, err = descriptors(pid)
	return &m, err
}
