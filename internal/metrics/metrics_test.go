package metrics

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/laminafs/lamina/internal/endpoint"
	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/internal/metrics/metricsdoc"
	"github.com/laminafs/lamina/internal/uniontest/allocs"
)

// sample has a value for every metric, and something in every list.
func sample() *figures.Mount {
	return &figures.Mount{
		PID: 7, Started: 1.5, Mountpoint: "/m\xff\n\"", Version: "v1", GoVersion: "go1",
		Modes: figures.Modes{Transport: "loop", ZeroMessage: true, Whiteout: "wh", IDMapping: "none", Writable: true, Layers: 3},
		Requests: figures.Requests{
			Opcodes: []figures.Opcode{
				{Name: "LOOKUP", Count: 10, Errors: map[string]uint64{"EIO": 1, "other": 2},
					Latency: &figures.Histogram{Seconds: 21, Buckets: [len(figures.Bounds) + 1]uint64{0: 3, 2: 4, len(figures.Bounds): 2}}},
				{Name: "FORGET", Count: 4},
			},
			ReadBytes: 11, WrittenBytes: 12, InFlight: 13, Waiting: 14, Interrupted: 15, Notices: map[string]uint64{"STORE": 16},
		},
		Union: figures.Union{Nodes: 17, Descriptors: 18, IndexedNames: 19, IndexHits: 20, IndexMisses: 21, CopyUps: 22,
			CopyUpFailures: 23, CopyUpBytes: 24, CopyUpSeconds: 2.5, Whiteouts: 26},
		Process: figures.Process{CPUSeconds: 2.7, ResidentBytes: 28, Threads: 29, Goroutines: 30, HeapBytes: 31, GCCycles: 32,
			GCSeconds: 3.3},
	}
}

// fixed is a collector of mounts, by the value of their label; with no label of only one.
type fixed struct {
	mounts *Mounts
	all    map[string]*figures.Mount
}

func (f fixed) Describe(ch chan<- *prometheus.Desc) { f.mounts.Describe(ch) }
func (f fixed) Collect(ch chan<- prometheus.Metric) {
	for label, m := range f.all {
		if label == "" {
			f.mounts.Collect(ch, m)
		} else {
			f.mounts.Collect(ch, m, label)
		}
	}
}

func TestConventions(t *testing.T) {
	for name, c := range map[string]fixed{
		"one":     {NewMounts(), map[string]*figures.Mount{"": sample()}},
		"several": {NewMounts("mount"), map[string]*figures.Mount{"a": sample(), "b": sample(), "c": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			r := prometheus.NewPedanticRegistry()
			r.MustRegister(c)
			problems, err := testutil.GatherAndLint(r)
			if err != nil || len(problems) > 0 {
				t.Errorf("%v, %v", problems, err)
			}
		})
	}
}

func TestValues(t *testing.T) {
	c := fixed{NewMounts("mount"), map[string]*figures.Mount{"a": sample(), "b": nil}}
	want, err := os.ReadFile("testdata/mount.prom")
	if err != nil {
		t.Fatal(err)
	}
	if err := testutil.CollectAndCompare(c, strings.NewReader(string(want))); err != nil {
		t.Error(err)
	}
}

// Every metric that there is has a line in the documentation, and no other has one.
func TestDocumentation(t *testing.T) {
	want := map[string]string{}
	for _, d := range append(Descs(), Up) {
		want[d.Name] = metricsdoc.Line(d.Name, d.Help, metricsdoc.TypeOf(d.Type), d.Labels)
	}
	want[Durations.Name] = metricsdoc.Line(Durations.Name, Durations.Help, "histogram", Durations.Labels)
	metricsdoc.Check(t, "../../docs/METRICS.md", regexp.MustCompile(`^laminafs_`), want)
}

// serve is an endpoint on a socket until the test ends.
func serve(t *testing.T, c prometheus.Collector) *http.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := endpoint.Listen(endpoint.Address{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRegistry()
	r.MustRegister(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	logger := log.New(t.Output(), "", 0)
	go func() { done <- Serve(ctx, l, Handler(r), logger) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket stays")
		}
	})
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}
}

func TestReadOnly(t *testing.T) {
	client := serve(t, fixed{NewMounts(), map[string]*figures.Mount{"": sample()}})
	tests := []struct {
		method, path string
		body         string
		want         int
	}{
		{"GET", "/metrics", "", 200}, {"HEAD", "/metrics", "", 200}, {"GET", "/", "", 200},
		{"POST", "/metrics", "", 405}, {"PUT", "/metrics", "x", 405}, {"DELETE", "/metrics", "", 405},
		{"PATCH", "/", "", 405}, {"OPTIONS", "/metrics", "", 405}, {"GET", "/debug/pprof/", "", 404}, {"GET", "/../metrics/x", "", 404},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://x"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.want {
				t.Errorf("%s, %v; want %d", resp.Status, err, tt.want)
			}
			if tt.method == "GET" && tt.path == "/metrics" && !strings.Contains(string(body), "\nlaminafs_nodes 17\n") {
				t.Errorf("it says %s", body)
			}
		})
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/metrics", nil) // a constant URL
	req.Header.Set("X", strings.Repeat("x", 1<<20))
	if resp, err := client.Do(req); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a header of 1 MiB: %s", resp.Status)
		}
	}
}

// Every endpoint tells what built it, and of its process and its runtime.
func TestRegistry(t *testing.T) {
	families, err := NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := map[string][]string{}
	for _, f := range families {
		for _, l := range f.Metric[0].Label {
			told[f.GetName()] = append(told[f.GetName()], l.GetName())
		}
	}
	if got, want := told["go_build_info"], []string{"checksum", "path", "version"}; !slices.Equal(got, want) {
		t.Errorf("go_build_info has labels %q, want %q", got, want)
	}
	for _, name := range []string{"go_info", "go_goroutines", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} {
		if !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name }) {
			t.Errorf("there is no %s", name)
		}
	}
}

// Whoever scrapes at the same time gets an answer: the metrics, or that there are too many of them.
func TestConcurrentScrapes(t *testing.T) {
	client := serve(t, fixed{NewMounts(), map[string]*figures.Mount{"": sample()}})
	var mu sync.Mutex
	seen := map[int]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 5 {
				resp, err := client.Get("http://x/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode == 200 && !strings.Contains(string(body), "\nlaminafs_up 1\n") {
					t.Errorf("%v: %s", err, body)
				}
				mu.Lock()
				seen[resp.StatusCode]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if codes := slices.Sorted(maps.Keys(seen)); seen[200] == 0 || slices.ContainsFunc(codes, func(c int) bool { return c != 200 && c != 503 }) {
		t.Errorf("answers by status: %v", seen)
	}
}

// A scrape allocates as much as there is to tell, and the next one no more: here of 100 mounts that have everything.
func TestScrapeIsBounded(t *testing.T) {
	all := map[string]*figures.Mount{}
	for i := range 100 {
		m := sample()
		for op := range 50 {
			m.Requests.Opcodes = append(m.Requests.Opcodes, figures.Opcode{Name: fmt.Sprintf("OP%d", op), Count: 1 << 60,
				Errors: map[string]uint64{"EIO": 1 << 60, "ENOSPC": 2, "other": 3}, Latency: &figures.Histogram{Seconds: 1e300}})
		}
		all[fmt.Sprint(i)] = m
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(fixed{NewMounts("mount"), all})
	h := Handler(r)
	size := 0
	scrape := func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != http.StatusOK || size != 0 && w.Body.Len() != size {
			t.Errorf("status %d, %d bytes, %d before", w.Code, w.Body.Len(), size)
		}
		size = w.Body.Len()
	}
	each := allocs.PerRun(5, scrape)
	t.Logf("%d bytes of text, %d allocated", size, each)
	// A few times the text, which has 5,000 histograms: what was counted does not matter, nor how often it was asked.
	if each > 16*uint64(size) || each > 256<<20 {
		t.Errorf("%d bytes are allocated for a text of %d", each, size)
	}
}
