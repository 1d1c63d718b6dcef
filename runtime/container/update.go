package container

import (
	"context"
	"errors"
	"strings"

	api "github.com/moby/moby/api/types/container"
)

// Rename gives the container another name. Errors: ErrConflict, ErrInvalid.
func (c *Container) Rename(ctx context.Context, name string) error {
	name = strings.TrimPrefix(name, "/")
	if err := checkName(name); err != nil {
		return err
	}
	names, err := c.s.lockNames()
	if err != nil {
		return err
	}
	defer names.Close()
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if name == c.r.Name {
		return fail(ErrInvalid, "Renaming a container with the same name as its current name")
	}
	taken, err := c.s.takenLocked()
	if err != nil {
		return err
	}
	if id, ok := taken[name]; ok {
		return inUse(name, id)
	}
	c.r.Name = name
	return c.saveLocked()
}

// Update changes limits and restart policy, also of the running container; zero fields are left as they are.
//
// Errors: ErrInvalid; *cgroup.Unenforceable, as text, for a limit that cannot be had here, and then nothing is kept.
func (c *Container) Update(ctx context.Context, u api.UpdateConfig) (warnings []string, err error) {
	lock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	h := clone(c.r.HostConfig)
	if err := checkUpdate(&h.Resources, &u.Resources); err != nil {
		return nil, err
	}
	updateResources(&h.Resources, &u.Resources)
	if u.RestartPolicy.Name != "" {
		if h.AutoRemove && !u.RestartPolicy.IsNone() {
			return nil, fail(ErrInvalid, "Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		h.RestartPolicy = u.RestartPolicy
	}
	if err := errors.Join(checkResources(&h.Resources), checkHost(h)); err != nil {
		return nil, err
	}
	_, err = c.ask(ctx, request{Op: opUpdate, Update: &u}, nil)
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	c.r.HostConfig = h
	return warnings, c.saveLocked()
}

// checkUpdate finds what cannot be changed of r. Source: moby container/container_unix.go, UpdateContainer.
func checkUpdate(r, u *api.Resources) error {
	conflict := func(what, by string) error {
		return fail(ErrInvalid, "Conflicting options: %s cannot be updated as %s has already been set", what, by)
	}
	switch {
	case r.NanoCPUs > 0 && u.CPUPeriod > 0:
		return conflict("CPU Period", "NanoCPUs")
	case r.NanoCPUs > 0 && u.CPUQuota > 0:
		return conflict("CPU Quota", "NanoCPUs")
	case r.CPUQuota > 0 && u.NanoCPUs > 0:
		return conflict("NanoCPUs", "CPU Quota")
	case r.CPUPeriod > 0 && u.NanoCPUs > 0:
		return conflict("NanoCPUs", "CPU Period")
	}
	return nil
}

// updateResources puts what u sets over r. Source: moby container/container_unix.go, UpdateContainer.
func updateResources(r, u *api.Resources) {
	set(&r.CPUShares, u.CPUShares)
	set(&r.BlkioWeight, u.BlkioWeight)
	set(&r.CpusetCpus, u.CpusetCpus)
	set(&r.CpusetMems, u.CpusetMems)
	set(&r.MemoryReservation, u.MemoryReservation)
	set(&r.MemorySwap, u.MemorySwap)
	set(&r.NanoCPUs, u.NanoCPUs)
	set(&r.CPUPeriod, u.CPUPeriod)
	set(&r.CPUQuota, u.CPUQuota)
	if u.Memory != 0 {
		// A limit above that of memory and swap together takes that along, when it was the default.
		if u.MemorySwap == 0 && r.MemorySwap == 2*r.Memory {
			u.MemorySwap = 2 * u.Memory
			r.MemorySwap = u.MemorySwap
		}
		r.Memory = u.Memory
	}
	if u.PidsLimit != nil {
		r.PidsLimit = u.PidsLimit
	}
}

func set[T comparable](to *T, v T) {
	var zero T
	if v != zero {
		*to = v
	}
}
