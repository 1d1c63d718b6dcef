package createopts

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Config is what the flags ask for.
type Config struct {
	Config           *container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig

	// Rootfs are the directories of --rootfs, absolute, topmost first. Empty where the container has an image,
	// Config.Image.
	Rootfs []string

	// UIDMap and GIDMap are of --uidmap and --gidmap; nil where the flag is not given.
	UIDMap, GIDMap []specs.LinuxIDMapping
}

// Parse reads the flags. args are what is left of the command line: IMAGE [COMMAND] [ARG...], without IMAGE where
// --rootfs is given.
func (f *Flags) Parse(args []string) (*Config, error) {
	c := &Config{
		Config:           &container.Config{},
		HostConfig:       &container.HostConfig{},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}},
	}
	for _, parse := range []func(*Config) error{
		f.parseProcess, f.parseSecurity, f.parseNetwork, f.parseStorage, f.parseResources, f.parseIdentity,
	} {
		if err := parse(c); err != nil {
			return nil, err
		}
	}
	if c.Rootfs == nil {
		if len(args) == 0 {
			return nil, errors.New("an image or --rootfs is needed")
		}
		c.Config.Image, args = args[0], args[1:]
	}
	if len(args) > 0 {
		c.Config.Cmd = args
	}
	return c, nil
}

func (f *Flags) parseProcess(c *Config) error {
	p := &f.process
	env, err := opts.ReadKVEnvStrings(p.envFile.GetSlice(), p.env.GetSlice())
	if err != nil {
		return fmt.Errorf("--env-file: %w", err)
	}
	labels, err := opts.ReadKVStrings(p.labelFile.GetSlice(), p.labels.GetSlice())
	if err != nil {
		return fmt.Errorf("--label-file: %w", err)
	}
	restart, err := parseRestart(p.restart)
	if err != nil {
		return err
	}
	if p.autoRemove && !restart.IsNone() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if p.logDriver == "none" && p.logOpts.Len() > 0 {
		return errors.New("invalid logging opts for driver none")
	}

	cfg, host := c.Config, c.HostConfig
	cfg.Hostname, cfg.Domainname = p.hostname, p.domainname
	cfg.User, cfg.WorkingDir = p.user, p.workdir
	cfg.Env, cfg.Labels = env, opts.ConvertKVStringsToMap(labels)
	cfg.StopSignal = p.stopSignal
	if f.set.Changed("stop-timeout") {
		cfg.StopTimeout = &p.stopTimeout
	}
	switch {
	case p.entrypoint != "":
		cfg.Entrypoint = []string{p.entrypoint}
	case f.set.Changed("entrypoint"):
		cfg.Entrypoint = []string{""} // takes away that of the image
	}
	p.attachTo(cfg)

	host.AutoRemove, host.RestartPolicy = p.autoRemove, restart
	host.ContainerIDFile = p.cidfile
	host.LogConfig = container.LogConfig{Type: p.logDriver, Config: opts.ConvertKVStringsToMap(p.logOpts.GetSlice())}
	host.Annotations = p.annotations.GetAll()
	if f.set.Changed("init") {
		host.Init = &p.init
	}
	return nil
}

// attachTo says which streams the client takes: output and error where it does not say, input with -i.
func (p *processFlags) attachTo(cfg *container.Config) {
	cfg.Tty, cfg.OpenStdin = p.tty, p.interactive
	cfg.AttachStdin = p.interactive || p.attach.Get("stdin")
	none := p.attach.Len() == 0
	cfg.AttachStdout = none || p.attach.Get("stdout")
	cfg.AttachStderr = none || p.attach.Get("stderr")
	cfg.StdinOnce = cfg.OpenStdin && cfg.AttachStdin
}

func parseRestart(s string) (container.RestartPolicy, error) {
	policy, err := opts.ParseRestartPolicy(s)
	if err != nil {
		return policy, err
	}
	return policy, container.ValidateRestartPolicy(policy)
}

func validateAttach(s string) (string, error) {
	low := strings.ToLower(s)
	if slices.Contains([]string{"stdin", "stdout", "stderr"}, low) {
		return low, nil
	}
	return s, errors.New("valid streams are STDIN, STDOUT and STDERR")
}

func (f *Flags) parseSecurity(c *Config) error {
	s, host := &f.security, c.HostConfig
	host.PidMode, host.UTSMode = container.PidMode(s.pid), container.UTSMode(s.uts)
	host.IpcMode, host.CgroupnsMode = container.IpcMode(s.ipc), container.CgroupnsMode(s.cgroupns)
	switch {
	case !host.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !host.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !host.IpcMode.Valid():
		return fmt.Errorf("--ipc: invalid IPC mode: %s", s.ipc)
	case !host.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	var err error
	if host.SecurityOpt, err = readSecurityOpts(s.securityOpt.GetSlice()); err != nil {
		return err
	}
	if i := slices.Index(host.SecurityOpt, "systempaths=unconfined"); i >= 0 {
		// Docker's client takes this one for itself.
		host.SecurityOpt = slices.Delete(host.SecurityOpt, i, i+1)
		host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
	}
	host.CapAdd, host.CapDrop = s.capAdd.GetSlice(), s.capDrop.GetSlice()
	host.GroupAdd = s.groupAdd.GetSlice()
	host.Privileged = s.privileged
	host.Sysctls = s.sysctls.GetAll()
	return nil
}

func (f *Flags) parseNetwork(c *Config) error {
	n, host := &f.network, c.HostConfig
	host.NetworkMode = container.NetworkMode(n.network)
	exposed, bindings, err := parsePorts(n.publish.GetSlice(), n.expose.GetSlice())
	if err != nil {
		return err
	}
	c.Config.ExposedPorts, host.PortBindings = exposed, bindings
	host.PublishAllPorts = n.publishAll
	for _, s := range n.dns.GetSlice() {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("--dns: %w", err)
		}
		host.DNS = append(host.DNS, addr)
	}
	host.DNSSearch, host.DNSOptions = n.dnsSearch.GetSlice(), n.dnsOptions.GetSlice()
	host.ExtraHosts = n.extraHosts.GetSlice()
	return nil
}

func (f *Flags) parseStorage(c *Config) error {
	s, host := &f.storage, c.HostConfig
	binds, anonymous, err := parseVolumes(s.volumes.GetSlice())
	if err != nil {
		return err
	}
	host.Binds, c.Config.Volumes = binds, anonymous
	host.Mounts = s.mounts.Value()
	for _, m := range host.Mounts {
		switch {
		case m.Target == "":
			return errors.New("invalid mount: target is required")
		case !path.IsAbs(m.Target):
			return fmt.Errorf("invalid mount target '%s': the mount path must be absolute", m.Target)
		}
	}
	for _, t := range s.tmpfs.GetSlice() {
		if host.Tmpfs == nil {
			host.Tmpfs = map[string]string{}
		}
		dir, options, _ := strings.Cut(t, ":")
		host.Tmpfs[dir] = options
	}
	host.VolumesFrom = s.volumesFrom.GetSlice()
	for _, d := range s.devices.GetSlice() {
		m, err := parseDevice(d)
		if err != nil {
			return err
		}
		host.Devices = append(host.Devices, m)
	}
	host.ReadonlyRootfs = s.readOnly
	if !f.set.Changed("rootfs") {
		return nil
	}
	for _, dir := range strings.Split(s.rootfs, ":") {
		if dir == "" {
			return fmt.Errorf("--rootfs %q: empty name of a directory", s.rootfs)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("--rootfs: %w", err)
		}
		c.Rootfs = append(c.Rootfs, abs)
	}
	return nil
}

func (f *Flags) parseResources(c *Config) error {
	r := &f.resources
	if r.swappiness != -1 && (r.swappiness < 0 || r.swappiness > 100) {
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", r.swappiness)
	}
	if r.blkioWeight != 0 && (r.blkioWeight < 10 || r.blkioWeight > 1000) {
		return fmt.Errorf("range of blkio weight is from 10 to 1000: %d", r.blkioWeight)
	}
	host := c.HostConfig
	host.OomScoreAdj, host.ShmSize = r.oomScoreAdj, r.shmSize.Value()
	host.Resources = container.Resources{
		CgroupParent:         r.cgroupParent,
		Memory:               r.memory.Value(),
		MemoryReservation:    r.memoryReservation.Value(),
		MemorySwap:           r.memorySwap.Value(),
		NanoCPUs:             r.cpus.Value(),
		CPUShares:            r.cpuShares,
		CPUPeriod:            r.cpuPeriod,
		CPUQuota:             r.cpuQuota,
		CpusetCpus:           r.cpusetCpus,
		CpusetMems:           r.cpusetMems,
		BlkioWeight:          r.blkioWeight,
		BlkioWeightDevice:    r.blkioWeightDevice.GetList(),
		BlkioDeviceReadBps:   r.deviceReadBps.GetList(),
		BlkioDeviceWriteBps:  r.deviceWriteBps.GetList(),
		BlkioDeviceReadIOps:  r.deviceReadIOps.GetList(),
		BlkioDeviceWriteIOps: r.deviceWriteIOps.GetList(),
		Ulimits:              r.ulimits.GetList(),
		Devices:              host.Devices,
	}
	// A pointer that is not nil is a wish: these flags have no value that means "as it is".
	if r.swappiness != -1 {
		host.MemorySwappiness = &r.swappiness
	}
	if f.set.Changed("oom-kill-disable") {
		host.OomKillDisable = &r.oomKillDisable
	}
	if f.set.Changed("pids-limit") {
		host.PidsLimit = &r.pidsLimit
	}
	return nil
}

func (f *Flags) parseIdentity(c *Config) error {
	i := &f.identity
	c.HostConfig.UsernsMode = container.UsernsMode(i.userns)
	switch i.userns {
	case "", "host", "private", "keep-id":
	default:
		return errors.New("--userns: invalid USER mode")
	}
	var err error
	if c.UIDMap, err = parseIDMap("--uidmap", i.uidMap.GetSlice()); err != nil {
		return err
	}
	if c.GIDMap, err = parseIDMap("--gidmap", i.gidMap.GetSlice()); err != nil {
		return err
	}
	if i.userns == "host" && (c.UIDMap != nil || c.GIDMap != nil) {
		return errors.New("conflicting options: cannot specify both --userns host and --uidmap or --gidmap")
	}
	return nil
}
