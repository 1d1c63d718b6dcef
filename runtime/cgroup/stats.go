package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// userHZ is the unit of /proc/stat: USER_HZ of the kernel is 100 on every architecture that Go runs on.
const userHZ = 100

// OOMKills is what MemoryStats.Stats has the OOM kills of the group under, beside what the kernel counts in memory.stat.
const OOMKills = "oom_kill"

// Stats are the group's counters as `docker stats` has them, without ID, Name, Networks and the previous sample.
//
// Errors: *Unavailable where there is no cgroup.
func (g *Group) Stats() (*container.StatsResponse, error) {
	if err := g.none("stats"); err != nil {
		return nil, err
	}
	g.mu.Lock()
	s, err := g.mgr.Stats(&cgroups.StatsOptions{Controllers: cgroups.CPU | cgroups.Memory | cgroups.Pids | cgroups.IO})
	kills, oomErr := g.oomKillsLocked()
	g.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("cgroup %s: stats: %w", g.id, err)
	}
	r := &container.StatsResponse{
		OSType:      "linux",
		Read:        time.Now(),
		CPUStats:    cpuStats(&s.CpuStats),
		MemoryStats: memoryStats(&s.MemoryStats),
		PidsStats:   container.PidsStats{Current: s.PidsStats.Current, Limit: s.PidsStats.Limit},
		BlkioStats:  blkioStats(&s.BlkioStats),
	}
	if oomErr == nil && r.MemoryStats.Stats != nil {
		r.MemoryStats.Stats[OOMKills] = kills
	}
	r.CPUStats.SystemUsage, r.CPUStats.OnlineCPUs = SystemCPU()
	return r, nil
}

func cpuStats(c *cgroups.CpuStats) container.CPUStats {
	return container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage:        c.CpuUsage.TotalUsage,
			PercpuUsage:       c.CpuUsage.PercpuUsage,
			UsageInKernelmode: c.CpuUsage.UsageInKernelmode,
			UsageInUsermode:   c.CpuUsage.UsageInUsermode,
		},
		ThrottlingData: container.ThrottlingData{
			Periods:          c.ThrottlingData.Periods,
			ThrottledPeriods: c.ThrottlingData.ThrottledPeriods,
			ThrottledTime:    c.ThrottlingData.ThrottledTime,
		},
	}
}

// memoryStats has the machine's memory as limit where there is none, as Docker does.
func memoryStats(m *cgroups.MemoryStats) container.MemoryStats {
	r := container.MemoryStats{
		Usage:    m.Usage.Usage,
		MaxUsage: m.Usage.MaxUsage,
		Failcnt:  m.Usage.Failcnt,
		Limit:    m.Usage.Limit,
		Stats:    m.Stats,
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		if total := uint64(si.Totalram) * uint64(si.Unit); r.Limit == 0 || r.Limit > total {
			r.Limit = total
		}
	}
	return r
}

func blkioStats(b *cgroups.BlkioStats) container.BlkioStats {
	entries := func(in []cgroups.BlkioStatEntry) []container.BlkioStatEntry {
		out := make([]container.BlkioStatEntry, len(in))
		for i, e := range in {
			out[i] = container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value}
		}
		return out
	}
	return container.BlkioStats{
		IoServiceBytesRecursive: entries(b.IoServiceBytesRecursive),
		IoServicedRecursive:     entries(b.IoServicedRecursive),
		IoQueuedRecursive:       entries(b.IoQueuedRecursive),
		IoServiceTimeRecursive:  entries(b.IoServiceTimeRecursive),
		IoWaitTimeRecursive:     entries(b.IoWaitTimeRecursive),
		IoMergedRecursive:       entries(b.IoMergedRecursive),
		IoTimeRecursive:         entries(b.IoTimeRecursive),
		SectorsRecursive:        entries(b.SectorsRecursive),
	}
}

// SystemCPU is the time that all CPUs have counted since boot, in nanoseconds, and how many they are: the first seven
// columns of /proc/stat (proc(5)), as Docker adds them. Both are 0 where it cannot be read.
func SystemCPU() (usage uint64, cpus uint32) {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return 0, 0
	}
	defer file.Close() // read-only
	for sc := bufio.NewScanner(file); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 8 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		if f[0] != "cpu" {
			cpus++
			continue
		}
		for _, column := range f[1:8] {
			n, err := strconv.ParseUint(column, 10, 64)
			if err == nil {
				usage += n * uint64(time.Second/userHZ)
			}
		}
	}
	return usage, cpus
}

// readLine reports whether the file has the text in it.
func readLine(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(b), text)
}
