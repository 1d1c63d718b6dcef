package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Ledger writes an entry for RESULTS.md: when, which versions, kernel, CPUs and filesystem, what had changed, the ratios,
// and which goals are missed. Why they are missed is for its reader to add.
func (r *Report) Ledger(w io.Writer, changed string) error {
	var b bytes.Buffer
	date, _, _ := strings.Cut(r.Machine.Date, "T")
	title := oneLine(changed)
	if title == "" {
		title = "no change"
	}
	fmt.Fprintf(&b, "## %s: %s\n\n", date, title)
	rows := [][]string{{"", ""}}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, text})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Machine.Versions)) {
		add(name, oneLine(r.Machine.Versions[name]))
	}
	cpus := fmt.Sprint(r.Machine.CPUs)
	for _, more := range []string{r.Machine.CPUModel, r.Machine.Governor} {
		if more != "" {
			cpus += ", " + more
		}
	}
	add("kernel", r.Machine.Kernel)
	add("CPUs", cpus)
	add("used by others", fmt.Sprintf("%s; load average %s before", r.busy(), load(r.Machine.LoadBefore)))
	add("layers on", r.Machine.Filesystem)
	add("user", r.Machine.Rootless)
	reps := fmt.Sprint(r.Reps)
	if text := r.cut(); text != "" {
		reps += ", " + text
	}
	add("repetitions", reps)
	if r.Scale != 1 {
		add("scale", fmt.Sprintf("%g", r.Scale))
	}
	add("changed", title)
	table(&b, rows)
	for _, group := range r.groups() {
		fmt.Fprintf(&b, "\n%s: wall time (its ratio to the base)\n\n", group)
		r.matrix(&b, r.workloadsOf(group), r.systemsOf(group), Wall, true)
		fmt.Fprintf(&b, "\n%s: CPU time of client and server (its ratio)\n\n", group)
		r.matrix(&b, r.workloadsOf(group), r.systemsOf(group), CPU, true)
	}
	r.memory(&b)
	r.missed(&b)
	r.incorrect(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// missed lists the goals that are.
func (r *Report) missed(b *bytes.Buffer) {
	all := r.Verdicts()
	missed := slices.DeleteFunc(slices.Clone(all), func(v Verdict) bool { return v.Met })
	fmt.Fprintf(b, "\n%d of %d goals met.", len(all)-len(missed), len(all))
	if len(missed) > 0 {
		fmt.Fprint(b, " Missed:\n\n")
	} else {
		fmt.Fprintln(b)
	}
	for _, v := range missed {
		fmt.Fprintf(b, "- %s on %s: %s, is %s\n", v.Workload, v.System, v.Goal, v.got())
	}
}
