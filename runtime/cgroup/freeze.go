package cgroup

import (
	"fmt"
	"path/filepath"

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
	if err := g.mgr.Freeze(state); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
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
