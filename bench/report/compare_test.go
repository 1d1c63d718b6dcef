package report

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	steady := []int{100, 101, 99, 100, 102, 98, 100, 101}
	tests := []struct {
		name        string
		old, new    map[string][]int
		regressions int
		text        string
	}{
		{"the same", map[string][]int{"laminafs": steady}, map[string][]int{"laminafs": steady}, 0, "~ (p=1.000 n=8)"},
		{
			"noise", map[string][]int{"laminafs": {100, 140, 90, 120, 80, 110, 95, 130}},
			map[string][]int{"laminafs": {105, 135, 95, 125, 85, 115, 90, 150}}, 0, "~ (p=",
		},
		{
			"slower", map[string][]int{"laminafs": steady}, map[string][]int{"laminafs": {150, 151, 149, 152, 148, 150, 151, 149}},
			2, "REGRESSION: wall of walk on laminafs: 100.0ms -> 150.0ms",
		},
		{"faster", map[string][]int{"laminafs": {150, 151, 149, 152, 148, 150}}, map[string][]int{"laminafs": steady}, 0, "-33.33% ("},
		{"by less than counts", map[string][]int{"laminafs": steady}, map[string][]int{"laminafs": {103, 104, 103, 104, 103, 105, 103, 104}}, 0, "+3.50%"},
		{
			"somebody else's", map[string][]int{"laminafs": steady, "overlay": steady},
			map[string][]int{"laminafs": steady, "overlay": {150, 151, 149, 152, 148, 150, 151, 149}}, 0, "+50.00% (p=0.000 n=8)",
		},
		{"too few to know", map[string][]int{"laminafs": {100, 101}}, map[string][]int{"laminafs": {200, 201}}, 0, "note: need >= 4 samples to detect a difference"},
		{
			"with options", map[string][]int{"laminafs:transport=loop": steady}, map[string][]int{"laminafs:transport=loop": {150, 151, 149, 152, 148, 150}},
			2, "REGRESSION: cpu of walk on laminafs:transport=loop",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Compare{Threshold: 0.05, Ours: func(s string) bool { return strings.HasPrefix(s, "laminafs") }}
			changes, err := c.Run(made(tt.old), made(tt.new))
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := changes.Text(&b, "old.json", "new.json"); err != nil {
				t.Fatal(err)
			}
			if n := len(changes.Regressions()); n != tt.regressions || !strings.Contains(b.String(), tt.text) {
				t.Errorf("%d regressions, want %d; and %q in\n%s", n, tt.regressions, tt.text, b.String())
			}
		})
	}
}

func TestCompareOfWhatDoesNotCompare(t *testing.T) {
	a, b := made(map[string][]int{"laminafs": {1}}), made(map[string][]int{"laminafs": {1}})
	b.Scale = 0.2
	if _, err := (Compare{}).Run(a, b); err == nil || !strings.Contains(err.Error(), "scale 1, the second at 0.2") {
		t.Errorf("of other scales: %v", err)
	}
	if _, err := (Compare{}).Run(a, made(map[string][]int{"overlay": {1}})); err == nil || !strings.Contains(err.Error(), "no workload on any system in common") {
		t.Errorf("of other systems: %v", err)
	}
}

func TestCompareFindsWhatBroke(t *testing.T) {
	before, after := made(map[string][]int{"laminafs": {1}}), wrong(made(map[string][]int{"laminafs": {1}}))
	after.Machine.Kernel = "6.19.0"
	changes, err := Compare{}.Run(before, after)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes.Broken) != 1 || !strings.Contains(changes.Broken[0], "walk on laminafs: a file has") {
		t.Errorf("broken: %q", changes.Broken)
	}
	if len(changes.Warnings) != 1 || changes.Warnings[0] != "different kernels: 6.18.0 and 6.19.0" {
		t.Errorf("warnings: %q", changes.Warnings)
	}
}

// A result that is wrong once is wrong, whatever came before it; one that was wrong in the first report is no news, and that of
// others is theirs.
func TestCompareFindsWhatBreaksLater(t *testing.T) {
	right := func() *Report { return made(map[string][]int{"overlay": {1, 1, 1}, "laminafs": {1, 1, 1}}) }
	ours := Compare{Ours: func(s string) bool { return s == "laminafs" }}
	for _, tt := range []struct {
		name          string
		before, after *Report
		c             Compare
		broken        int
	}{
		{"in the last repetition", right(), wrong(right()), ours, 1},
		{"in both reports", wrong(right()), wrong(right()), ours, 0},
		{"well again", wrong(right()), right(), ours, 0},
		{"somebody else's", right(), wrong(right()), Compare{Ours: func(string) bool { return false }}, 0},
	} {
		changes, err := tt.c.Run(tt.before, tt.after)
		if err != nil {
			t.Fatal(err)
		}
		if len(changes.Broken) != tt.broken {
			t.Errorf("%s: broken %q, want %d", tt.name, changes.Broken, tt.broken)
		}
	}
}

// A figure that one of two reports lacks is not passed over.
func TestCompareSaysWhatHasNoFigure(t *testing.T) {
	before, after := made(map[string][]int{"laminafs": {1}}), made(map[string][]int{"laminafs": {1}})
	after.Samples[0].Requests = nil
	changes, err := Compare{Of: []Of{Wall, Count}}.Run(before, after)
	if err != nil {
		t.Fatal(err)
	}
	if want := "only in the first: count of walk on laminafs"; !slices.Contains(changes.Warnings, want) {
		t.Errorf("notes %q, want %q", changes.Warnings, want)
	}
}

// With fio and without it the same workloads are done by other loops.
func TestCompareSaysThatFioDiffers(t *testing.T) {
	before, after := made(map[string][]int{"laminafs": {1}}), made(map[string][]int{"laminafs": {1}})
	before.Machine.Versions["fio"] = "fio-3.33"
	after.Machine.Rootless = "many ids"
	changes, err := Compare{}.Run(before, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"different users: root and many ids", "different versions of fio: fio-3.33 and none"} {
		if !slices.Contains(changes.Warnings, want) {
			t.Errorf("notes %q, want %q", changes.Warnings, want)
		}
	}
}

// What could be measured and cannot any more is no silence: of ours it is a regression, of others a note.
func TestCompareFindsWhatIsMissing(t *testing.T) {
	both := func() *Report { return made(map[string][]int{"overlay": {1}, "laminafs": {1}}) }
	without := func(system string, skip ...Skip) *Report {
		r := made(map[string][]int{"overlay": {1}, "laminafs": {1}})
		r.Samples = slices.DeleteFunc(r.Samples, func(s Sample) bool { return s.System == system })
		r.Skipped = skip
		return r
	}
	cut := without("laminafs", Skip{Workload: "walk", Why: "the run was interrupted before it was measured"})
	cut.Interrupted = 1
	tests := []struct {
		name          string
		before, after *Report
		broken, note  string
	}{
		{"a workload that fails", both(), without("laminafs", Skip{Workload: "walk", System: "laminafs", Why: "no\nmount"}),
			"walk on laminafs cannot be measured any more: no mount", ""},
		{"a system that fails", both(), without("laminafs", Skip{System: "laminafs", Why: "no mount"}),
			"walk on laminafs cannot be measured any more: no mount", ""},
		{"somebody else's", both(), without("overlay", Skip{System: "overlay", Why: "no mount"}), "", "only in the first: walk on overlay"},
		{"not asked for", both(), without("laminafs"), "", "only in the first: walk on laminafs"},
		{"new", without("laminafs"), both(), "", "only in the second: walk on laminafs"},
		{"new after a failure", without("laminafs", Skip{System: "laminafs", Why: "no mount"}), both(), "", "only in the second: walk on laminafs"},
		{"interrupted", both(), cut, "", "the second run was interrupted in repetition 1 of 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := Compare{Ours: func(s string) bool { return s == "laminafs" }}.Run(tt.before, tt.after)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(changes.Broken, "|"); got != tt.broken {
				t.Errorf("broken: %q, want %q", got, tt.broken)
			}
			if tt.note != "" && !slices.Contains(changes.Warnings, tt.note) {
				t.Errorf("notes %q, want %q", changes.Warnings, tt.note)
			}
		})
	}
}
