package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/cgroup"
)

// Top lists the container's processes; psArgs as for ps(1), default "-ef". Errors: ErrNotRunning.
func (c *Container) Top(ctx context.Context, psArgs []string) (*api.TopResponse, error) {
	t := &api.TopResponse{}
	_, err := c.ask(ctx, request{Op: opTop, PsArgs: psArgs}, t)
	return t, err
}

// top runs ps(1) of the machine and keeps the container's processes: those in its PID namespace.
func (m *monitor) top(psArgs []string) (*api.TopResponse, error) {
	r, err := m.running()
	if err != nil {
		return nil, err
	}
	if len(psArgs) == 0 {
		psArgs = []string{"-ef"}
	}
	pids, err := m.pids(r)
	if missing(err) {
		return nil, m.c.notRunning() // it is being taken apart
	}
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("ps", psArgs...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			line, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n") // how to use it comes behind that
			err = errors.New(line)
		}
		return nil, fmt.Errorf("error running ps: %w", err)
	}
	return parsePs(string(out), pids)
}

// pids are the container's processes: those in its PID namespace, or in its cgroup where it shares one with others.
func (m *monitor) pids(r *run) (map[int]bool, error) {
	if !m.c.r.sharedPIDs() {
		return namespacePids(r.sandbox.Pid())
	}
	list, err := r.group.Pids()
	pids := map[int]bool{}
	for _, p := range list {
		pids[p] = true
	}
	return pids, err
}

// namespacePids are the processes in the PID namespace of pid, as we see them.
func namespacePids(pid int) (map[int]bool, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if its, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && its == ns {
			pids[n] = true
		}
	}
	return pids, nil
}

// parsePs keeps the lines of ps's output whose PID is wanted. The last column takes the rest of a line.
func parsePs(out string, pids map[int]bool) (*api.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	t := &api.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	at := slices.Index(t.Titles, "PID")
	if at < 0 {
		return nil, fail(ErrInvalid, "couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) < len(t.Titles) {
			continue
		}
		pid, err := strconv.Atoi(f[at])
		if err != nil {
			return nil, fmt.Errorf("unexpected pid '%s': %w", f[at], err)
		}
		if !pids[pid] {
			continue
		}
		last := len(t.Titles) - 1
		t.Processes = append(t.Processes, append(slices.Clone(f[:last]), strings.Join(f[last:], " ")))
	}
	return t, nil
}

// Stats is one sample. Two of them, apart, give a rate: PreCPUStats is that of the sample before on the same monitor.
// A container that does not run has all zeros.
func (c *Container) Stats(ctx context.Context) (*api.StatsResponse, error) {
	s := &api.StatsResponse{}
	_, err := c.ask(ctx, request{Op: opStats}, s)
	if errors.Is(err, ErrNotRunning) {
		return &api.StatsResponse{ID: c.r.ID, Name: "/" + c.r.Name, OSType: "linux"}, nil
	}
	return s, err
}

// stats takes a sample. Where there is no cgroup it is made from the processes.
func (m *monitor) stats() (*api.StatsResponse, error) {
	r, err := m.running()
	if err != nil {
		return nil, err
	}
	s, err := r.group.Stats()
	var none *cgroup.Unavailable
	if errors.As(err, &none) {
		s, err = processStats(r.sandbox.Pid())
	}
	if missing(err) {
		return nil, m.c.notRunning() // it is being taken apart
	}
	if err != nil {
		return nil, err
	}
	s.ID, s.Name = m.c.r.ID, "/"+m.c.r.Name
	if m.c.r.HostConfig.NetworkMode != "host" {
		s.Networks = networkStats(r.sandbox.Pid())
	}
	if s.MemoryStats.Limit == 0 || s.MemoryStats.Limit > memTotal() {
		s.MemoryStats.Limit = memTotal()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lastStats != nil {
		s.PreRead, s.PreCPUStats = m.lastStats.Read, m.lastStats.CPUStats
	}
	m.lastStats = s
	return s, nil
}

// userHZ is the unit of /proc/PID/stat: the same on every architecture that Go runs on.
const userHZ = 100

// processStats adds up the processes of a container that has no cgroup. What ended ones have used is in the figures of those
// that have waited for them; of those whose parent is not in the container it is lost.
func processStats(pid int) (*api.StatsResponse, error) {
	pids, err := namespacePids(pid)
	if err != nil {
		return nil, err
	}
	s := &api.StatsResponse{OSType: "linux", Read: time.Now()}
	const tick = uint64(time.Second / userHZ)
	for p := range pids {
		f := sys.ProcStat(p)
		if len(f) < 22 {
			continue // it has ended
		}
		number := func(i int) uint64 {
			n, _ := strconv.ParseUint(f[i], 10, 64) // the kernel writes numbers
			return n
		}
		s.CPUStats.CPUUsage.UsageInUsermode += (number(11) + number(13)) * tick
		s.CPUStats.CPUUsage.UsageInKernelmode += (number(12) + number(14)) * tick
		s.MemoryStats.Usage += number(21) * uint64(os.Getpagesize())
		s.PidsStats.Current += number(17)
	}
	u := &s.CPUStats.CPUUsage
	u.TotalUsage = u.UsageInUsermode + u.UsageInKernelmode
	s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = cgroup.SystemCPU()
	return s, nil
}

// memTotal is the machine's memory in bytes.
func memTotal() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	var kib uint64
	_, _ = fmt.Fscanf(f, "MemTotal: %d kB", &kib) // the first line; 0 where it is not
	return kib << 10
}

// networkStats are the counters of the container's interfaces.
func networkStats(pid int) map[string]api.NetworkStats {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	all := map[string]api.NetworkStats{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		n := strings.Fields(rest)
		name = strings.TrimSpace(name)
		if !ok || len(n) < 12 || name == "lo" {
			continue
		}
		number := func(i int) uint64 {
			v, _ := strconv.ParseUint(n[i], 10, 64) // the kernel writes numbers
			return v
		}
		all[name] = api.NetworkStats{
			RxBytes: number(0), RxPackets: number(1), RxErrors: number(2), RxDropped: number(3),
			TxBytes: number(8), TxPackets: number(9), TxErrors: number(10), TxDropped: number(11),
		}
	}
	return all
}
