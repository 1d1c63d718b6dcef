package container

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/volume"
)

// What a container shares with another one, or with the machine: namespaces, and volumes.

// connected is the other container that a mode "container:NAME" names, or "".
func connected(mode string) string {
	name, ok := strings.CutPrefix(mode, "container:")
	if !ok {
		return ""
	}
	return name
}

// shareNamespaces finds the containers whose namespaces are to be joined and puts their IDs in place of what the caller
// calls them. They need not run before this one starts.
//
// Errors: ErrInvalid for options of a network that belongs to another container, in Docker's words.
func (s *Store) shareNamespaces(c *api.Config, h *api.HostConfig) error {
	if connected(string(h.NetworkMode)) != "" {
		for _, conflict := range []struct {
			is   bool
			what string
		}{
			{c.Hostname != "", "hostname and the network mode"},
			{len(h.DNS) > 0, "dns and the network mode"},
			{len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
			{len(h.PortBindings) > 0 || h.PublishAllPorts, "port publishing and the container type network mode"},
			{len(c.ExposedPorts) > 0, "port exposing and the container type network mode"},
		} {
			if conflict.is {
				return fail(ErrInvalid, "conflicting options: %s", conflict.what)
			}
		}
	}
	for _, f := range []struct {
		flag string
		mode *string
	}{{"--network", (*string)(&h.NetworkMode)}, {"--pid", (*string)(&h.PidMode)}} {
		name := connected(*f.mode)
		if name == "" {
			continue
		}
		other, err := s.Get(name)
		if err != nil {
			return err
		}
		*f.mode = "container:" + other.ID()
		if f.flag == "--network" {
			c.Hostname, c.Domainname = other.r.Config.Hostname, other.r.Config.Domainname
		}
	}
	return nil
}

// sharedPIDs tells whether the container sees processes that are not its own. It does not end with its first process
// then by itself: its cgroup says what is to be ended.
func (r *record) sharedPIDs() bool { return !r.HostConfig.PidMode.IsPrivate() }

// othersNetwork is the container whose network this one shares, nil where it has one of its own or the machine's.
func (c *Container) othersNetwork() (*Container, error) {
	id := connected(string(c.r.HostConfig.NetworkMode))
	if id == "" {
		return nil, nil
	}
	other, err := c.s.load(id)
	if missing(err) {
		return nil, fail(ErrNotFound, "No such container: %s", id)
	}
	return other, err
}

// filesDir is where hosts, hostname and resolv.conf are: in the directory of the container whose network it is.
func (c *Container) filesDir() string {
	if other, err := c.othersNetwork(); err == nil && other != nil {
		return other.dir()
	}
	return c.dir()
}

// joinOthers opens the namespaces of other containers, and gives a path to each. The files are to be closed when the
// namespaces have been joined.
//
// Errors: ErrConflict for a container that does not run.
func (c *Container) joinOthers() (paths map[specs.LinuxNamespaceType]string, files []*os.File, err error) {
	paths = map[specs.LinuxNamespaceType]string{}
	for _, ns := range []struct {
		kind       specs.LinuxNamespaceType
		file, mode string
		what       string
	}{
		{specs.NetworkNamespace, "net", string(c.r.HostConfig.NetworkMode), "network"},
		{specs.PIDNamespace, "pid", string(c.r.HostConfig.PidMode), "PID namespace"},
	} {
		id := connected(ns.mode)
		if id == "" {
			continue
		}
		f, err := c.s.openNamespace(id, ns.file)
		if err != nil {
			closeAll(files)
			return nil, nil, fmt.Errorf("cannot join %s of container %.12s: %w", ns.what, id, err)
		}
		files = append(files, f)
		paths[ns.kind] = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	return paths, files, nil
}

// share fills in what the container has in common with others and with the machine.
func (m *monitor) share(in *specInput) (err error) {
	r := m.c.r
	in.Dir, in.BindDevs = m.c.filesDir(), ordinary() || len(r.UIDMap) > 0
	in.VolumeMounts = map[string]*volume.Mount{}
	for _, v := range r.Mounts {
		if v.Type != mount.TypeVolume {
			continue
		}
		o, err := m.volumeMount(v)
		if err != nil {
			return err
		}
		if in.VolumeMounts[v.Name] = o; v.Subpath == "" {
			continue
		}
		if o != nil && o.Type == volume.Tmpfs {
			return fail(ErrInvalid, "volume %s: subpath %q is not there: it is memory, and begins empty", v.Name, v.Subpath)
		}
		f, err := openSubpath(in.Volumes[v.Name], v.Subpath)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		m.others = append(m.others, f)
		in.Volumes[v.part()] = f.Name()
	}
	joined, files, err := m.c.joinOthers()
	if err != nil {
		return err
	}
	in.Joined, m.others = joined, append(m.others, files...)
	if r.HostConfig.Privileged {
		all, err := allDevices()
		if err != nil {
			return err
		}
		in.Devices = append(all, in.Devices...)
	}
	if r.HostConfig.Privileged || wantsAll(r.HostConfig.CapAdd) {
		in.Held, err = heldCapabilities()
	}
	return err
}

// volumeMount is what the options of a volume say, nil where it has none.
func (m *monitor) volumeMount(v mountRecord) (*volume.Mount, error) {
	found, err := m.c.s.volumes.Get(v.Name)
	if err != nil {
		return nil, err
	}
	return found.Mount()
}

// forgetOthers closes what share has opened: the namespaces have been joined and the volumes mounted, or will not be.
func (m *monitor) forgetOthers() {
	closeAll(m.others)
	m.others = nil
}

// checkShared refuses a container whose end could not be brought about.
func (m *monitor) checkShared(g *cgroup.Group) error {
	if why := g.Why(); why != "" && m.c.r.sharedPIDs() {
		return fail(ErrInvalid, "--pid=%s needs a cgroup, without which the container's processes could not be told from others: %s",
			m.c.r.HostConfig.PidMode, why)
	}
	return nil
}

// openNamespace opens a namespace of a container that runs: of its first process, and of no other one that has got its
// number.
func (s *Store) openNamespace(id, name string) (*os.File, error) {
	c, err := s.load(id)
	if missing(err) {
		return nil, fail(ErrNotFound, "No such container: %s", id)
	}
	if err != nil {
		return nil, err
	}
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	if !st.running() || st.Init.Pid == 0 {
		return nil, fail(ErrConflict, "it is not running")
	}
	pidfd, err := st.Init.open()
	if err != nil {
		return nil, fail(ErrConflict, "it is not running")
	}
	defer unix.Close(pidfd)
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", st.Init.Pid, name))
	if err != nil {
		return nil, err
	}
	if waitPidfd(pidfd, 0) == nil {
		_ = f.Close() // it may be anybody's
		return nil, fail(ErrConflict, "it is not running")
	}
	return f, nil
}

// Beside finds the monitor in whose user namespace a container of an ordinary user has to be, so that it has power over
// the namespaces that it shares: with the container that one of the modes names ("container:NAME"), or that the record of
// one of the containers does. 0 stands for none. It is called outside of all user namespaces, as ReapOutside is; what
// cannot be found here is left to be told by who looks for it next.
//
// Errors: ErrInvalid for containers that share with different ones.
func Beside(root string, modes, containers []string) (pid int, err error) {
	s := &Store{root: root}
	for _, name := range containers {
		if c, err := s.Get(name); err == nil {
			modes = append(modes, string(c.r.HostConfig.NetworkMode), string(c.r.HostConfig.PidMode))
		}
	}
	for _, mode := range modes {
		name := connected(mode)
		if name == "" {
			continue
		}
		c, err := s.Get(name)
		if err != nil {
			continue
		}
		st, err := c.state()
		if err != nil || !st.running() || startTime(st.Monitor.Pid) != st.Monitor.StartTime {
			continue
		}
		if pid != 0 && pid != st.Monitor.Pid {
			return 0, fail(ErrInvalid, "containers of an ordinary user that share with different ones are started one by one")
		}
		pid = st.Monitor.Pid
	}
	return pid, nil
}

// parseVolumesFrom reads CONTAINER[:MODE]. Docker takes the modes of -v but those of copying and propagation.
func parseVolumesFrom(spec string) (name string, ro bool, err error) {
	name, modes, _ := strings.Cut(spec, ":")
	bad := fail(ErrInvalid, "invalid --volumes-from %q: want CONTAINER, CONTAINER:ro or CONTAINER:rw", spec)
	if name == "" {
		return "", false, bad
	}
	if modes == "" {
		return name, false, nil
	}
	given := map[string]bool{}
	for _, o := range strings.Split(modes, ",") {
		kind := modeKind[o]
		if given[kind] || kind != "write" && kind != "label" && kind != "consistency" {
			return "", false, bad
		}
		given[kind] = true
		ro = ro || o == "ro"
	}
	return name, ro, nil
}

// inherited are the mounts of --volumes-from CONTAINER[:ro|rw]: its binds and volumes, by destination.
func (s *Store) inherited(from []string) (map[string]wantedMount, error) {
	all := map[string]wantedMount{}
	for _, spec := range from {
		name, ro, err := parseVolumesFrom(spec)
		if err != nil {
			return nil, err
		}
		other, err := s.Get(name)
		if err != nil {
			return nil, err
		}
		for _, m := range other.r.Mounts {
			if m.Type == mount.TypeTmpfs {
				continue // nobody else can see it
			}
			m.Options = append([]string(nil), m.Options...)
			if ro {
				m.RW = false
				m.Options = append(m.Options, "ro")
			}
			all[m.Destination] = wantedMount{mountRecord: m}
		}
	}
	return all, nil
}
