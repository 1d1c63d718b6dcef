package report

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aclements/go-moremath/stats"
	"golang.org/x/perf/benchmath"
)

// Compare says how two reports are compared.
type Compare struct {
	Of []Of // what of the samples; none: Wall and CPU

	// Alpha is the p-value below which a difference is one; 0: 0.05. Threshold is how much worse a median has to be, as a
	// fraction, for a significant difference to be a regression.
	Alpha, Threshold float64

	// Ours says of which systems a regression is one; nil: of all. A machine that became slower makes all slower.
	Ours func(system string) bool
}

// A Change is a workload on a system in two reports.
type Change struct {
	Workload, System string
	Of               Of
	Old, New         Figure
	Test             benchmath.Comparison // Mann-Whitney's U
	Regression       bool
}

// Delta is by what fraction the median grew.
func (c *Change) Delta() float64 { return c.New.Center/c.Old.Center - 1 }

// Changes is what the comparison of two reports gives.
type Changes struct {
	List     []Change
	Of       []Of
	Broken   []string // of systems that are ours: right before, wrong now or not to be had
	Warnings []string // why the two may not be comparable, or are only in part
}

// Run compares.
//
// Errors: the reports have another scale, or nothing in common.
func (c Compare) Run(before, after *Report) (*Changes, error) {
	if len(c.Of) == 0 {
		c.Of = []Of{Wall, CPU}
	}
	if c.Alpha == 0 {
		c.Alpha = 1 - confidence
	}
	if before.Scale != after.Scale {
		return nil, fmt.Errorf("the first was taken at scale %g, the second at %g", before.Scale, after.Scale)
	}
	out := &Changes{Of: c.Of, Warnings: differences(before.Machine, after.Machine)}
	for i, r := range []*Report{before, after} {
		if text := r.cut(); text != "" {
			out.Warnings = append(out.Warnings, fmt.Sprintf("the %s run was %s", []string{"first", "second"}[i], text))
		}
		if share := r.others(); share > Quiet {
			out.Warnings = append(out.Warnings, fmt.Sprintf("others used %.0f %% of the CPUs in the %s run", 100*share, []string{"first", "second"}[i]))
		}
	}
	for _, of := range c.Of {
		for _, w := range before.Workloads {
			for _, sys := range before.Systems {
				c.one(out, before, after, w.Name, sys.Name, of)
			}
		}
	}
	c.broken(out, before, after)
	c.missing(out, before, after)
	if len(out.List) == 0 && len(out.Broken) == 0 {
		return nil, errors.New("the two have no workload on any system in common")
	}
	return out, nil
}

func (c Compare) one(out *Changes, before, after *Report, workload, system string, of Of) {
	old, ok := before.figure(workload, system, of)
	if !ok {
		return
	}
	now, ok := after.figure(workload, system, of)
	if !ok {
		if after.right(workload, system) { // it has other figures
			out.Warnings = append(out.Warnings, fmt.Sprintf("only in the first: %s of %s on %s", of, workload, system))
		}
		return
	}
	thresholds := benchmath.DefaultThresholds
	thresholds.CompareAlpha = c.Alpha
	a, b := benchmath.NewSample(old.sample.Values, &thresholds), benchmath.NewSample(now.sample.Values, &thresholds)
	change := Change{Workload: workload, System: system, Of: of, Old: old, New: now, Test: benchmath.AssumeNothing.Compare(a, b)}
	change.Regression = c.ours(system) && change.Test.P < c.Alpha && change.Delta() > c.Threshold
	for _, w := range change.Test.Warnings {
		if text := w.Error(); !slices.Contains(out.Warnings, text) {
			out.Warnings = append(out.Warnings, text)
		}
	}
	out.List = append(out.List, change)
}

// broken tells of those of ours that were right and are wrong, in any repetition: those before it are no excuse.
func (c Compare) broken(out *Changes, before, after *Report) {
	wrongBefore := before.Incorrect()
	for _, s := range after.Incorrect() {
		same := func(o Sample) bool { return o.Workload == s.Workload && o.System == s.System }
		if c.ours(s.System) && before.right(s.Workload, s.System) && !slices.ContainsFunc(wrongBefore, same) {
			out.Broken = append(out.Broken, fmt.Sprintf("%s on %s: %s", s.Workload, s.System, oneLine(s.Incorrect)))
		}
	}
}

// missing tells of what only one of the reports has. One of ours that was asked for and could not be measured is broken.
func (c Compare) missing(out *Changes, before, after *Report) {
	for i, r := range []*Report{before, after} {
		other := []*Report{after, before}[i]
		var names []string
		for _, w := range r.Workloads {
			for _, sys := range r.Systems {
				if !r.has(w.Name, sys.Name) || other.has(w.Name, sys.Name) {
					continue
				}
				if why := other.why(w.Name, sys.Name); i == 0 && why != "" && c.ours(sys.Name) {
					out.Broken = append(out.Broken, fmt.Sprintf("%s on %s cannot be measured any more: %s", w.Name, sys.Name, oneLine(why)))
					continue
				}
				names = append(names, w.Name+" on "+sys.Name)
			}
		}
		if len(names) > 0 {
			out.Warnings = append(out.Warnings, fmt.Sprintf("only in the %s: %s", []string{"first", "second"}[i], strings.Join(names, ", ")))
		}
	}
}

// has reports whether there is any sample, right or wrong.
func (r *Report) has(workload, system string) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Workload == workload && s.System == system })
}

// right reports whether there is a sample that is right.
func (r *Report) right(workload, system string) bool {
	return slices.ContainsFunc(r.Samples, func(s Sample) bool {
		return s.Workload == workload && s.System == system && s.Incorrect == ""
	})
}

// why a system was not measured; empty where it was not asked for.
func (r *Report) why(workload, system string) string {
	if r.workload(workload) == nil {
		return ""
	}
	for _, s := range r.Skipped {
		if s.System == system && (s.Workload == workload || s.Workload == "") {
			return s.Why
		}
	}
	return ""
}

func (c Compare) ours(system string) bool { return c.Ours == nil || c.Ours(system) }

// differences are those of two machines that make figures differ.
func differences(a, b Machine) (list []string) {
	for _, d := range []struct{ what, a, b string }{
		{"kernels", a.Kernel, b.Kernel}, {"numbers of CPUs", fmt.Sprint(a.CPUs), fmt.Sprint(b.CPUs)}, {"CPUs", a.CPUModel, b.CPUModel},
		{"filesystems below the layers", a.Filesystem, b.Filesystem}, {"users", cmp.Or(a.Rootless, "root"), cmp.Or(b.Rootless, "root")},
		{"versions of fio", cmp.Or(a.Versions["fio"], "none"), cmp.Or(b.Versions["fio"], "none")}, // without one, loops of our own
	} {
		if d.a != d.b {
			list = append(list, fmt.Sprintf("different %s: %s and %s", d.what, d.a, d.b))
		}
	}
	return list
}

// Regressions are the changes for the worse, of systems that are ours.
func (c *Changes) Regressions() (list []Change) {
	for _, ch := range c.List {
		if ch.Regression {
			list = append(list, ch)
		}
	}
	return list
}

// Text writes tables as benchstat does, one for each Of, with the geometric mean of what grew and shrank.
func (c *Changes) Text(w io.Writer, before, after string) error {
	var b bytes.Buffer
	for _, of := range c.Of {
		c.table(&b, of, before, after)
	}
	for _, text := range c.Warnings {
		fmt.Fprintf(&b, "note: %s\n", text)
	}
	for _, text := range c.Broken {
		fmt.Fprintf(&b, "BROKEN: %s\n", text)
	}
	for _, r := range c.Regressions() {
		fmt.Fprintf(&b, "REGRESSION: %s of %s on %s: %s -> %s\n", r.Of, r.Workload, r.System, r.Old.Of.format(r.Old.Center), r.New.Of.format(r.New.Center))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (c *Changes) table(b *bytes.Buffer, of Of, before, after string) {
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\t%s\t%s\tvs base\t\n", of, before, after)
	var ratios []float64
	for _, ch := range c.List {
		if ch.Of != of {
			continue
		}
		fmt.Fprintf(tw, "%s/%s\t%s\t%s\t%s (%s)\t\n", ch.Workload, ch.System, ch.Old, ch.New,
			ch.Test.FormatDelta(ch.Old.Center, ch.New.Center), ch.Test)
		if ch.Old.Center > 0 && ch.New.Center > 0 {
			ratios = append(ratios, ch.New.Center/ch.Old.Center)
		}
	}
	if mean := stats.GeoMean(ratios); !math.IsNaN(mean) && len(ratios) > 0 {
		fmt.Fprintf(tw, "geomean\t\t\t%+.2f%%\t\n", 100*(mean-1))
	}
	tw.Flush()
	fmt.Fprintln(b)
}
