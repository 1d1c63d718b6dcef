package metrics

import (
	"context"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/laminafs/lamina/internal/metrics"
	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/mounts"
)

// sampled is a container and what could be found out about it.
type sampled struct {
	name, id string
	created  time.Time
	now      *container.Sample
	stats    *api.StatsResponse // nil where it does not run, or does not answer
}

func sample(ctx context.Context, c *container.Container) *sampled {
	s := &sampled{name: c.Name(), id: c.ID(), created: c.Created()}
	var err error
	if s.now, err = c.Sample(); err != nil {
		return nil // removed meanwhile, or damaged
	}
	if s.now.State != api.StateRunning && s.now.State != api.StatePaused {
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, mounts.Patience)
	defer cancel()
	if st, err := c.Stats(ctx); err == nil && !st.Read.IsZero() {
		s.stats = st
	}
	return s
}

// labels are those of containers and, with "mount", of mounts.
var labels = []string{"container", "container_id", "image"}

func (s *sampled) labels() []string { return []string{s.name, s.id, s.now.Image} }

// The states that are told apart; a container is in one of them.
var states = []api.ContainerState{
	api.StateCreated, api.StateRunning, api.StatePaused, api.StateRestarting, api.StateExited, api.StateDead,
}

type emit func(v float64, labels ...string)

type metric struct {
	metrics.Desc
	values func(s *sampled, e emit)
}

// fromRecord is a gauge that every container has.
func fromRecord(name, help string, values func(s *sampled, e emit)) metric {
	return metric{metrics.Desc{Name: name, Help: help, Type: prometheus.GaugeValue}, values}
}

// fromStats is one that a container has which runs and answers.
func fromStats(typ prometheus.ValueType, name, help string, value func(st *api.StatsResponse) float64) metric {
	return metric{metrics.Desc{Name: name, Help: help, Type: typ}, func(s *sampled, e emit) {
		if s.stats != nil {
			e(value(s.stats))
		}
	}}
}

const (
	counts = prometheus.CounterValue
	level  = prometheus.GaugeValue
)

var containerMetrics = []metric{
	{
		metrics.Desc{Name: "lamina_container_state", Help: "1 for the state that the container is in, 0 for the others.",
			Type: level, Labels: []string{"state"}},
		func(s *sampled, e emit) {
			for _, state := range states {
				e(truth(s.now.State == state), string(state))
			}
		},
	},
	fromRecord("lamina_container_up", "Whether the container runs and its monitor has told its figures.",
		func(s *sampled, e emit) { e(truth(s.stats != nil)) }),
	fromRecord("lamina_container_exit_code", "Exit status of the last run, once there was one.", func(s *sampled, e emit) {
		if !s.now.Finished.IsZero() {
			e(float64(s.now.ExitCode))
		}
	}),
	fromRecord("lamina_container_oom_killed", "Whether the kernel has killed a process of the last run for want of memory.",
		func(s *sampled, e emit) { e(truth(s.now.OOMKilled)) }),
	{
		metrics.Desc{Name: "lamina_container_restarts_total", Help: "Restarts by the restart policy since it was started.", Type: counts},
		func(s *sampled, e emit) { e(float64(s.now.Restarts)) },
	},
	fromRecord("lamina_container_created_time_seconds", "When it was created, in seconds since 1970.",
		func(s *sampled, e emit) { e(unixTime(s.created)) }),
	fromRecord("lamina_container_start_time_seconds", "When the last run began, in seconds since 1970.",
		func(s *sampled, e emit) {
			if !s.now.Started.IsZero() {
				e(unixTime(s.now.Started))
			}
		}),
	fromRecord("lamina_container_end_time_seconds", "When a run has ended last, in seconds since 1970.",
		func(s *sampled, e emit) {
			if !s.now.Finished.IsZero() {
				e(unixTime(s.now.Finished))
			}
		}),

	fromStats(counts, "lamina_container_cpu_usage_seconds_total", "CPU time, in seconds.",
		func(st *api.StatsResponse) float64 { return nanoseconds(st.CPUStats.CPUUsage.TotalUsage) }),
	fromStats(counts, "lamina_container_cpu_user_seconds_total", "CPU time in user mode, in seconds.",
		func(st *api.StatsResponse) float64 { return nanoseconds(st.CPUStats.CPUUsage.UsageInUsermode) }),
	fromStats(counts, "lamina_container_cpu_system_seconds_total", "CPU time in kernel mode, in seconds.",
		func(st *api.StatsResponse) float64 { return nanoseconds(st.CPUStats.CPUUsage.UsageInKernelmode) }),
	fromStats(counts, "lamina_container_cpu_periods_total", "Periods of the CPU limit that have passed.",
		func(st *api.StatsResponse) float64 { return float64(st.CPUStats.ThrottlingData.Periods) }),
	fromStats(counts, "lamina_container_cpu_throttled_periods_total", "Periods in which the CPU limit was reached.",
		func(st *api.StatsResponse) float64 { return float64(st.CPUStats.ThrottlingData.ThrottledPeriods) }),
	fromStats(counts, "lamina_container_cpu_throttled_seconds_total", "Time that the CPU limit has held its processes up, in seconds.",
		func(st *api.StatsResponse) float64 { return nanoseconds(st.CPUStats.ThrottlingData.ThrottledTime) }),
	fromStats(level, "lamina_container_memory_usage_bytes", "Memory, the page cache included, in bytes.",
		func(st *api.StatsResponse) float64 { return float64(st.MemoryStats.Usage) }),
	fromStats(level, "lamina_container_memory_working_set_bytes", "Memory without the page cache that the kernel takes back first, in bytes.",
		func(st *api.StatsResponse) float64 { return float64(workingSet(&st.MemoryStats)) }),
	fromStats(level, "lamina_container_memory_limit_bytes", "Its memory limit, in bytes; the machine's memory without one.",
		func(st *api.StatsResponse) float64 { return float64(st.MemoryStats.Limit) }),
	{
		metrics.Desc{Name: "lamina_container_oom_kills_total", Help: "Processes of this run that the kernel has killed for want of memory.", Type: counts},
		func(s *sampled, e emit) {
			if s.stats == nil {
				return
			}
			if n, ok := s.stats.MemoryStats.Stats[cgroup.OOMKills]; ok {
				e(float64(n))
			}
		},
	},
	fromStats(level, "lamina_container_processes", "Processes and threads.",
		func(st *api.StatsResponse) float64 { return float64(st.PidsStats.Current) }),
	{
		metrics.Desc{Name: "lamina_container_processes_limit", Help: "How many processes and threads it may have, where that is limited.", Type: level},
		func(s *sampled, e emit) {
			if s.stats != nil && s.stats.PidsStats.Limit > 0 {
				e(float64(s.stats.PidsStats.Limit))
			}
		},
	},
	fromStats(counts, "lamina_container_io_read_bytes_total", "Bytes read from block devices.",
		func(st *api.StatsResponse) float64 { return blkio(st.BlkioStats.IoServiceBytesRecursive, "read") }),
	fromStats(counts, "lamina_container_io_written_bytes_total", "Bytes written to block devices.",
		func(st *api.StatsResponse) float64 { return blkio(st.BlkioStats.IoServiceBytesRecursive, "write") }),
	fromStats(counts, "lamina_container_io_reads_total", "Reads from block devices.",
		func(st *api.StatsResponse) float64 { return blkio(st.BlkioStats.IoServicedRecursive, "read") }),
	fromStats(counts, "lamina_container_io_writes_total", "Writes to block devices.",
		func(st *api.StatsResponse) float64 { return blkio(st.BlkioStats.IoServicedRecursive, "write") }),
	network("lamina_container_network_receive_bytes_total", "Bytes received, where it has a network of its own.",
		func(n *api.NetworkStats) uint64 { return n.RxBytes }),
	network("lamina_container_network_transmit_bytes_total", "Bytes sent, where it has a network of its own.",
		func(n *api.NetworkStats) uint64 { return n.TxBytes }),
}

// network adds up the interfaces.
func network(name, help string, value func(n *api.NetworkStats) uint64) metric {
	return metric{metrics.Desc{Name: name, Help: help, Type: counts}, func(s *sampled, e emit) {
		if s.stats == nil || len(s.stats.Networks) == 0 {
			return
		}
		var sum uint64
		for _, n := range s.stats.Networks {
			sum += value(&n)
		}
		e(float64(sum))
	}}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixTime(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func nanoseconds(n uint64) float64 { return float64(n) / 1e9 }

// workingSet leaves out what cgroup v1 and v2 name differently.
func workingSet(m *api.MemoryStats) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}

// blkio adds up the devices. Cgroup v1 and v2 differ in how they write the operation.
func blkio(entries []api.BlkioStatEntry, op string) float64 {
	var sum uint64
	for _, e := range entries {
		if strings.EqualFold(e.Op, op) {
			sum += e.Value
		}
	}
	return float64(sum)
}
