package model

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

// TestFsx exercises the data of one file. LAMINA_SEED, LAMINA_STEPS and LAMINA_LONG are those of TestRandom.
func TestFsx(t *testing.T) {
	uniontest.NeedRoot(t)
	runs, steps := 1, 600
	if os.Getenv("LAMINA_LONG") != "" {
		runs, steps = 20, 5000
	}
	steps = envInt(t, "LAMINA_STEPS", steps)
	first := envInt(t, "LAMINA_SEED", 1)
	plans := map[string]FsxPlan{
		"buffered": {Remount: true},
		"append":   {Append: true, Remount: true},
		"direct":   {Direct: true},
	}
	for _, tg := range targets {
		for name, p := range plans {
			for n := range runs {
				t.Run(fmt.Sprintf("%s/%s/%d", tg, name, first+n), func(t *testing.T) {
					if p.Direct && !canDirect(t.TempDir()) {
						t.Skip("needs O_DIRECT on the filesystem of TMPDIR")
					}
					p.Seed, p.Steps = uint64(first+n), steps
					Fsx(t, tg, p)
				})
			}
		}
	}
}
