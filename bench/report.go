package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// Report is everything about one run of the benchmarks.
type Report struct {
	Machine Machine
	Rounds  int
	Scale   float64
	Samples []Sample `json:",omitempty"`
	Memory  []Memory `json:",omitempty"`
	Launch  *Launch  `json:",omitempty"`
}

// Machine is where the run took place.
type Machine struct {
	Date, Kernel, Go string
	CPUs             int
	Governor         string // of the CPU frequency; empty where the kernel has none
	Layers           string // type of the filesystem below the layers
	LoadBefore       string // /proc/loadavg as the run begins and ends
	LoadAfter        string
	Versions         map[string]string // of laminafs and its peers
}

// Here describes this machine, dir being where the layers are.
func Here(dir string) (Machine, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Machine{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Machine{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	fs := map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.XFS_SUPER_MAGIC: "xfs"}
	name, ok := fs[st.Type]
	if !ok {
		name = fmt.Sprintf("%#x", st.Type)
	}
	return Machine{
		Date: time.Now().UTC().Format(time.RFC3339), Kernel: unix.ByteSliceToString(uts.Release[:]), Go: goruntime.Version(),
		CPUs: goruntime.NumCPU(), Governor: firstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		Layers: name, LoadBefore: firstLine("/proc/loadavg"),
	}, nil
}

// End notes what is known only when the run is over.
func (m *Machine) End() { m.LoadAfter = firstLine("/proc/loadavg") }

// firstLine is the first line of a file, empty where there is none.
func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// WriteJSON writes everything, single samples included.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "\t")
	return enc.Encode(r)
}

// summary has the medians of the samples of one workload on one system.
type summary struct {
	wall, client, server time.Duration
	requests             map[string]int64 // of the sample with the median wall time
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	n := len(d)
	return (d[(n-1)/2] + d[n/2]) / 2
}

// summarize groups samples by workload and system.
func summarize(samples []Sample) map[string]map[string]summary {
	groups := map[[2]string][]Sample{}
	for _, s := range samples {
		key := [2]string{s.Workload, s.System}
		groups[key] = append(groups[key], s)
	}
	all := map[string]map[string]summary{}
	for key, group := range groups {
		slices.SortFunc(group, func(a, b Sample) int { return int(a.Wall - b.Wall) })
		var wall, client, server []time.Duration
		for _, s := range group {
			wall, client, server = append(wall, s.Wall), append(client, s.Client), append(server, s.Server)
		}
		if all[key[0]] == nil {
			all[key[0]] = map[string]summary{}
		}
		all[key[0]][key[1]] = summary{median(wall), median(client), median(server), group[len(group)/2].Requests}
	}
	return all
}

// order lists the values of a field of the samples, each once, as they first come. Interleaving begins each round with
// another system, but the first with the first.
func order(samples []Sample, field func(Sample) string) []string {
	var list []string
	for _, s := range samples {
		if !slices.Contains(list, field(s)) {
			list = append(list, field(s))
		}
	}
	return list
}

// WriteText writes tables for people.
func (r *Report) WriteText(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, Linux %s, %s, %d CPUs", m.Date, m.Kernel, m.Go, m.CPUs)
	if m.Governor != "" {
		fmt.Fprintf(w, " (%s)", m.Governor)
	}
	fmt.Fprintf(w, ", layers on %s\nload average before: %s\n              after: %s\n", m.Layers, m.LoadBefore, m.LoadAfter)
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(w, "%s: %s\n", name, m.Versions[name])
	}
	if len(r.Samples) > 0 {
		r.writeSamples(w)
	}
	if len(r.Memory) > 0 {
		writeMemory(w, r.Memory)
	}
	if r.Launch != nil {
		r.Launch.writeText(w)
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (r *Report) writeSamples(w io.Writer) {
	fmt.Fprintf(w, "medians of %d rounds", r.Rounds)
	if r.Scale != 1 {
		fmt.Fprintf(w, "; SCALED by %g: not to be compared with others", r.Scale)
	}
	fmt.Fprintln(w)
	all := summarize(r.Samples)
	workloads := order(r.Samples, func(s Sample) string { return s.Workload })
	systems := order(r.Samples, func(s Sample) string { return s.System })

	fmt.Fprintf(w, "\nWall time, and its ratio to %s\n", Overlay)
	writeTable(w, workloads, systems, func(workload, system string) string {
		s, base := all[workload][system], all[workload][Overlay]
		if base.wall == 0 {
			return seconds(s.wall)
		}
		return fmt.Sprintf("%s (%.2f)", seconds(s.wall), ratio(s.wall, base.wall))
	})
	fmt.Fprint(w, "\nCPU time, client + server\n")
	writeTable(w, workloads, systems, func(workload, system string) string {
		s := all[workload][system]
		if s.server == 0 {
			return seconds(s.client)
		}
		return seconds(s.client) + " + " + seconds(s.server)
	})
	fmt.Fprintf(w, "\nRequests to %s, by opcode\n", Laminafs)
	for _, workload := range workloads {
		if requests := all[workload][Laminafs].requests; requests != nil {
			fmt.Fprintf(w, "%-16s %s\n", workload, formatRequests(requests))
		}
	}
	writeGoals(w, all)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.4f", d.Seconds()) }

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func writeTable(w io.Writer, rows, columns []string, cell func(row, column string) string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "\t%s\t\n", strings.Join(columns, "\t"))
	for _, row := range rows {
		fmt.Fprint(tw, row, "\t")
		for _, column := range columns {
			fmt.Fprint(tw, cell(row, column), "\t")
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// formatRequests puts the most frequent opcode first.
func formatRequests(requests map[string]int64) string {
	ops := slices.SortedFunc(maps.Keys(requests), func(a, b string) int {
		if d := requests[b] - requests[a]; d != 0 {
			return int(d)
		}
		return strings.Compare(a, b)
	})
	var total int64
	var parts []string
	for _, op := range ops {
		total += requests[op]
		parts = append(parts, fmt.Sprintf("%s %d", op, requests[op]))
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}

// writeGoals compares with the goals, where kernel overlayfs and laminafs were both measured.
func writeGoals(w io.Writer, all map[string]map[string]summary) {
	fmt.Fprintf(w, "\nGoals, as ratios of wall time to %s\n", Overlay)
	verdict := func(name string, got, goal float64) {
		word := "met"
		if got > goal {
			word = "MISSED"
		}
		fmt.Fprintf(w, "%-16s goal %4.2f  got %5.2f  %s\n", name, goal, got, word)
	}
	for _, workload := range Workloads {
		ours, base := all[workload.Name][Laminafs], all[workload.Name][Overlay]
		if workload.Goal > 0 && ours.wall > 0 && base.wall > 0 {
			verdict(workload.Name, ratio(ours.wall, base.wall), workload.Goal)
		}
	}
	few, many := all["missing, 1"][Laminafs].wall, all["missing, 500"][Laminafs].wall
	if few > 0 && many > 0 {
		verdict("500 / 1 layers", ratio(many, few), LayersGoal)
	}
}
