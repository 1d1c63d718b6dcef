package report

import (
	"bytes"
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
	if _, err := (Compare{}).Run(a, made(map[string][]int{"overlay": {1}})); err == nil || !strings.Contains(err.Error(), "nothing in common") && !strings.Contains(err.Error(), "in common") {
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
