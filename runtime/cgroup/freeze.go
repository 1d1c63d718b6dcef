package cgroup

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
)

// Freeze stops all processes of the group where they are; they are not told. It returns when all of them stand still.
func (g *Group) Freeze() error { return g.toggle("pause", cgroups.Frozen) }

// Thaw lets them run on.
func (g *Group) Thaw() error { return g.toggle("unpause", cgroups.Thawed) }

func (g *Group) toggle(op string, state cgroups.FreezerState) error {
	if len(g.place.Paths) == 0 {
		return &Unavailable{Op: op, Why: g.whyNot("freezer")}
	}
	if why := g.noFreezer(); why != "" {
		return &Unavailable{Op: op, Why: why}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if state == cgroups.Frozen && !g.v2() {
		settle(g.place.Paths["freezer"])
	}
	if err := g.mgr.Freeze(state); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// freezeTimeout is how long the processes of a group may take to stand still.
const freezeTimeout = 10 * time.Second

// settle freezes a group of v1 with patience: each process has to run to where it stops, and on a busy machine it waits its turn
// for that. The library, which comes after it and says what is wrong, tries for 200 ms and lets all of them go now and then.
func settle(dir string) {
	for pause, end := time.Duration(0), time.Now().Add(freezeTimeout); time.Now().Before(end); pause = min(pause+time.Millisecond, 20*time.Millisecond) {
		if err := cgroups.WriteFile(dir, "freezer.state", string(cgroups.Frozen)); err != nil { // again: of those that were born meanwhile
			return
		}
		if state, err := cgroups.ReadFile(dir, "freezer.state"); err != nil || strings.TrimSpace(state) == string(cgroups.Frozen) {
			return
		}
		time.Sleep(pause)
	}
}

// noFreezer says why the group cannot be frozen.
func (g *Group) noFreezer() string {
	if g.v2() {
		if cgroups.PathExists(filepath.Join(g.Path(), "cgroup.freeze")) {
			return ""
		}
		return "this kernel has no freezer for cgroup v2 (5.2 and newer have)"
	}
	if _, ok := g.place.Paths["freezer"]; ok {
		return ""
	}
	return g.noController("freezer")
}

// Frozen reports whether the group is frozen.
func (g *Group) Frozen() (bool, error) {
	if len(g.place.Paths) == 0 || g.noFreezer() != "" {
		return false, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	state, err := g.mgr.GetFreezerState()
	return state == cgroups.Frozen, err
}
