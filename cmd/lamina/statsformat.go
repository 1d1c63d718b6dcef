package main

import (
	"strconv"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/figures"
)

const statsTable = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

const statsFSTable = "table {{.ID}}\t{{.Name}}\t{{.FSRequests}}\t{{.FSErrors}}\t{{.FSIO}}\t{{.FSCopyUps}}\t{{.FSWhiteouts}}\t{{.FSNodes}}\t{{.FSMem}}"

func statsFormat(source string, fs bool) formatter.Format {
	if source == "" || source == formatter.TableFormatKey {
		if fs {
			return statsFSTable
		}
		return statsTable
	}
	return formatter.Format(source)
}

// statsEntry is one line of stats.
type statsEntry struct {
	id, name string
	valid    bool // there are figures

	cpu, memory, memoryLimit  float64 // percent of one CPU; bytes
	memoryPercent             float64
	received, sent, read, put float64 // bytes
	pids                      uint64

	fs *figures.Mount // nil where it is not shown, or has told nothing
}

// fill works out what Docker shows from a sample and the one before it.
func (e *statsEntry) fill(s *api.StatsResponse) {
	e.valid = true
	e.cpu = cpuPercent(&s.PreCPUStats, &s.CPUStats)
	e.memory = memoryUsed(&s.MemoryStats)
	e.memoryLimit = float64(s.MemoryStats.Limit)
	if e.memoryLimit > 0 {
		e.memoryPercent = e.memory / e.memoryLimit * 100
	}
	for _, n := range s.Networks {
		e.received += float64(n.RxBytes)
		e.sent += float64(n.TxBytes)
	}
	for _, io := range s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case io.Op == "":
		case io.Op[0]|0x20 == 'r':
			e.read += float64(io.Value)
		case io.Op[0]|0x20 == 'w':
			e.put += float64(io.Value)
		}
	}
	e.pids = s.PidsStats.Current
}

// cpuPercent is the container's part of the time of all CPUs between two samples, 100 being one CPU.
func cpuPercent(before, now *api.CPUStats) float64 {
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	system := float64(now.SystemUsage) - float64(before.SystemUsage)
	cpus := float64(now.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(now.CPUUsage.PercpuUsage))
	}
	if used <= 0 || system <= 0 {
		return 0
	}
	return used / system * cpus * 100
}

// memoryUsed leaves out the page cache that the kernel takes back first. Cgroup v1 and v2 name it differently.
func memoryUsed(m *api.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return float64(m.Usage - v)
		}
	}
	return float64(m.Usage)
}

func statsWrite(ctx formatter.Context, entries []statsEntry) error {
	head := &statsLine{}
	head.Header = formatter.SubHeaderContext{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
		"FSRequests": "FS REQUESTS", "FSErrors": "FS ERRORS", "FSIO": "READ / WRITTEN", "FSCopyUps": "COPY-UPS",
		"FSWhiteouts": "WHITEOUTS", "FSNodes": "NODES", "FSMem": "FS MEM", "FSLatency": "FS LATENCY",
	}
	return ctx.Write(head, func(format func(formatter.SubContext) error) error {
		for _, e := range entries {
			if err := format(&statsLine{e: e, trunc: ctx.Trunc}); err != nil {
				return err
			}
		}
		return nil
	})
}

// statsLine has the fields that --format may name.
type statsLine struct {
	formatter.HeaderContext
	e     statsEntry
	trunc bool
}

func (l *statsLine) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(l) }

func (l *statsLine) Container() string { return l.ID() }
func (l *statsLine) Name() string      { return l.e.name }

func (l *statsLine) ID() string {
	if l.trunc {
		return formatter.TruncateID(l.e.id)
	}
	return l.e.id
}

func (l *statsLine) CPUPerc() string { return l.percent(l.e.cpu) }
func (l *statsLine) MemPerc() string { return l.percent(l.e.memoryPercent) }

func (l *statsLine) percent(v float64) string {
	if !l.e.valid {
		return "--"
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + "%"
}

func (l *statsLine) MemUsage() string {
	if !l.e.valid {
		return "-- / --"
	}
	return units.BytesSize(l.e.memory) + " / " + units.BytesSize(l.e.memoryLimit)
}

func (l *statsLine) NetIO() string   { return l.pair(l.e.received, l.e.sent) }
func (l *statsLine) BlockIO() string { return l.pair(l.e.read, l.e.put) }

func (l *statsLine) pair(in, out float64) string {
	if !l.e.valid {
		return "--"
	}
	return units.HumanSizeWithPrecision(in, 3) + " / " + units.HumanSizeWithPrecision(out, 3)
}

func (l *statsLine) FSRequests() string  { return fsLine{l.e.fs}.requests() }
func (l *statsLine) FSErrors() string    { return fsLine{l.e.fs}.errors() }
func (l *statsLine) FSLatency() string   { return fsLine{l.e.fs}.latency() }
func (l *statsLine) FSIO() string        { return fsLine{l.e.fs}.io() }
func (l *statsLine) FSCopyUps() string   { return fsLine{l.e.fs}.copyUps() }
func (l *statsLine) FSWhiteouts() string { return fsLine{l.e.fs}.whiteouts() }
func (l *statsLine) FSNodes() string     { return fsLine{l.e.fs}.nodes() }
func (l *statsLine) FSMem() string       { return fsLine{l.e.fs}.memory() }

func (l *statsLine) PIDs() string {
	if !l.e.valid {
		return "--"
	}
	return strconv.FormatUint(l.e.pids, 10)
}
