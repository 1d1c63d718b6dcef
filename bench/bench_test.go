package bench_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/internal/uniontest"
)

// systems are those that can be had here.
func systems(t *testing.T) []bench.System {
	t.Helper()
	all := bench.Systems("")
	if os.Getuid() != 0 {
		return all[:1] // the plain directory; the others mount
	}
	uniontest.NeedOverlay(t)
	uniontest.NeedFuse(t)
	return bench.Systems(uniontest.Binary(t))
}

// fixtures are small, and in memory where there is such a place.
func fixtures(t *testing.T) *bench.Fixtures {
	t.Helper()
	return &bench.Fixtures{Dir: t.TempDir(), Scale: 0.002}
}

func TestEveryWorkloadOnEverySystem(t *testing.T) {
	s := bench.Suite{Systems: systems(t), Workloads: bench.Workloads, Rounds: 1, Fixtures: fixtures(t), Progress: io.Discard}
	samples, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	if want := len(s.Systems) * len(s.Workloads); len(samples) != want {
		t.Fatalf("%d samples, want %d", len(samples), want)
	}
	for _, sample := range samples {
		name := sample.Workload + " on " + sample.System
		if sample.Wall <= 0 {
			t.Errorf("%s took %v", name, sample.Wall)
		}
		cold := strings.HasSuffix(sample.Workload, "cold") || strings.HasPrefix(sample.Workload, "missing")
		if sample.System == bench.Laminafs && cold && len(sample.Requests) == 0 {
			t.Errorf("%s made no request", name)
		}
	}

	report := bench.Report{Rounds: 1, Scale: 0.002, Samples: samples}
	var text, data bytes.Buffer
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, w := range bench.Workloads {
		if !strings.Contains(text.String(), w.Name) {
			t.Errorf("the report does not tell of %s", w.Name)
		}
	}
	if err := report.WriteJSON(&data); err != nil {
		t.Fatal(err)
	}
	var back bench.Report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil || len(back.Samples) != len(samples) {
		t.Errorf("JSON gives back %d samples, error %v; want %d", len(back.Samples), err, len(samples))
	}
}

func TestMemory(t *testing.T) {
	list := systems(t)
	if len(list) == 1 {
		t.Skip("needs root: kernel overlayfs")
	}
	got, err := bench.MeasureMemory(list, fixtures(t), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("%d servers measured, want 2", len(got))
	}
	for _, m := range got {
		if m.Before.RSS <= 0 || m.After.RSS <= 0 || m.Peak < m.After.RSS || m.After.FDs <= 0 || m.FDLimit <= 0 || m.Objects != 2002 {
			t.Errorf("%+v", m)
		}
	}
}
