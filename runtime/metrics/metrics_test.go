package metrics

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/livemount"
	"github.com/laminafs/lamina/internal/metrics/metricsdoc"
	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/container"
)

// runs has something for every metric of a container.
func runs() *sampled {
	return &sampled{
		name: "web", id: "abc", created: time.Unix(1, 0),
		now: &container.Sample{State: api.StateRunning, Image: "app:1", ExitCode: 137, OOMKilled: true, Restarts: 2,
			Started: time.Unix(3, 0), Finished: time.Unix(2, 5e8)},
		stats: &api.StatsResponse{
			CPUStats: api.CPUStats{CPUUsage: api.CPUUsage{TotalUsage: 3e9, UsageInUsermode: 2e9, UsageInKernelmode: 1e9},
				ThrottlingData: api.ThrottlingData{Periods: 6, ThrottledPeriods: 5, ThrottledTime: 4e9}},
			MemoryStats: api.MemoryStats{Usage: 100, Limit: 1000,
				Stats: map[string]uint64{"inactive_file": 30, cgroup.OOMKills: 1}},
			PidsStats: api.PidsStats{Current: 7, Limit: 64},
			BlkioStats: api.BlkioStats{
				IoServiceBytesRecursive: []api.BlkioStatEntry{{Op: "Read", Value: 8}, {Op: "read", Value: 1}, {Op: "write", Value: 10}},
				IoServicedRecursive:     []api.BlkioStatEntry{{Op: "read", Value: 11}, {Op: "Write", Value: 12}, {Op: "Total", Value: 23}},
			},
			Networks: map[string]api.NetworkStats{"eth0": {RxBytes: 13, TxBytes: 14}, "lo": {RxBytes: 1, TxBytes: 1}},
		},
	}
}

// fixed is a collector of containers.
type fixed struct {
	*Host
	all []*sampled
}

func (f fixed) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range f.containers {
		ch <- d
	}
}

func (f fixed) Collect(ch chan<- prometheus.Metric) {
	for _, s := range f.all {
		f.container(ch, s)
	}
}

func TestContainers(t *testing.T) {
	made := &sampled{name: "made", id: "def", created: time.Unix(1, 0), now: &container.Sample{State: api.StateCreated, Image: "app:1"}}
	c := fixed{NewHost(Source{}), []*sampled{runs(), made}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	want, err := os.ReadFile("testdata/containers.prom")
	if err != nil {
		t.Fatal(err)
	}
	if err := testutil.CollectAndCompare(c, strings.NewReader(string(want))); err != nil {
		t.Error(err)
	}
}

func TestDocumentation(t *testing.T) {
	want := map[string]string{}
	for _, d := range Descs() {
		want[d.Name] = metricsdoc.Line(d.Name, d.Help, metricsdoc.TypeOf(d.Type), d.Labels)
	}
	metricsdoc.Check(t, "../../docs/METRICS.md", regexp.MustCompile(`^lamina_`), want)
}

// tell makes the directory of a live mount in base; serve is what its socket does, nil for none.
func tell(t *testing.T, base, mountpoint string, serve func(fd int)) string {
	t.Helper()
	d, err := livemount.Create([]string{base}, livemount.Info{Mountpoint: mountpoint, PID: len(mountpoint),
		Branches: []livemount.Branch{{Path: "/l"}}})
	if err != nil {
		t.Fatal(err)
	}
	if serve == nil {
		t.Cleanup(func() { _ = d.Remove() }) // the test may have damaged it
		return d.ID
	}
	fd, err := d.Listen("figures")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); serve(fd) }()
	t.Cleanup(func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		<-done
		_ = unix.Close(fd)
		_ = d.Remove() // as above
	})
	return d.ID
}

// A mount that is dead or hangs, a directory that is damaged and a store that cannot be read are told of, and the rest
// is told all the same.
func TestHost(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "laminafs")
	ids := map[string]string{}
	well := func(name string) func(fd int) {
		return func(fd int) {
			figures.ServeAll(fd, func(bool) *figures.Mount { return &figures.Mount{Mountpoint: name} })
		}
	}
	ids["well"] = tell(t, base, "/well", well("/well"))
	ids["silent"] = tell(t, base, "/silent", func(int) {}) // it listens, and accepts nobody
	ids["hangs"] = tell(t, base, "/hangs", func(fd int) {
		c, _, err := unix.Accept(fd)
		if err != nil {
			t.Error(err)
			return
		}
		_ = unix.Close(c) // at once
	})
	ids["none"] = tell(t, base, "/none", nil)
	damaged := tell(t, base, "/damaged", nil)
	if err := os.Remove(filepath.Join(base, "si_"+damaged, "pid")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "si_"+damaged, "pid"), []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		id := tell(t, base, "/others", well("/others"))
		if err := os.Chown(filepath.Join(base, "si_"+id), 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	h := NewHost(Source{
		Containers: func() ([]*container.Container, error) { return nil, errors.New("no store") },
		Bases:      []string{filepath.Join(dir, "absent"), base},
		Log:        log.New(io.Discard, "", 0),
	})
	want := `
		# HELP lamina_collect_failed ` + Failed.Help + `
		# TYPE lamina_collect_failed gauge
		lamina_collect_failed{kind="container"} 1
		lamina_collect_failed{kind="mount"} 1
		# HELP lamina_left_out ` + LeftOut.Help + `
		# TYPE lamina_left_out gauge
		lamina_left_out{kind="container"} 0
		lamina_left_out{kind="mount"} 0
		# HELP laminafs_up Whether the mount's server has told its figures.
		# TYPE laminafs_up gauge
		laminafs_up{container="",container_id="",image="",mount="` + ids["well"] + `"} 1
		laminafs_up{container="",container_id="",image="",mount="` + ids["silent"] + `"} 0
		laminafs_up{container="",container_id="",image="",mount="` + ids["hangs"] + `"} 0
		laminafs_up{container="",container_id="",image="",mount="` + ids["none"] + `"} 0
		`
	names := []string{"lamina_collect_failed", "lamina_left_out", "laminafs_up"}
	collected(t, h, want, names...)
	if problems, err := testutil.CollectAndLint(h); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// collected wants the collector to come to give these metrics: on a machine with much else to do an answer may come too late.
func collected(t *testing.T, c prometheus.Collector, want string, names ...string) {
	t.Helper()
	for tries := 1; ; tries++ {
		err := testutil.CollectAndCompare(c, strings.NewReader(want), names...)
		if err == nil {
			return
		}
		if tries == 5 {
			t.Fatal(err)
		}
	}
}

// However many hang, those that do not are told of: they wait for nobody's patience to end.
func TestManySilent(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	for i := range 40 {
		tell(t, base, fmt.Sprintf("/silent%d", i), func(int) {}) // it listens, and accepts nobody
	}
	id := tell(t, base, "/well", func(fd int) {
		figures.ServeAll(fd, func(bool) *figures.Mount { return &figures.Mount{Mountpoint: "/well"} })
	})
	h := NewHost(Source{
		Containers: func() ([]*container.Container, error) { return nil, nil },
		Bases:      []string{base}, Log: log.New(io.Discard, "", 0),
	})
	for tries := 1; ; tries++ {
		ch := make(chan prometheus.Metric, 1000)
		h.Collect(ch)
		close(ch)
		ups := 0.0
		for m := range ch {
			if strings.Contains(m.Desc().String(), `"laminafs_up"`) {
				ups += testutil.ToFloat64(one{m})
			}
		}
		if ups == 1 {
			return
		}
		if tries == 5 {
			t.Fatalf("%v mounts are up, want %s alone", ups, id)
		}
	}
}

func TestTooMany(t *testing.T) {
	h := NewHost(Source{})
	ch := make(chan prometheus.Metric, 1)
	if left := bound(ch, h.leftOut, "mount", make([]int, most+3)); len(left) != most {
		t.Errorf("%d are told of", len(left))
	}
	if v := testutil.ToFloat64(one{<-ch}); v != 3 {
		t.Errorf("%v are left out, want 3", v)
	}
}

// one is a collector of one metric.
type one struct{ prometheus.Metric }

func (o one) Describe(ch chan<- *prometheus.Desc) { ch <- o.Desc() }
func (o one) Collect(ch chan<- prometheus.Metric) { ch <- o.Metric }
