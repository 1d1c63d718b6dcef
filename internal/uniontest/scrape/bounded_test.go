package scrape

import (
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
)

// Scrapes leave nothing behind, neither in the server nor in its exporter, and the server allocates little for each: its garbage
// collector hardly runs more often for hundreds of them.
func TestScrapesAreBounded(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	uniontest.Run(t, m, "python3", "-c", work, m.Dir())
	var before values
	// Caches and pools are full after some, and the heap when it was collected.
	for i, end := 0, time.Now().Add(limit); i < 100 || before["laminafs_go_gc_cycles_total"] < 2 && time.Now().Before(end); i++ {
		before = scrape(t, address)
	}
	const n = 300
	for range n {
		scrape(t, address)
	}
	after := scrape(t, address)
	const mib = 1 << 20
	for name, most := range map[string]float64{
		"laminafs_process_resident_memory_bytes": 8 * mib,
		"process_resident_memory_bytes":          16 * mib, // of the exporter, with Prometheus' library
		"laminafs_go_goroutines":                 4,
		"go_goroutines":                          8, // as many as may be on their way out
		"process_open_fds":                       8,
		"laminafs_process_threads":               16,     // a busy machine makes some more
		"laminafs_go_gc_cycles_total":            n / 10, // of a heap of 4 MiB at least: 400 KiB for each
		"laminafs_descriptors":                   0,
		"laminafs_nodes":                         0,
	} {
		if grown := after[name] - before[name]; grown > most {
			t.Errorf("%d scrapes let %s grow by %.0f, from %.0f", n, name, grown, before[name])
		}
		if _, ok := after[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
	if got := after["laminafs_requests_total opcode=MKDIR"]; got != 3 {
		t.Errorf("%v MKDIR, want 3", got)
	}
}
