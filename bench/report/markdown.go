package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Markdown writes tables for people: times with ratios, CPU times, requests, memory, and what became of the goals.
func (r *Report) Markdown(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# lamina-bench, %s\n\n", r.Machine.Date)
	r.head(&b)
	r.incorrect(&b)
	for _, group := range r.groups() {
		fmt.Fprintf(&b, "\n## %s\n", group)
		workloads, systems := r.workloadsOf(group), r.systemsOf(group)
		fmt.Fprint(&b, "\nWall time, and in brackets its ratio to the base (the one with 1.00).\n\n")
		r.matrix(&b, workloads, systems, Wall, true)
		fmt.Fprint(&b, "\nCPU time of client and server together, and its ratio.\n\n")
		r.matrix(&b, workloads, systems, CPU, true)
		fmt.Fprint(&b, "\nCPU time of the server alone.\n\n")
		r.matrix(&b, workloads, systems, Serve, false)
		fmt.Fprint(&b, "\nLargest resident set of the server, or of those who did the work.\n\n")
		r.matrix(&b, workloads, systems, Peak, false)
		r.opcodes(&b, workloads, systems)
	}
	r.memory(&b)
	r.goals(&b)
	r.skips(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// head describes the machine and how far it can be believed.
func (r *Report) head(b *bytes.Buffer) {
	m := r.Machine
	fmt.Fprintf(b, "Linux %s, %d CPUs", m.Kernel, m.CPUs)
	if m.CPUModel != "" {
		fmt.Fprintf(b, " (%s)", m.CPUModel)
	}
	if m.Governor != "" {
		fmt.Fprintf(b, ", governor %s", m.Governor)
	}
	fmt.Fprintf(b, ", layers on %s", m.Filesystem)
	if m.Rootless != "" {
		fmt.Fprintf(b, ", as an ordinary user (%s)", m.Rootless)
	}
	fmt.Fprint(b, ".\n")
	if text := r.cut(); text != "" {
		fmt.Fprintf(b, "The run was **%s**: medians of those that were complete", text)
	} else {
		fmt.Fprintf(b, "Medians of %d repetitions", r.Reps)
	}
	if r.Scale != 1 {
		fmt.Fprintf(b, ", SCALED by %g: not to be compared with other scales", r.Scale)
	}
	fmt.Fprintf(b, "; ± is the 95 %% confidence interval of the median, or the range where the repetitions are too few for one.\n")
	fmt.Fprintf(b, "Others used %s of the CPUs meanwhile; load average %s before, %s after.\n\n", r.busy(), load(m.LoadBefore), load(m.LoadAfter))
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(b, "- %s: %s\n", name, m.Versions[name])
	}
}

// busy says how busy others kept the CPUs.
func (r *Report) busy() string {
	share := r.others()
	word := "quiet"
	if share > Quiet {
		word = "**busy**: wall times mean little, CPU times and counts do"
	}
	return fmt.Sprintf("%.1f %% (%s)", 100*share, word)
}

// load is the first three numbers of /proc/loadavg.
func load(line string) string {
	f := strings.Fields(line)
	return strings.Join(f[:min(3, len(f))], " ")
}

func (r *Report) incorrect(b *bytes.Buffer) {
	if list := r.Incorrect(); len(list) > 0 {
		fmt.Fprint(b, "\n## Wrong results\n\nThese have no times.\n\n")
		for _, s := range list {
			fmt.Fprintf(b, "- %s on %s: %s\n", s.Workload, s.System, oneLine(s.Incorrect))
		}
	}
}

// matrix has workloads for rows and systems for columns. One without any figure is left out.
func (r *Report) matrix(b *bytes.Buffer, workloads []Workload, systems []string, of Of, ratios bool) {
	rows := [][]string{append([]string{"workload"}, systems...)}
	for _, w := range workloads {
		row, some := []string{w.Name}, false
		base, _ := r.figure(w.Name, w.Base, of)
		for _, sys := range systems {
			cell := r.cell(w.Name, sys, of, base, ratios)
			row, some = append(row, cell), some || cell != ""
		}
		if some {
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		rows = append(rows, make([]string, len(rows[0])))
	}
	table(b, rows)
}

func (r *Report) cell(workload, system string, of Of, base Figure, ratios bool) string {
	f, ok := r.figure(workload, system, of)
	switch {
	case !ok && slices.ContainsFunc(r.Samples, func(s Sample) bool {
		return s.Workload == workload && s.System == system && s.Incorrect != ""
	}):
		return "wrong"
	case !ok || f.Center == 0 && of != Wall:
		return ""
	case ratios && f.ratio(base) > 0:
		return fmt.Sprintf("%s (%.2f)", f, f.ratio(base))
	}
	return f.String()
}

// table writes a Markdown table that can be read as it is, too.
func table(b *bytes.Buffer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			cell = strings.ReplaceAll(cell, "|", `\|`) // it would be the end of the cell
			row[i] = cell
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for i, row := range rows {
		for j, cell := range row {
			space := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell))
			if j == 0 {
				fmt.Fprintf(b, "| %s%s |", cell, space)
			} else {
				fmt.Fprintf(b, " %s%s |", space, cell)
			}
		}
		fmt.Fprintln(b)
		if i == 0 {
			for j, n := range widths {
				if j == 0 {
					fmt.Fprintf(b, "|:%s|", strings.Repeat("-", n+1))
				} else {
					fmt.Fprintf(b, "%s:|", strings.Repeat("-", n+1))
				}
			}
			fmt.Fprintln(b)
		}
	}
}

// opcodes lists the requests of the systems that count them, the most frequent first.
func (r *Report) opcodes(b *bytes.Buffer, workloads []Workload, systems []string) {
	for i, line := range r.opcodeLines(workloads, systems) {
		if i == 0 {
			fmt.Fprintf(b, "\n%s.\n\n", opcodeTitle)
		}
		fmt.Fprintf(b, "- %s\n", line)
	}
}

// opcodeTitle is that of opcodeLines.
const opcodeTitle = "Requests by opcode, of the repetition with the median time"

func (r *Report) opcodeLines(workloads []Workload, systems []string) (lines []string) {
	for _, w := range workloads {
		for _, sys := range systems {
			if requests := r.requests(w.Name, sys); requests != nil {
				lines = append(lines, fmt.Sprintf("%s on %s: %s", w.Name, sys, formatRequests(requests)))
			}
		}
	}
	return lines
}

func formatRequests(requests map[string]int64) string {
	ops := slices.SortedFunc(maps.Keys(requests), func(a, b string) int {
		if d := requests[b] - requests[a]; d != 0 {
			return int(d)
		}
		return strings.Compare(a, b)
	})
	var total int64
	parts := make([]string, 0, len(ops))
	for _, op := range ops {
		total += requests[op]
		parts = append(parts, fmt.Sprintf("%s %d", op, requests[op]))
	}
	if total == 0 {
		return "none"
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}

// memory tells what an object costs, where that is what the workload is about.
func (r *Report) memory(b *bytes.Buffer) {
	if rows := r.memoryRows(); len(rows) > 0 {
		fmt.Fprintf(b, "\n## %s\n\n", memoryTitle)
		table(b, rows)
	}
}

// memoryTitle is that of memoryRows.
const memoryTitle = "Memory of a server that has seen everything"

// memoryRows have a head first; there are none where no workload is about memory.
func (r *Report) memoryRows() [][]string {
	rows := [][]string{{"workload", "system", "objects", "before", "after", "peak", "bytes an object", "descriptors"}}
	for _, w := range r.Workloads {
		for _, sys := range r.Systems {
			if m := r.held(w.Name, sys.Name); m != nil {
				rows = append(rows, []string{
					w.Name, sys.Name, fmt.Sprint(m.Objects), Peak.format(float64(m.Before)), Peak.format(float64(m.After)),
					Peak.format(float64(m.Peak)), fmt.Sprintf("%.0f", float64(m.After-m.Before)/float64(m.Objects)),
					fmt.Sprintf("%d of %d", m.FDs, m.FDLimit),
				})
			}
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

// held is what a server held in the repetition in which that was the median; nil where the workload is not about that.
func (r *Report) held(workload, system string) *Memory {
	var list []*Memory
	for _, s := range r.Samples {
		if m := s.Memory; s.Workload == workload && s.System == system && m != nil && m.Objects > 0 && m.Before > 0 {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *Memory) int { return cmp.Compare(a.After, b.After) })
	return list[len(list)/2]
}

func (r *Report) goals(b *bytes.Buffer) {
	rows := [][]string{{"workload", "system", "goal", "got", ""}}
	for _, v := range r.Verdicts() {
		rows = append(rows, []string{v.Workload, v.System, v.Goal.String(), v.got(), v.word()})
	}
	if len(rows) > 1 {
		fmt.Fprint(b, "\n## Goals\n\n")
		table(b, rows)
	}
}

func (r *Report) skips(b *bytes.Buffer) {
	for i, s := range r.skipped() {
		if i == 0 {
			fmt.Fprint(b, "\n## Not measured\n\n")
		}
		fmt.Fprintf(b, "- %s: %s\n", s.What(), s.Why)
	}
}

// skipGroup is what was skipped for one reason.
type skipGroup struct {
	workloads, systems []string
	Why                string
}

func (g *skipGroup) What() string {
	return strings.Join(g.workloads, ", ") + " on " + strings.Join(g.systems, ", ")
}

// skipped joins what has the same reason: a tree that cannot be made is missed by many.
func (r *Report) skipped() (list []*skipGroup) {
	var each []*skipGroup // by workload
	for _, s := range r.Skipped {
		workload, system, why := s.Workload, s.System, oneLine(s.Why)
		if workload == "" {
			workload = "everything"
		}
		if system == "" {
			system = "every system"
		}
		i := slices.IndexFunc(each, func(g *skipGroup) bool { return g.Why == why && g.workloads[0] == workload })
		if i < 0 {
			i = len(each)
			each = append(each, &skipGroup{workloads: []string{workload}, Why: why})
		}
		each[i].systems = append(each[i].systems, system)
	}
	for _, g := range each {
		i := slices.IndexFunc(list, func(l *skipGroup) bool { return l.Why == g.Why && slices.Equal(l.systems, g.systems) })
		if i < 0 {
			list = append(list, g)
			continue
		}
		list[i].workloads = append(list[i].workloads, g.workloads...)
	}
	return list
}

// oneLine keeps a message from breaking a list.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
