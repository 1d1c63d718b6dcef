package main

import (
	"strconv"
	"time"

	"github.com/docker/go-units"

	"github.com/laminafs/lamina/internal/figures"
)

// fsLine is what a mount has told, for people: fields of --format. It is "--" where it has told nothing.
type fsLine struct{ m *figures.Mount }

func (l fsLine) number(n func(m *figures.Mount) uint64) string {
	if l.m == nil {
		return "--"
	}
	return strconv.FormatUint(n(l.m), 10)
}

func (l fsLine) size(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

func (l fsLine) requests() string {
	return l.number(func(m *figures.Mount) (n uint64) {
		for _, o := range m.Requests.Opcodes {
			n += o.Count
		}
		return n
	})
}

// errors leaves ENOSYS out, which tells the kernel what not to ask, and ENODATA: an attribute that is not there.
func (l fsLine) errors() string {
	return l.number(func(m *figures.Mount) (n uint64) {
		for _, o := range m.Requests.Opcodes {
			for errno, k := range o.Errors {
				if errno != "ENOSYS" && errno != "ENODATA" {
					n += k
				}
			}
		}
		return n
	})
}

func (l fsLine) io() string {
	if l.m == nil {
		return "--"
	}
	return l.size(l.m.Requests.ReadBytes) + " / " + l.size(l.m.Requests.WrittenBytes)
}

// latency is the mean of the requests that were timed.
func (l fsLine) latency() string {
	if l.m == nil {
		return "--"
	}
	var n uint64
	var sum float64
	for _, o := range l.m.Requests.Opcodes {
		if o.Latency == nil {
			continue
		}
		sum += o.Latency.Seconds
		for _, b := range o.Latency.Buckets {
			n += b
		}
	}
	if n == 0 {
		return "--"
	}
	return time.Duration(sum / float64(n) * float64(time.Second)).Round(100 * time.Nanosecond).String()
}

func (l fsLine) copyUps() string {
	return l.number(func(m *figures.Mount) uint64 { return m.Union.CopyUps })
}

func (l fsLine) whiteouts() string {
	return l.number(func(m *figures.Mount) uint64 { return m.Union.Whiteouts })
}

func (l fsLine) nodes() string {
	return l.number(func(m *figures.Mount) uint64 { return uint64(m.Union.Nodes) })
}

func (l fsLine) memory() string {
	if l.m == nil {
		return "--"
	}
	return units.BytesSize(float64(l.m.Process.ResidentBytes))
}
