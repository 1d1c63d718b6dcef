package bench

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// Goals of the launcher: ratios of wall time, and bytes of memory.
const (
	RunGoal    = 1.5       // of lamina to runc with a union mount, at most
	PodmanGoal = 4.0       // of podman to lamina, at least
	LoadGoal   = 1.0       // of a load to tar x of the same layers, at most
	PeakGoal   = 150 << 20 // of a load, less than
)

// launchSummary has the medians of the samples of one workload on one system, and the largest peak.
type launchSummary struct {
	wall, cpu time.Duration
	peak      int64
}

func (l *Launch) summarize(caller string) map[string]map[string]launchSummary {
	groups := map[[2]string][]LaunchSample{}
	for _, s := range l.Samples {
		if s.Caller == caller {
			key := [2]string{s.Workload, s.System}
			groups[key] = append(groups[key], s)
		}
	}
	all := map[string]map[string]launchSummary{}
	for key, group := range groups {
		var sum launchSummary
		var wall, cpu []time.Duration
		for _, s := range group {
			wall, cpu, sum.peak = append(wall, s.Wall), append(cpu, s.CPU), max(sum.peak, s.Peak)
		}
		sum.wall, sum.cpu = median(wall), median(cpu)
		if all[key[0]] == nil {
			all[key[0]] = map[string]launchSummary{}
		}
		all[key[0]][key[1]] = sum
	}
	return all
}

// distinct lists the values of a field of the samples, each once, as they first come.
func distinct(samples []LaunchSample, field func(LaunchSample) string) []string {
	var list []string
	for _, s := range samples {
		if v := field(s); !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

func (l *Launch) writeText(w io.Writer) {
	fmt.Fprintf(w, "medians of %d rounds", l.Rounds)
	if l.Scale != 1 {
		fmt.Fprintf(w, "; images SCALED by %g: not to be compared with others", l.Scale)
	}
	fmt.Fprintln(w)
	for _, i := range l.Images {
		fmt.Fprintf(w, "%s: %.1f MB, %d objects in %d layers\n", i.Name, float64(i.Bytes)/1e6, i.Objects, i.Layers)
	}
	for _, caller := range distinct(l.Samples, func(s LaunchSample) string { return s.Caller }) {
		l.writeCaller(w, caller)
	}
}

func (l *Launch) writeCaller(w io.Writer, caller string) {
	all := l.summarize(caller)
	workloads := distinct(l.Samples, func(s LaunchSample) string { return s.Workload })
	systems := distinct(l.Samples, func(s LaunchSample) string { return s.System })
	table := func(title string, cell func(s, ours launchSummary) string) {
		fmt.Fprintf(w, "\nAs %s: %s\n", caller, title)
		writeTable(w, workloads, systems, func(workload, system string) string {
			s, ok := all[workload][system]
			if !ok {
				return "-"
			}
			return cell(s, all[workload][Lamina])
		})
	}
	table("wall time in seconds, and lamina's ratio to it", func(s, ours launchSummary) string {
		return fmt.Sprintf("%s (%.2f)", seconds(s.wall), ratio(ours.wall, s.wall))
	})
	table("CPU time in seconds, of all processes", func(s, _ launchSummary) string { return seconds(s.cpu) })
	table("largest resident set of a process that is waited for, in MiB", func(s, _ launchSummary) string {
		return fmt.Sprintf("%.1f", float64(s.peak)/(1<<20))
	})
	for _, s := range l.Skipped {
		if s.Caller == caller {
			fmt.Fprintf(w, "skipped: %s: %s: %s\n", s.Workload, s.System, s.Why)
		}
	}
	l.writeGoals(w, caller, all)
}

// writeGoals compares with the goals, where both were measured.
func (l *Launch) writeGoals(w io.Writer, caller string, all map[string]map[string]launchSummary) {
	fmt.Fprintf(w, "\nGoals, as %s\n", caller)
	verdict := func(name, sign string, got, goal float64, met bool) {
		word := "met"
		if !met {
			word = "MISSED"
		}
		fmt.Fprintf(w, "%-38s goal %s %6.2f  got %6.2f  %s\n", name, sign, goal, got, word)
	}
	ours := all[RunTrue][Lamina].wall
	if theirs := all[RunTrue][Runc].wall; theirs > 0 {
		r := ratio(ours, theirs)
		verdict("run: lamina / (runc + laminafs)", "<=", r, RunGoal, r <= RunGoal)
	}
	if theirs := all[RunTrue][Podman].wall; theirs > 0 {
		r := ratio(theirs, ours)
		verdict("run: podman / lamina", ">=", r, PodmanGoal, r >= PodmanGoal)
	}
	for _, i := range l.Images {
		ours := all[i.Name][Lamina]
		if theirs := all[i.Name][Tar].wall; theirs > 0 {
			r := ratio(ours.wall, theirs)
			verdict(i.Name+": lamina / tar x", "<=", r, LoadGoal, r <= LoadGoal)
		}
		verdict(i.Name+": peak memory, MiB", "< ", float64(ours.peak)/(1<<20), PeakGoal/(1<<20), ours.peak < PeakGoal)
	}
}
