package container

import (
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// TestStatsCPU: the time of processes that have ended counts, and there is what it is a part of, with a cgroup or without.
func TestStatsCPU(t *testing.T) {
	b := newBox(t)
	id := b.start(script("(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); touch /done; sleep 1000"))
	eventually(t, "the busy one has ended", func() bool {
		_, _, code := b.exec(id, "test", "-e", "/done")
		return code == 0
	})
	s := decode[api.StatsResponse](t, b.must("stats", id)).CPUStats
	if used := time.Duration(s.CPUUsage.TotalUsage); used < 100*time.Millisecond {
		t.Errorf("used %v", used)
	}
	if s.SystemUsage < s.CPUUsage.TotalUsage || s.OnlineCPUs == 0 {
		t.Errorf("the machine's: %v of %d CPUs", time.Duration(s.SystemUsage), s.OnlineCPUs)
	}
}
