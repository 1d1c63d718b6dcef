package container

import (
	"encoding/json"
	"path"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// recordVersion is the version of config.json that this code writes.
const recordVersion = 1

// record is config.json: all of a container that does not change because it runs.
type record struct {
	Version int
	ID      string // 64 hexadecimal digits
	Name    string
	Created time.Time

	// ImageID is "sha256:..." of the image it was made from, empty with Rootfs. Config.Image is what the caller called it.
	ImageID string `json:",omitempty"`

	// Rootfs are the directories that --rootfs named, absolute, the topmost first.
	Rootfs []string `json:",omitempty"`

	// UIDMap and GIDMap, when set, give it a user namespace of its own. Host IDs are those the store is seen with.
	UIDMap []specs.LinuxIDMapping `json:",omitempty"`
	GIDMap []specs.LinuxIDMapping `json:",omitempty"`

	// Config and HostConfig are Docker's, the image's configuration merged in.
	Config     *api.Config
	HostConfig *api.HostConfig

	// Mounts are its volumes, binds and tmpfs from all flags and the image, by destination.
	Mounts []mountRecord `json:",omitempty"`

	// RemoveVolumes says in removing.json that anonymous volumes go with the container.
	RemoveVolumes bool `json:",omitempty"`
}

// mountRecord is one mount of a container.
type mountRecord struct {
	api.MountPoint

	// Anonymous is a volume that was made for this container and that "rm -v" removes.
	Anonymous bool `json:",omitempty"`

	// Populate is a volume that takes what the image has at its destination, once, if it is new and empty.
	Populate bool `json:",omitempty"`

	// Subpath is the part of the volume that is mounted, relative.
	Subpath string `json:",omitempty"`

	// VolumeOptions and VolumeLabels are what --mount wants a volume to be made with, all that name it the same.
	VolumeOptions map[string]string `json:",omitempty"`
	VolumeLabels  map[string]string `json:",omitempty"`

	// Options are those of the mount as in OCI's config.json: "ro", "rbind", "size=65536k".
	Options []string `json:",omitempty"`
}

// part is the volume, or the part of it, that is mounted: "NAME" or "NAME/SUBPATH".
func (m mountRecord) part() string { return path.Join(m.Name, m.Subpath) }

// process names a process across the time it lives: a PID alone may be given to another one.
type process struct {
	Pid       int
	StartTime uint64 // field 22 of /proc/PID/stat, in clock ticks since boot
}

// state is state.json: what became of a container. No file is the state "created".
type state struct {
	Status       api.ContainerState
	Boot         string // /proc/sys/kernel/random/boot_id when it was written
	Monitor      process
	Init         process // PID 1 of the container
	Laminafs     process
	Cgroup       json.RawMessage `json:",omitempty"` // for cgroup.Load
	Ports        network.PortMap `json:",omitempty"` // published, with the host's ports as they are
	ExitCode     int
	OOMKilled    bool
	Error        string
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int

	// ManuallyStopped is set by stop and kill, so that a restart policy does not undo it.
	ManuallyStopped bool
}

// running tells whether the container has processes, or will have them again without being asked.
func (s *state) running() bool {
	switch s.Status {
	case api.StateRunning, api.StatePaused, api.StateRestarting:
		return true
	}
	return false
}
