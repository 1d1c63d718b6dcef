package container

import (
	"context"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/image"
)

// zeroTime is how Docker shows that something has not been yet.
const zeroTime = "0001-01-01T00:00:00Z"

func showTime(t time.Time) string {
	if t.IsZero() {
		return zeroTime
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// State is what it does now, as docker inspect shows it.
func (c *Container) State() (*api.State, error) {
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	return st.docker(), nil
}

func (s *state) docker() *api.State {
	return &api.State{
		Status: s.Status, Running: s.running(), Paused: s.Status == api.StatePaused,
		Restarting: s.Status == api.StateRestarting, OOMKilled: s.OOMKilled, Pid: s.Init.Pid,
		ExitCode: s.ExitCode, Error: s.Error, StartedAt: showTime(s.StartedAt), FinishedAt: showTime(s.FinishedAt),
	}
}

// Inspect is docker inspect; with size SizeRw and SizeRootFs (bytes) are counted.
func (c *Container) Inspect(ctx context.Context, size bool) (*api.InspectResponse, error) {
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	args, err := commandLine(clone(c.r.Config))
	if err != nil {
		return nil, err
	}
	m, err := c.s.images.Mount(c.r.ID)
	if err != nil {
		return nil, err
	}
	files := c.filesDir()
	path := func(name string) string { return files + "/" + name }
	i := &api.InspectResponse{
		ID: c.r.ID, Created: c.r.Created.Format(time.RFC3339Nano), Path: args[0], Args: args[1:], State: st.docker(),
		Image: c.r.ImageID, ResolvConfPath: path(resolvFile), HostnamePath: path(hostnameFile), HostsPath: path(hostsFile),
		LogPath: c.logPath(), Name: "/" + c.r.Name, RestartCount: st.RestartCount, Driver: image.Driver,
		Platform: goruntime.GOOS, HostConfig: c.r.HostConfig, GraphDriver: m.GraphDriver(), Mounts: c.mountPoints(),
		Config: c.r.Config, NetworkSettings: c.networkSettings(st),
	}
	if len(c.r.Rootfs) > 0 {
		i.GraphDriver.Data["LowerDir"] += ":" + strings.Join(c.r.Rootfs, ":")
	}
	if size {
		rw, all, err := c.sizes()
		if err != nil {
			return nil, err
		}
		i.SizeRw, i.SizeRootFs = &rw, &all
	}
	return i, nil
}

// mountPoints are its mounts as docker inspect shows them, with the place of volumes.
func (c *Container) mountPoints() []api.MountPoint {
	list := []api.MountPoint{}
	for _, m := range c.r.Mounts {
		p := m.MountPoint
		if p.Type == mount.TypeVolume {
			if dir, err := c.s.volumeDir(m); err == nil {
				p.Source = dir
			}
		}
		list = append(list, p)
	}
	return list
}

// sizes are the bytes in the container's own layer, and with its image's.
func (c *Container) sizes() (rw, all int64, err error) {
	if rw, err = c.sizeRw(); err != nil {
		return 0, 0, err
	}
	all = rw
	if c.r.ImageID != "" {
		if info, err := c.s.images.Inspect(c.r.ImageID); err == nil {
			all += info.Size
		}
	}
	return rw, all, nil
}

// sizeRw counts the bytes of all files in the upper layer, each once. A container that is removed meanwhile has none.
func (c *Container) sizeRw() (int64, error) {
	m, err := c.s.images.Mount(c.r.ID)
	if missing(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	fd, err := unix.Open(m.Upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer sys.Close(fd)
	return treeSize(fd, map[uint64]bool{})
}

func treeSize(fd int, counted map[uint64]bool) (n int64, err error) {
	var names []string
	err = sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) })
	if err != nil && err != unix.ENOENT { // which the kernel says of a directory that was removed meanwhile
		return 0, err
	}
	for _, name := range names {
		if name == "." || name == ".." {
			continue
		}
		at := sys.At{Dirfd: fd, Name: name}
		st, err := sys.Stat(at)
		if err != nil {
			continue // gone meanwhile
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if st.Nlink == 1 || !counted[st.Ino] {
				n += st.Size
			}
			counted[st.Ino] = true
		case unix.S_IFDIR:
			sub, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
			if err != nil {
				continue // the same
			}
			below, err := treeSize(sub, counted)
			sys.Close(sub)
			if err != nil {
				return 0, err
			}
			n += below
		}
	}
	return n, nil
}
