package model

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// laminafsTargets are the ways in which ours writes to the upper.
var laminafsTargets = []Target{
	{uniontest.Laminafs, "whiteout=wh,redirect_dir=off"},
	{uniontest.Laminafs, "whiteout=wh,redirect_dir=on"},
	{uniontest.Laminafs, "whiteout=overlay,redirect_dir=off"},
	{uniontest.Laminafs, "whiteout=overlay,redirect_dir=on"},
}

// targets begin with those that validate the model itself.
var targets = append([]Target{{uniontest.Plain, ""}, {uniontest.Overlay, ""}}, laminafsTargets...)

func envInt(t *testing.T, name string, def int) int {
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestRandom compares made-up operations with the model. LAMINA_SEED repeats a run, LAMINA_STEPS is the number of
// operations of each worker, LAMINA_LONG=1 asks for many more runs.
func TestRandom(t *testing.T) {
	uniontest.NeedRoot(t)
	runs, plan := 2, Plan{Workers: 3, Phases: 2, Steps: 400}
	if os.Getenv("LAMINA_LONG") != "" {
		runs, plan = 40, Plan{Workers: 4, Phases: 4, Steps: 2500}
	}
	plan.Steps = envInt(t, "LAMINA_STEPS", plan.Steps)
	first := envInt(t, "LAMINA_SEED", 1)
	if os.Getenv("LAMINA_SEED") != "" {
		runs = 1
	}
	for _, tg := range targets {
		t.Run(strings.NewReplacer("whiteout=", "", "redirect_dir=", "redirect-").Replace(tg.String()), func(t *testing.T) {
			for n := range runs {
				plan.Seed = uint64(first + n)
				t.Run(strconv.Itoa(int(plan.Seed)), func(t *testing.T) { Run(t, tg, plan) })
				if t.Failed() {
					return
				}
			}
		})
	}
}
