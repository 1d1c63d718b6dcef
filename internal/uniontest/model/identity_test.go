package model

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// options are ways to mount ours beside those of laminafsTargets. Each changes who keeps owners, times or data.
var options = []string{
	"xattr_permissions=2,whiteout=wh,redirect_dir=on",
	"writeback,whiteout=overlay,redirect_dir=on",
}

// TestOptions is TestRandom and TestFsx with the options.
func TestOptions(t *testing.T) {
	uniontest.NeedRoot(t)
	opts, runs := options, 1
	plan, fsx := Plan{Workers: 3, Phases: 2, Steps: 300}, FsxPlan{Steps: 300, Remount: true, Append: true}
	if os.Getenv("LAMINA_LONG") != "" {
		opts = append(opts, "xattr_permissions=1,writeback,redirect_dir=off", "xattr_permissions=2,whiteout=overlay,writeback,redirect_dir=on",
			"threaded=0,writeback", "volatile,whiteout=overlay", "passthrough,redirect_dir=on", "timeout=0,redirect_dir=on")
		runs, plan.Steps, fsx.Steps = 10, 2500, 5000
	}
	first := envInt(t, "LAMINA_SEED", 1)
	for _, o := range opts {
		for n := range runs {
			tg := Target{uniontest.Laminafs, o}
			plan.Seed, fsx.Seed = uint64(first+n), uint64(first+n)
			t.Run(fmt.Sprintf("%s/random/%d", o, first+n), func(t *testing.T) { Run(t, tg, plan) })
			t.Run(fmt.Sprintf("%s/fsx/%d", o, first+n), func(t *testing.T) { Fsx(t, tg, fsx) })
		}
	}
}

// errand is what TestErrand does in a process of a helper's.
type errand struct {
	Target Target
	Plan   Plan
	Fsx    FsxPlan
}

// TestIdentities is TestRandom and TestFsx as those who are not root of the machine.
func TestIdentities(t *testing.T) {
	uniontest.NeedRoot(t)
	runs := 1
	e := errand{Plan: Plan{Workers: 3, Phases: 2, Steps: 300}, Fsx: FsxPlan{Steps: 300, Remount: true, Append: true}}
	opts := map[uniontest.Identity][]string{
		uniontest.UserNS: {"whiteout=overlay,redirect_dir=on"},
		uniontest.User:   {"whiteout=wh,redirect_dir=on", "whiteout=overlay,redirect_dir=off"},
	}
	if os.Getenv("LAMINA_LONG") != "" {
		runs, e.Plan.Steps, e.Fsx.Steps = 10, 2500, 5000
		for who := range opts {
			opts[who] = options
			for _, tg := range laminafsTargets {
				opts[who] = append(opts[who], tg.Opts)
			}
		}
	}
	first := envInt(t, "LAMINA_SEED", 1)
	for who, list := range opts {
		for _, o := range list {
			for n := range runs {
				e.Target = Target{uniontest.Laminafs, o}
				e.Plan.Seed, e.Fsx.Seed = uint64(first+n), uint64(first+n)
				t.Run(fmt.Sprintf("%s/%s/%d", who, o, first+n), func(t *testing.T) { e.send(t, who) })
			}
		}
	}
}

func (e errand) send(t *testing.T, who uniontest.Identity) {
	t.Helper()
	env := []string{"LAMINAFS=" + uniontest.Binary(t), failuresEnv + "=/tmp/lamina-model-failures"}
	uniontest.SendErrand(t, uniontest.As(t, who), e, env)
}

// TestErrand is the part of another test that is run as somebody else.
func TestErrand(t *testing.T) {
	var e errand
	uniontest.TakeErrand(t, &e)
	if !t.Run("random", func(t *testing.T) { Run(t, e.Target, e.Plan) }) {
		return
	}
	if t.Run("fsx", func(t *testing.T) { Fsx(t, e.Target, e.Fsx) }) {
		uniontest.ErrandDone()
	}
}
