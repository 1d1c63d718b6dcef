// Package metrics tells Prometheus what goes on on this machine: in every container of one root, and in every mount of
// this user, of a container or not.
//
// Nothing here changes anything, and nothing that is dead or hangs holds up the rest: who does not answer in time is
// told of with an "up" of 0.
package metrics

import (
	"context"
	"log"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/laminafs/lamina/internal/metrics"
	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/mounts"
)

const (
	// most bounds how many containers, and how many mounts, one scrape tells of.
	most = 1000

	// scrapePatience bounds a scrape: those who were not asked by then are taken for dead.
	scrapePatience = 3 * time.Second
)

// Source is where Host finds what it tells of.
type Source struct {
	Containers func() ([]*container.Container, error)
	Bases      []string // see mounts.Bases
	Log        *log.Logger
}

// Host is a prometheus.Collector of everything on this machine.
type Host struct {
	src        Source
	mounts     *metrics.Mounts
	containers []*prometheus.Desc // as containerMetrics
	leftOut    *prometheus.Desc
	failed     *prometheus.Desc
}

// LeftOut and Failed are metrics of the endpoint itself.
var (
	LeftOut = metrics.Desc{Name: "lamina_left_out", Type: level, Labels: []string{"kind"},
		Help: "Containers and mounts that the endpoint does not tell of, since there are too many."}
	Failed = metrics.Desc{Name: "lamina_collect_failed", Type: level, Labels: []string{"kind"},
		Help: "Whether some containers or mounts could not be found out about; the endpoint's log says why."}
)

// NewHost makes it.
func NewHost(src Source) *Host {
	h := &Host{src: src, mounts: metrics.NewMounts(append(append([]string{}, labels...), "mount")...)}
	for _, m := range containerMetrics {
		h.containers = append(h.containers, m.New(labels))
	}
	h.leftOut, h.failed = LeftOut.New(nil), Failed.New(nil)
	return h
}

// Descs are the metrics that are not those of mounts.
func Descs() []metrics.Desc {
	list := []metrics.Desc{LeftOut, Failed}
	for _, m := range containerMetrics {
		list = append(list, m.Desc)
	}
	return list
}

// Describe is a prometheus.Collector's.
func (h *Host) Describe(ch chan<- *prometheus.Desc) {
	h.mounts.Describe(ch)
	for _, d := range h.containers {
		ch <- d
	}
	ch <- h.leftOut
	ch <- h.failed
}

// Collect is a prometheus.Collector's.
func (h *Host) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapePatience)
	defer cancel()
	mountsOf := h.askMounts(ctx) // beside the containers, whose silence is not theirs
	containers, err := h.src.Containers()
	h.failure(ch, "container", err)
	containers = bound(ch, h.leftOut, "container", containers)
	all := make([]*sampled, len(containers))
	mounts.Each(len(containers), func(i int) { all[i] = sample(ctx, containers[i]) })
	servers := map[int]*sampled{}
	for _, s := range all {
		if s == nil {
			continue
		}
		if s.now.Server != 0 {
			servers[s.now.Server] = s
		}
		h.container(ch, s)
	}
	live, err := mountsOf()
	h.failure(ch, "mount", err)
	for _, m := range bound(ch, h.leftOut, "mount", live) {
		of := []string{"", "", ""}
		if s := servers[m.PID]; s != nil {
			of = s.labels()
		}
		h.mounts.Collect(ch, m.Figures, append(of, m.ID)...)
	}
}

// askMounts begins to ask all mounts; the function that it returns waits for what they say.
func (h *Host) askMounts(ctx context.Context) func() ([]mounts.Mount, error) {
	var all []mounts.Mount
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		all, err = mounts.All(ctx, h.src.Bases, true)
	}()
	return func() ([]mounts.Mount, error) {
		<-done
		return all, err
	}
}

func (h *Host) container(ch chan<- prometheus.Metric, s *sampled) {
	for i, m := range containerMetrics {
		m.values(s, func(v float64, own ...string) {
			ch <- metrics.Constant(h.containers[i], m.Type, v, append(s.labels(), own...))
		})
	}
}

func (h *Host) failure(ch chan<- prometheus.Metric, kind string, err error) {
	if err != nil {
		h.src.Log.Printf("%ss: %v", kind, err)
	}
	ch <- metrics.Constant(h.failed, level, truth(err != nil), []string{kind})
}

// bound leaves out what is too much, and says so.
func bound[T any](ch chan<- prometheus.Metric, left *prometheus.Desc, kind string, list []T) []T {
	n := max(len(list)-most, 0)
	ch <- metrics.Constant(left, level, float64(n), []string{kind})
	return list[:len(list)-n]
}
