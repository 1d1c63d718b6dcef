package container

import (
	"encoding/json"

	"github.com/laminafs/lamina/runtime/cgroup"
)

// killGroup kills all processes in the cgroup that a dead monitor has left.
func killGroup(id string, state json.RawMessage) error {
	g, err := cgroup.Load(id, state)
	if err != nil {
		return err
	}
	return g.Kill()
}

// removeGroup removes it.
func removeGroup(id string, state json.RawMessage) error {
	g, err := cgroup.Load(id, state)
	if err != nil {
		return err
	}
	return g.Remove()
}
