package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/bench/report"
)

// quiet is told of progress and says nothing.
type quiet struct{ totals, steps, skipped, done int }

func (q *quiet) Total(int)                { q.totals++ }
func (q *quiet) Done()                    { q.done++ }
func (q *quiet) Step(int, string, string) { q.steps++ }
func (q *quiet) Skipped(n int, _ string)  { q.skipped += n }

// copying is a system without privilege: a copy of the lowest layer, which spoil changes.
func copying(name string, spoil func(dir string) error) System {
	return System{Name: name, mount: func(m *Mount) error {
		if m.layers.Plain == "" {
			return errors.New("nothing to copy")
		}
		if err := run("cp", "-a", m.layers.Plain+"/.", m.Dir); err != nil {
			return err
		}
		if strings.Contains(m.Dir, "/probe-") {
			return nil // is it there? It is
		}
		return spoil(m.Dir)
	}}
}

// chosen finds workloads by their names.
func chosen(t *testing.T, names ...string) []Workload {
	t.Helper()
	list, err := Match(Workloads(), names)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// suiteOf measures small.
func suiteOf(t *testing.T, systems []System, workloads []Workload, reps int) (*report.Report, *quiet) {
	t.Helper()
	q := &quiet{}
	s := Suite{
		Systems: systems, Workloads: workloads, Reps: reps, Progress: q,
		Fixtures: &Fixtures{Dir: t.TempDir(), Scale: 0.002, NoFio: true, NoRootfs: "there is none"},
	}
	r, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	return r, q
}

// anyFile is one of the tree.
func anyFile(dir string) (path string, err error) {
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			path = p
			return filepath.SkipAll
		}
		return err
	})
	return path, err
}

// A system that shows the wrong thing has no time, whatever is wrong and whatever looks at it; the others do.
func TestWrongResultHasNoTime(t *testing.T) {
	onFile := func(do func(path string) error) func(dir string) error {
		return func(dir string) error {
			path, err := anyFile(dir)
			if err != nil || path == "" {
				return err // an empty layer
			}
			return do(path)
		}
	}
	tests := []struct {
		name  string
		spoil func(dir string) error
		found []string // workloads that must notice
	}{
		{"a file is missing", onFile(os.Remove), []string{"walk-cold", "stat-cold", "readdir-warm", "read-cold", "readers-cold", "copyup-small"}},
		{"a file has other bytes", onFile(func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, []byte(strings.Repeat("?", int(info.Size()))), info.Mode())
		}), []string{"read-cold", "read-warm", "readers-warm", "copyup-small", "copyup-big", "seq-read", "mmap-read"}},
		{"a file has another mode", onFile(func(path string) error { return os.Chmod(path, 0o600) }),
			[]string{"walk-warm", "stat-warm", "copyup-small"}},
		{"a name too many", func(dir string) error { return os.WriteFile(filepath.Join(dir, "extra"), nil, 0o644) },
			[]string{"walk-cold", "readdir-cold", "untar", "storm", "layers-16-walk", "names-50k-walk"}},
		{"nothing can be removed", func(dir string) error {
			return os.Symlink("/nowhere", filepath.Join(dir, "left")) // for what rm leaves: it is no file of the tree
		}, []string{"walk-cold"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good := copying("good", func(string) error { return nil })
			r, q := suiteOf(t, []System{good, copying("bad", tt.spoil)}, chosen(t, tt.found...), 2)
			for _, name := range tt.found {
				var well, bad []report.Sample
				for _, s := range r.Samples {
					switch {
					case s.Workload == name && s.System == "good":
						well = append(well, s)
					case s.Workload == name:
						bad = append(bad, s)
					}
				}
				if len(well) != 2 || well[0].Incorrect != "" || well[0].Wall <= 0 {
					t.Errorf("%s: the good one: %+v", name, well)
				}
				// Once is enough: it is not asked again.
				if len(bad) != 1 || bad[0].Incorrect == "" || bad[0].Wall != 0 || bad[0].Client != 0 {
					t.Errorf("%s: the bad one: %+v", name, bad)
				}
			}
			if q.skipped != len(tt.found) {
				t.Errorf("progress was told of %d samples that will not be, want %d", q.skipped, len(tt.found))
			}
		})
	}
}

// What a filesystem does wrong with a change is found too: here unlink leaves the file.
func TestWrongChangeHasNoTime(t *testing.T) {
	work := unionWork{
		layers: (*Fixtures).Small, writes: true, left: all,
		run: func(j *job) (string, error) {
			if strings.Contains(j.dir, "merged") {
				return "", nil // the union
			}
			return removeAll(j.dir)
		},
	}
	r, _ := suiteOf(t, []System{copying("bad", func(string) error { return nil })}, []Workload{onUnion(metadata, "rm", "", 0, work)}, 1)
	if len(r.Samples) != 1 || !strings.HasPrefix(r.Samples[0].Incorrect, "wrong result: ") || r.Samples[0].Wall != 0 {
		t.Errorf("%+v", r.Samples)
	}
}

func TestFailedWorkHasNoTime(t *testing.T) {
	mounts := 0
	work := unionWork{layers: (*Fixtures).Empty, run: func(j *job) (string, error) {
		if strings.Contains(j.dir, "merged") {
			return "", errors.New("input/output error")
		}
		return "", nil
	}}
	sys := copying("bad", func(string) error { mounts++; return nil })
	r, _ := suiteOf(t, []System{sys}, []Workload{onUnion(data, "io", "", 0, work)}, 3)
	if len(r.Samples) != 1 || r.Samples[0].Incorrect != "input/output error" || r.Samples[0].Wall != 0 {
		t.Errorf("%+v", r.Samples)
	}
	if mounts != 1 {
		t.Errorf("mounted %d times, want 1", mounts)
	}
}

func TestAbsentSystemIsSkipped(t *testing.T) {
	gone := System{Name: "gone", mount: func(*Mount) error { return errors.New("no such program") }}
	limited := System{Name: "limited", mount: func(m *Mount) error {
		if len(m.layers.Lowers) > 10 {
			return errors.New("too many layers")
		}
		return run("cp", "-a", m.layers.Lowers[0]+"/.", m.Dir)
	}}
	r, _ := suiteOf(t, []System{gone, limited}, chosen(t, "layers-1-walk", "layers-16-walk", "rootfs-walk"), 2)
	var got []string
	for _, s := range r.Skipped {
		got = append(got, fmt.Sprintf("%s|%s|%s", s.Workload, s.System, s.Why))
	}
	for _, want := range []string{
		"|gone|mount gone: no such program", "layers-16-walk|limited|mount limited: too many layers", "rootfs-walk|limited|make rootfs: there is none",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("not skipped: %q, only %q", want, got)
		}
	}
	if len(r.Samples) != 2 || r.Samples[0].Workload != "layers-1-walk" || r.Samples[0].Incorrect != "" {
		t.Errorf("samples %+v, want two of layers-1-walk", r.Samples)
	}
}

// Progress is told of the end, and of nothing where there is nothing to be done.
func TestProgressIsTold(t *testing.T) {
	good := copying("good", func(string) error { return nil })
	if _, q := suiteOf(t, []System{good}, chosen(t, "storm"), 2); *q != (quiet{totals: 1, steps: 2, done: 1}) {
		t.Errorf("of two samples: %+v", *q)
	}
	if _, q := suiteOf(t, []System{good}, nil, 2); *q != (quiet{done: 1}) {
		t.Errorf("of none: %+v", *q)
	}
}

// Each repetition begins with another system.
func TestInterleaved(t *testing.T) {
	var order []string
	system := func(name string) System {
		return copying(name, func(string) error { order = append(order, name); return nil })
	}
	suiteOf(t, []System{system("a"), system("b"), system("c")}, chosen(t, "readdir-cold"), 3)
	want := "abc" + "bca" + "cab"
	if got := strings.Join(order, ""); got != want {
		t.Errorf("mounted in the order %s, want %s", got, want)
	}
}

// While a run goes on, what is told of it is the repetitions that are complete: of a workload either all systems or none.
func TestInterruptedReport(t *testing.T) {
	var s Suite
	var got []*report.Report
	system := func(name string) System {
		return copying(name, func(string) error { got = append(got, s.Interrupted()); return nil })
	}
	s = Suite{
		Systems: []System{system("a"), system("b")}, Workloads: chosen(t, "walk-cold", "readdir-cold"), Reps: 2, Progress: &quiet{},
		Fixtures: &Fixtures{Dir: t.TempDir(), Scale: 0.002, NoFio: true},
	}
	if r := s.Interrupted(); len(r.Samples) != 0 || r.Interrupted != 1 {
		t.Errorf("before the run: %+v", r)
	}
	all, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ rep, samples, skipped int }{
		{1, 0, 2}, {1, 0, 2}, {1, 2, 1}, {1, 2, 1}, {2, 4, 0}, {2, 4, 0}, {2, 6, 0}, {2, 6, 0},
	} {
		r := got[i]
		if r.Interrupted != want.rep || len(r.Samples) != want.samples || len(r.Skipped) != want.skipped || len(r.Workloads) != 2 {
			t.Errorf("during the mount %d: repetition %d, %d samples, skipped %+v, want %+v", i, r.Interrupted, len(r.Samples), r.Skipped, want)
		}
	}
	if r := s.Interrupted(); r.Interrupted != 0 || len(r.Samples) != 8 || len(all.Samples) != 8 {
		t.Errorf("after the run: in repetition %d, %d samples; it returned %d", r.Interrupted, len(r.Samples), len(all.Samples))
	}
}

func TestMatch(t *testing.T) {
	names := func(patterns ...string) string {
		list, err := Match(Workloads(Caller{Name: "joe"}), patterns)
		if err != nil {
			return err.Error()
		}
		var s []string
		for _, w := range list {
			s = append(s, w.Name)
		}
		return strings.Join(s, " ")
	}
	for pattern, want := range map[string]string{
		"read-*": "read-cold read-warm read-hot", "layers-5*": "layers-500-walk layers-500-missing", "copy-up": "copyup-small copyup-big",
		"container-start@joe": "container-start@joe", "dance": `there is no workload "dance"`,
		"[": `workloads "[": syntax error in pattern`,
	} {
		if got := names(pattern); got != want {
			t.Errorf("%q gives %q, want %q", pattern, got, want)
		}
	}
	seen := map[string]bool{}
	for _, w := range Workloads(Caller{Name: "joe"}) {
		if seen[w.Name] || w.About == "" || w.Base == "" {
			t.Errorf("%+v: a name twice, or without a description or a base", w.Workload)
		}
		seen[w.Name] = true
	}
}

func TestNewSystem(t *testing.T) {
	for name, want := range map[string]string{
		"laminafs:transport=loop+noacl": "", "plain": "", "podman": "", "aufs": "there is no system", "overlay:xino=on": "only laminafs has options",
		"laminafs:": "only laminafs has options", "": "there is no system",
	} {
		_, err := NewSystem(name, "/bin")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", name, err, want)
		}
	}
}
