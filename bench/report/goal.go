package report

import "fmt"

// A Verdict is a Goal and what a system has of it.
type Verdict struct {
	Workload, System string
	Goal             Goal
	Got              float64 // in units of Goal.Factor
	Met              bool
}

// String says what is asked.
func (g Goal) String() string {
	if g.Than == "" {
		return string(g.Of) + " at most " + g.Of.format(g.Factor)
	}
	than := g.Than
	if g.Workload != "" {
		than += " on " + g.Workload
	}
	return fmt.Sprintf("%s at most %.2f × %s", g.Of, g.Factor, than)
}

func (v Verdict) got() string {
	if v.Goal.Than == "" {
		return v.Goal.Of.format(v.Got)
	}
	return fmt.Sprintf("%.2f", v.Got)
}

func (v Verdict) word() string {
	if v.Met {
		return "met"
	}
	return "**missed**"
}

// Verdicts are those of the goals whose both sides were measured.
func (r *Report) Verdicts() (list []Verdict) {
	for _, w := range r.Workloads {
		for _, g := range w.Goals {
			for _, sys := range r.Systems {
				if family(sys.Name) != g.System {
					continue
				}
				if v, ok := r.verdict(w.Name, sys.Name, g); ok {
					list = append(list, v)
				}
			}
		}
	}
	return list
}

func (r *Report) verdict(workload, system string, g Goal) (v Verdict, ok bool) {
	ours, ok := r.figure(workload, system, g.Of)
	if !ok {
		return v, false
	}
	v = Verdict{Workload: workload, System: system, Goal: g, Got: ours.Center}
	if g.Than != "" {
		other := g.Workload
		if other == "" {
			other = workload
		}
		than := g.Than
		if than == g.System {
			than = system // the same one, with the same options
		}
		base, ok := r.figure(other, than, g.Of)
		if !ok {
			return v, false
		}
		v.Got = ours.ratio(base)
	}
	v.Met = v.Got <= g.Factor
	return v, true
}
