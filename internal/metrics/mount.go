// Package metrics turns what mounts count (package figures) into Prometheus' metrics, and serves them.
//
// The table in this file is the one place that has names and meanings. docs/METRICS.md is checked against it.
package metrics

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/laminafs/lamina/internal/figures"
)

// Desc is what a metric is called and means.
type Desc struct {
	Name, Help string
	Type       prometheus.ValueType
	Labels     []string
}

// emit tells one value, with values for the labels.
type emit func(v float64, labels ...string)

// metric is one that a mount has.
type metric struct {
	Desc
	values func(m *figures.Mount, e emit)
}

func counter(name, help string, value func(m *figures.Mount) float64) metric {
	return metric{Desc{name, help, prometheus.CounterValue, nil}, func(m *figures.Mount, e emit) { e(value(m)) }}
}

func gauge(name, help string, value func(m *figures.Mount) float64) metric {
	return metric{Desc{name, help, prometheus.GaugeValue, nil}, func(m *figures.Mount, e emit) { e(value(m)) }}
}

var mountMetrics = []metric{
	{
		Desc{"laminafs_mount_info", "What the mount is, and how it works; always 1.", prometheus.GaugeValue,
			[]string{"mountpoint", "transport", "open", "whiteout", "id_mapping", "writable", "layers", "version", "goversion"}},
		func(m *figures.Mount, e emit) {
			open := "request"
			if m.Modes.ZeroMessage {
				open = "zero-message"
			}
			e(1, m.Mountpoint, m.Modes.Transport, open, m.Modes.Whiteout, m.Modes.IDMapping,
				strconv.FormatBool(m.Modes.Writable), strconv.Itoa(m.Modes.Layers), m.Version, m.GoVersion)
		},
	},
	gauge("laminafs_mount_start_time_seconds", "When the mount was made, in seconds since 1970.",
		func(m *figures.Mount) float64 { return m.Started }),

	{
		Desc{"laminafs_requests_total", "Requests of the kernel. A FORGET counts nodes.", prometheus.CounterValue,
			[]string{"opcode"}},
		func(m *figures.Mount, e emit) {
			for _, o := range m.Requests.Opcodes {
				e(float64(o.Count), o.Name)
			}
		},
	},
	{
		Desc{"laminafs_request_errors_total", "Requests that were answered with an error.", prometheus.CounterValue,
			[]string{"opcode", "errno"}},
		func(m *figures.Mount, e emit) {
			for _, o := range m.Requests.Opcodes {
				for errno, n := range o.Errors {
					e(float64(n), o.Name, errno)
				}
			}
		},
	},
	counter("laminafs_interrupted_requests_total", "Requests that gave up because a signal came.",
		func(m *figures.Mount) float64 { return float64(m.Requests.Interrupted) }),
	gauge("laminafs_requests_in_flight", "Requests that are being handled, of those that came after the first look.",
		func(m *figures.Mount) float64 { return float64(m.Requests.InFlight) }),
	{
		Desc{"laminafs_requests_waiting", "Requests that the kernel waits for, handled or not yet.", prometheus.GaugeValue, nil},
		func(m *figures.Mount, e emit) {
			if m.Requests.Waiting >= 0 {
				e(float64(m.Requests.Waiting))
			}
		},
	},
	counter("laminafs_read_bytes_total", "Bytes that READ requests were answered with.",
		func(m *figures.Mount) float64 { return float64(m.Requests.ReadBytes) }),
	counter("laminafs_written_bytes_total", "Bytes that WRITE requests have written.",
		func(m *figures.Mount) float64 { return float64(m.Requests.WrittenBytes) }),
	{
		Desc{"laminafs_notifications_total", "Notices that the kernel was sent and took.", prometheus.CounterValue, []string{"kind"}},
		func(m *figures.Mount, e emit) {
			for kind, n := range m.Requests.Notices {
				e(float64(n), kind)
			}
		},
	},

	counter("laminafs_copy_ups_total", "Objects copied from a lower layer to the upper.",
		func(m *figures.Mount) float64 { return float64(m.Union.CopyUps) }),
	counter("laminafs_copy_up_failures_total", "Copy-ups that failed.",
		func(m *figures.Mount) float64 { return float64(m.Union.CopyUpFailures) }),
	counter("laminafs_copy_up_bytes_total", "Bytes that copy-ups have written. What the filesystem shares, and holes, are not.",
		func(m *figures.Mount) float64 { return float64(m.Union.CopyUpBytes) }),
	counter("laminafs_copy_up_seconds_total", "Time that copy-ups took, in seconds.",
		func(m *figures.Mount) float64 { return m.Union.CopyUpSeconds }),
	counter("laminafs_whiteouts_total", "Whiteouts made in the upper.",
		func(m *figures.Mount) float64 { return float64(m.Union.Whiteouts) }),
	gauge("laminafs_nodes", "Objects that the kernel knows, the root included.",
		func(m *figures.Mount) float64 { return float64(m.Union.Nodes) }),
	gauge("laminafs_indexed_names", "Names in the indexes of directories that are in memory.",
		func(m *figures.Mount) float64 { return float64(m.Union.IndexedNames) }),
	gauge("laminafs_descriptors", "Descriptors open on directories and files of layers, beside one for each layer.",
		func(m *figures.Mount) float64 { return float64(m.Union.Descriptors) }),
	counter("laminafs_index_hits_total", "Uses of a directory's index that was there.",
		func(m *figures.Mount) float64 { return float64(m.Union.IndexHits) }),
	counter("laminafs_index_misses_total", "Uses of a directory's index that had to be made from the layers.",
		func(m *figures.Mount) float64 { return float64(m.Union.IndexMisses) }),

	counter("laminafs_process_cpu_seconds_total", "CPU time of the server, in seconds.",
		func(m *figures.Mount) float64 { return m.Process.CPUSeconds }),
	gauge("laminafs_process_resident_memory_bytes", "Resident memory of the server, in bytes.",
		func(m *figures.Mount) float64 { return float64(m.Process.ResidentBytes) }),
	gauge("laminafs_process_threads", "Threads of the server.",
		func(m *figures.Mount) float64 { return float64(m.Process.Threads) }),
	gauge("laminafs_go_goroutines", "Goroutines of the server.",
		func(m *figures.Mount) float64 { return float64(m.Process.Goroutines) }),
	gauge("laminafs_go_heap_bytes", "Bytes in allocated objects of the server.",
		func(m *figures.Mount) float64 { return float64(m.Process.HeapBytes) }),
	counter("laminafs_go_gc_cycles_total", "Garbage collections of the server.",
		func(m *figures.Mount) float64 { return float64(m.Process.GCCycles) }),
	counter("laminafs_go_gc_pause_seconds_total", "Time that the server's requests were stopped by its garbage collector, in seconds.",
		func(m *figures.Mount) float64 { return m.Process.GCSeconds }),
}

// Up is 1 for a mount that has answered.
var Up = Desc{"laminafs_up", "Whether the mount's server has told its figures.", prometheus.GaugeValue, nil}

// Durations is the histogram of a mount.
var Durations = Desc{Name: "laminafs_request_duration_seconds",
	Help: "How long requests took, in seconds: of each opcode the first 1024, and then one in four, from the first look on. FORGET is not timed.", Labels: []string{"opcode"}}

// Mounts are the metrics of mounts that are told apart by labels.
type Mounts struct {
	descs     []*prometheus.Desc // as mountMetrics
	up        *prometheus.Desc
	durations *prometheus.Desc
}

// NewMounts makes them. labels come before those that a metric has by itself.
func NewMounts(labels ...string) *Mounts {
	d := &Mounts{up: Up.New(labels), durations: Durations.New(labels)}
	for _, m := range mountMetrics {
		d.descs = append(d.descs, m.New(labels))
	}
	return d
}

// New makes a descriptor. labels come before its own.
func (d Desc) New(labels []string) *prometheus.Desc {
	return prometheus.NewDesc(d.Name, d.Help, append(append([]string{}, labels...), d.Labels...), nil)
}

// Descs are what a mount has, but for the histogram and Up.
func Descs() []Desc {
	var list []Desc
	for _, m := range mountMetrics {
		list = append(list, m.Desc)
	}
	return list
}

// Describe is a prometheus.Collector's.
func (d *Mounts) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range d.descs {
		ch <- desc
	}
	ch <- d.up
	ch <- d.durations
}

// Collect tells the metrics of one mount, or that it does not answer where m is nil.
func (d *Mounts) Collect(ch chan<- prometheus.Metric, m *figures.Mount, labels ...string) {
	up := 0.0
	if m != nil {
		up = 1
	}
	ch <- Constant(d.up, prometheus.GaugeValue, up, labels)
	if m == nil {
		return
	}
	for i, metric := range mountMetrics {
		metric.values(m, func(v float64, own ...string) {
			ch <- Constant(d.descs[i], metric.Type, v, append(append([]string{}, labels...), own...))
		})
	}
	for _, o := range m.Requests.Opcodes {
		if o.Latency != nil {
			ch <- histogram(d.durations, o.Latency, append(append([]string{}, labels...), o.Name))
		}
	}
}

func histogram(desc *prometheus.Desc, h *figures.Histogram, labels []string) prometheus.Metric {
	var sum uint64
	buckets := make(map[float64]uint64, len(figures.Bounds))
	for i, bound := range figures.Bounds {
		sum += h.Buckets[i]
		buckets[bound.Seconds()] = sum
	}
	sum += h.Buckets[len(figures.Bounds)]
	m, err := prometheus.NewConstHistogram(desc, sum, h.Seconds, buckets, valid(labels)...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

// Constant is one value, with values for all labels.
func Constant(desc *prometheus.Desc, typ prometheus.ValueType, v float64, labels []string) prometheus.Metric {
	m, err := prometheus.NewConstMetric(desc, typ, v, valid(labels)...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

// valid makes labels of what may be any bytes, as paths are.
func valid(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	return labels
}
