package bench

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/laminafs/lamina/bench/report"
)

// A Workload is one thing that programs do.
type Workload struct {
	report.Workload
	union  *unionWork  // nil for one of the launchers'
	launch *launchWork // nil for one of the unions'
}

// Can reports whether the system does such things at all.
func (w *Workload) Can(sys System) bool {
	if w.union != nil {
		return sys.union()
	}
	return slices.ContainsFunc(w.launch.tasks, func(t launchTask) bool { return t.system == sys.Name })
}

// newTrial prepares sys for the workload.
//
// Errors: absentError.
func (w *Workload) newTrial(f *Fixtures, sys System) (trial, error) {
	if w.union != nil {
		return w.union.newTrial(w.Name, f, sys)
	}
	return w.launch.newTrial(w.Name, f, sys)
}

// NeedsRootfs reports whether it works on Fixtures.Rootfs.
func (w *Workload) NeedsRootfs() bool {
	return strings.HasPrefix(w.Name, "rootfs-") || w.Name == "exec-storm"
}

// Launches reports whether launchers do it, not unions.
func (w *Workload) Launches() bool { return w.launch != nil }

// The groups of workloads.
const (
	metadata   = "metadata"
	data       = "data"
	programs   = "programs"
	layers     = "layers"
	large      = "large directories"
	containers = "containers"
)

// Workloads are all there are, in the order of the report. callers are those, besides who runs us, as whom
// launchers are measured too.
func Workloads(callers ...Caller) []Workload {
	return slices.Concat(metadataWork(), dataWork(), programWork(), layerWork(), largeWork(), launcherWork(callers))
}

// Match selects workloads by names, groups, and patterns of both (path.Match).
//
// Errors: a pattern that is none, or that nothing matches.
func Match(all []Workload, patterns []string) (some []Workload, err error) {
	used := make([]bool, len(patterns))
	for _, w := range all {
		take := len(patterns) == 0
		for i, p := range patterns {
			for _, name := range []string{w.Name, w.Group} {
				ok, err := path.Match(p, name)
				if err != nil {
					return nil, fmt.Errorf("workloads %q: %w", p, err)
				}
				take, used[i] = take || ok, used[i] || ok
			}
		}
		if take {
			some = append(some, w)
		}
	}
	for i, p := range patterns {
		if !used[i] {
			err = errors.Join(err, fmt.Errorf("there is no workload %q", p))
		}
	}
	return some, err
}

// headlines stand for the others in the chart of README.md.
var headlines = []string{
	"walk-cold", "walk-warm", "untar", "rm-lower", "storm", "copyup-small", "read-cold", "read-warm", "grep-warm", "seq-read", "seq-write", "compile",
}

// onUnion makes a workload of unions. wall is what DESIGN.md asks of laminafs, as a ratio of wall time to kernel
// overlayfs; 0 for nothing.
func onUnion(group, name, about string, wall float64, work unionWork) Workload {
	w := Workload{Workload: report.Workload{Name: name, Group: group, About: about, Base: Overlay, Headline: slices.Contains(headlines, name)}, union: &work}
	if wall > 0 {
		w.Goals = append(w.Goals, report.Goal{System: Laminafs, Of: report.Wall, Factor: wall, Than: Overlay})
	}
	if group == metadata {
		// Twice as fast as what it takes the place of.
		w.Goals = append(w.Goals, report.Goal{System: Laminafs, Of: report.Wall, Factor: 0.5, Than: FuseOverlayfs})
	}
	return w
}

// onTree makes run of an operation that takes nothing but the tree.
func onTree(op func(dir string) (string, error)) func(*job) (string, error) {
	return func(j *job) (string, error) { return op(j.dir) }
}

// all is for unionWork.left: the whole tree.
func all(j *job) ([]string, error) { return everything(j.dir, false) }
