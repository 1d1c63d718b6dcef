package scrape

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"testing"

	"golang.org/x/perf/benchmath"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// rounds is how many batches each of the servers of one sample does.
const rounds = 40

// warmUp is how many go before: what the first requests do is not what the others do, and of each kind the first 1024 are timed.
const warmUp = 12

// metadataWorks are those of lamina-bench's metadata group that ask the server whatever the kernel knows already.
var metadataWorks = []struct {
	name  string
	batch int // how often it is done in a row: a millisecond or so, in which what else goes on stays the same
	do    func(dir string, i int) error
}{
	// The cheapest request that there is: what a measurement costs weighs most.
	{"lookup", 100, func(dir string, i int) error {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, fmt.Sprintf("missing-%d", i)), &st); err != unix.ENOENT {
			return fmt.Errorf("lstat: %v, want ENOENT", err)
		}
		return nil
	}},
	{"storm", 15, func(dir string, i int) error {
		a, b := filepath.Join(dir, fmt.Sprintf("a%d", i)), filepath.Join(dir, fmt.Sprintf("b%d", i))
		if err := os.WriteFile(a, []byte("x"), 0o644); err != nil {
			return err
		}
		if err := os.Rename(a, b); err != nil {
			return err
		}
		return os.Remove(b)
	}},
	{"tree", 15, func(dir string, i int) error {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i))
		if err := os.MkdirAll(d+"/e/f", 0o755); err != nil {
			return err
		}
		if err := os.Symlink("x", d+"/e/l"); err != nil {
			return err
		}
		return os.RemoveAll(d)
	}},
}

// BenchmarkMetrics tells what metrics cost a server, as CPU time. Three servers of the same kind do the same batches in turns, so
// close together that what else the machine does falls on all: one without metrics, another one without, and one with
// metrics= that is scraped all the time. The median of the ratios of batches that followed each other is one sample. Each
// sample has servers of its own, which change roles: no two processes are equally fast, wherever that comes from. Reported
// are, in percent, the median of all samples and its 95 % confidence interval of
//
//	on       with metrics, against without: what they cost
//	control  without, against without: what this cannot tell apart
//
// A run of -benchtime 60x tells apart about 1 %.
func BenchmarkMetrics(b *testing.B) {
	needPrograms(b)
	for _, w := range metadataWorks {
		b.Run(w.name, func(b *testing.B) {
			goruntime.LockOSThread()
			defer goruntime.UnlockOSThread()
			c := &costs{batch: w.batch, do: w.do}
			for i := range c.mounts {
				l := layers(b)
				c.mounts[i], c.sockets[i] = uniontest.Start(b, uniontest.Laminafs, l), "unix:"+socketDir(b, l)+"/m.sock"
			}
			for b.Loop() {
				c.sample(b)
			}
			c.report(b)
		})
	}
}

// costs are samples of one work.
type costs struct {
	mounts  [3]*uniontest.Mount
	sockets [3]string
	batch   int
	do      func(dir string, i int) error
	done    int // batches, for names that are new

	control, on []float64 // ratios
}

// sample takes one of each, with new servers.
func (c *costs) sample(b *testing.B) {
	first := len(c.on) % len(c.mounts) // whose role is the first: without, without, with
	order := []int{first, (first + 1) % 3, (first + 2) % 3}
	with := order[2]
	for i, m := range c.mounts {
		if i == with {
			m.Remount("metrics=" + c.sockets[i])
		} else {
			m.Remount("fsname=x")
		}
		for range warmUp {
			c.run(b, i)
		}
	}
	var control, on []float64
	for round := range rounds {
		if round%10 == 0 {
			scrape(b, c.sockets[with])
		}
		var took [3]float64
		for _, i := range rand.Perm(len(order)) {
			took[i] = c.run(b, order[i])
		}
		control = append(control, took[1]/took[0])
		on = append(on, took[2]/took[0], took[2]/took[1])
	}
	c.control, c.on = append(c.control, median(control).Center), append(c.on, median(on).Center)
}

// run does a batch on a mount, and returns what CPU time its server has used for it, in nanoseconds.
func (c *costs) run(b *testing.B, i int) float64 {
	m := c.mounts[i]
	before := cpu(b, m.Pid())
	for range c.batch {
		c.done++
		if err := c.do(m.Dir(), c.done); err != nil {
			b.Fatal(err)
		}
	}
	return float64(cpu(b, m.Pid()) - before)
}

func (c *costs) report(b *testing.B) {
	for name, ratios := range map[string][]float64{"control": c.control, "on": c.on} {
		s := median(ratios)
		if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
			s.Lo, s.Hi = slices.Min(ratios), slices.Max(ratios)
		}
		b.ReportMetric(100*(s.Center-1), name+"-%")
		b.ReportMetric(100*(s.Lo-1), name+"-low-%")
		b.ReportMetric(100*(s.Hi-1), name+"-high-%")
	}
}

func median(values []float64) benchmath.Summary {
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95)
}

// BenchmarkScrape tells what one scrape costs, as CPU time of the server of the mount and of its exporter.
func BenchmarkScrape(b *testing.B) {
	needPrograms(b)
	l := layers(b)
	address := "unix:" + socketDir(b, l) + "/m.sock"
	m := uniontest.Start(b, uniontest.Laminafs, l, "metrics="+address)
	uniontest.Run(b, m, "python3", "-c", work, m.Dir())
	other := exporter(b, m.Pid())
	server, exporter := cpu(b, m.Pid()), cpu(b, other)
	for b.Loop() {
		scrape(b, address)
	}
	b.ReportMetric(float64(cpu(b, m.Pid())-server)/float64(b.N), "server-ns/op")
	b.ReportMetric(float64(cpu(b, other)-exporter)/float64(b.N), "exporter-ns/op")
}

// cpu is the CPU time of a process, in nanoseconds: by its clock (clock_getcpuclockid(3)), which has those of threads that have
// ended too.
func cpu(t testing.TB, pid int) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano()
}
