package report

import (
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

// Of is what of a sample is looked at.
type Of string

// What there is.
const (
	Wall  Of = "wall"  // seconds
	CPU   Of = "cpu"   // seconds, of client and server
	Serve Of = "serve" // seconds, of the server
	Count Of = "count" // requests
	Peak  Of = "peak"  // bytes, of the largest resident set
)

// Ofs are those that two reports can be compared by.
var Ofs = []Of{Wall, CPU, Count, Peak}

// value is NaN where the sample does not have it.
func (o Of) value(s *Sample) float64 {
	switch o {
	case Wall:
		return s.Wall.Seconds()
	case CPU:
		return (s.Client + s.Server).Seconds()
	case Serve:
		return s.Server.Seconds()
	case Count:
		if s.Requests != nil {
			var n int64
			for _, c := range s.Requests {
				n += c
			}
			return float64(n)
		}
	case Peak:
		if s.Memory != nil {
			return float64(s.Memory.Peak)
		}
	}
	return math.NaN()
}

// format writes a value with its unit.
func (o Of) format(v float64) string {
	switch o {
	case Count:
		return fmt.Sprintf("%.0f", v)
	case Peak:
		return benchunit.Scale(v, benchunit.Binary) + "B"
	}
	return benchunit.Scale(v, benchunit.Decimal) + "s"
}

// confidence of all intervals, and 1 - confidence the p-value below which a difference is one.
const confidence = 0.95

// A Figure is what the samples of one workload on one system say.
type Figure struct {
	sample *benchmath.Sample
	Of     Of
	Center float64 // median

	// Lo and Hi are the ends of the median's confidence interval, or where there are too few samples for one, the
	// smallest and the largest.
	Lo, Hi float64
	Range  bool // it is those
}

// figure is false where no sample has it.
func (r *Report) figure(workload, system string, of Of) (Figure, bool) {
	var values []float64
	for i := range r.Samples {
		s := &r.Samples[i]
		if s.Workload == workload && s.System == system && s.Incorrect == "" {
			if v := of.value(s); !math.IsNaN(v) {
				values = append(values, v)
			}
		}
	}
	if len(values) == 0 {
		return Figure{}, false
	}
	f := Figure{sample: benchmath.NewSample(values, &benchmath.DefaultThresholds), Of: of}
	sum := benchmath.AssumeNothing.Summary(f.sample, confidence)
	f.Center, f.Lo, f.Hi = sum.Center, sum.Lo, sum.Hi
	if math.IsInf(f.Lo, 0) || math.IsInf(f.Hi, 0) {
		f.Lo, f.Hi, f.Range = slices.Min(values), slices.Max(values), true
	}
	return f, true
}

// String is the median and, in percent, the larger of its distances to the ends.
func (f Figure) String() string {
	text := f.Of.format(f.Center)
	if f.Center > 0 && len(f.sample.Values) > 1 {
		text += fmt.Sprintf(" ±%.0f%%", 100*max(f.Center-f.Lo, f.Hi-f.Center)/f.Center)
	}
	return text
}

// ratio of the medians; 0 where there is no base.
func (f Figure) ratio(base Figure) float64 {
	if base.Center == 0 {
		return 0
	}
	return f.Center / base.Center
}

// requests of the sample whose wall time is the median.
func (r *Report) requests(workload, system string) map[string]int64 {
	var list []*Sample
	for i := range r.Samples {
		s := &r.Samples[i]
		if s.Workload == workload && s.System == system && s.Requests != nil {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *Sample) int { return int(a.Wall - b.Wall) })
	return list[len(list)/2].Requests
}

// Quiet is the share of CPU time that others may use for a run to count as one on idle CPUs.
const Quiet = 0.05

// others is the share of the CPUs' time that others used, and a hypervisor: over the whole run, or while samples were taken,
// whichever is more.
func (r *Report) others() float64 {
	var others, all time.Duration
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Incorrect == "" {
			others += s.Others + s.Steal
			all += s.Wall * time.Duration(max(1, r.Machine.CPUs))
		}
	}
	if all < time.Second { // of less, ticks of 10 ms tell nothing
		return r.Machine.Others
	}
	return max(r.Machine.Others, float64(others)/float64(all))
}

// systemsOf lists the systems that have a sample of a workload of the group, in the report's order.
func (r *Report) systemsOf(group string) (list []string) {
	for _, sys := range r.Systems {
		if slices.ContainsFunc(r.Samples, func(s Sample) bool {
			return s.System == sys.Name && r.workload(s.Workload).Group == group
		}) {
			list = append(list, sys.Name)
		}
	}
	return list
}

// groups of the workloads that have samples, in order.
func (r *Report) groups() (list []string) {
	for _, w := range r.Workloads {
		if !slices.Contains(list, w.Group) && len(r.workloadsOf(w.Group)) > 0 {
			list = append(list, w.Group)
		}
	}
	return list
}

// workloadsOf lists those of a group that have samples.
func (r *Report) workloadsOf(group string) (list []Workload) {
	for _, w := range r.Workloads {
		if w.Group == group && slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Workload == w.Name }) {
			list = append(list, w)
		}
	}
	return list
}
