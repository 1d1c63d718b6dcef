package container

import (
	"time"

	api "github.com/moby/moby/api/types/container"
)

// Container is one container. What it says is as on disk when it was got; methods that act look again.
type Container struct {
	s *Store
	r *record
}

// ID is the full ID, 64 hexadecimal digits.
func (c *Container) ID() string { return c.r.ID }

// Name is the name, without a slash.
func (c *Container) Name() string { return c.r.Name }

// ImageID is "sha256:..." of its image, empty for one made with --rootfs.
func (c *Container) ImageID() string { return c.r.ImageID }

// Created is when it was created.
func (c *Container) Created() time.Time { return c.r.Created }

// Config is its configuration, the image's merged in. It is not to be changed.
func (c *Container) Config() *api.Config { return c.r.Config }

// HostConfig is how it runs on this machine. It is not to be changed.
func (c *Container) HostConfig() *api.HostConfig { return c.r.HostConfig }
