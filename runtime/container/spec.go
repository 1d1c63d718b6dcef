package container

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	mobyseccomp "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/laminafs/lamina/runtime/volume"
)

// specInput is all that the specification of a container is made from. What has to be looked up in the rootfs or on
// the machine is looked up before.
type specInput struct {
	Record *record
	Rootfs string // where its layers are mounted
	Dir    string // where hosts, hostname and resolv.conf are: the container's, or that of who has its network
	User   specs.User
	Home   string // of the user in the rootfs
	Host   string // host name

	TTYGroup bool // group 5 is mapped
	BindDevs bool // devices are the machine's own nodes: mknod(2) is refused
	BindSys  bool // the network namespace is not one we may mount a sysfs of

	// Volumes has the directories of volumes, and of parts of some, see mountRecord.part.
	Volumes map[string]string

	// VolumeMounts are those of volumes with options.
	VolumeMounts map[string]*volume.Mount

	// Joined has a path to each namespace of another container.
	Joined map[specs.LinuxNamespaceType]string

	// Held are all capabilities that we have: what a privileged container gets, and what "ALL" means. Others need none.
	Held []string

	// Devices are those of --device, as they are on the machine; a directory has several.
	Devices []hostNode

	// DeviceRules are those of Devices for the cgroup.
	DeviceRules []specs.LinuxDeviceCgroup

	// Numbers has major and minor of the block devices that limits name by path.
	Numbers map[string][2]int64

	// Console is height and width of its terminal in characters, zero where it is not known.
	Console [2]uint
}

// newSpec says what the sandbox is to make. It looks at nothing but its input.
//
// Errors: ErrInvalid, for what check would have found.
func newSpec(in *specInput) (*specs.Spec, error) {
	r := in.Record
	h := r.HostConfig
	args, err := commandLine(r.Config)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(h.CapAdd, h.CapDrop, in.Held)
	if err != nil {
		return nil, err
	}
	if h.Privileged {
		caps = in.Held
	}
	sec, err := securityOptions(h)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: in.Rootfs, Readonly: h.ReadonlyRootfs},
		Process: &specs.Process{
			Terminal:        r.Config.Tty,
			User:            in.User,
			Args:            args,
			Env:             environment(r.Config, in.Host, in.Home),
			Cwd:             workingDir(r.Config),
			Capabilities:    capabilitySets(caps, in.User),
			NoNewPrivileges: sec.noNewPrivileges,
		},
		Linux: &specs.Linux{
			MaskedPaths:       h.MaskedPaths,
			ReadonlyPaths:     h.ReadonlyPaths,
			UIDMappings:       r.UIDMap,
			GIDMappings:       r.GIDMap,
			Namespaces:        namespaces(r, in.Joined),
			Sysctl:            h.Sysctls,
			RootfsPropagation: "rprivate",
			Resources:         resources(&h.Resources, in),
		},
		Annotations: h.Annotations,
	}
	if !h.UTSMode.IsHost() {
		s.Hostname, s.Domainname = in.Host, r.Config.Domainname
	}
	if h.Umask != nil {
		s.Process.User.Umask = h.Umask
	}
	if in.Console != [2]uint{} && r.Config.Tty {
		s.Process.ConsoleSize = &specs.Box{Height: in.Console[0], Width: in.Console[1]}
	}
	if h.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &h.OomScoreAdj
	}
	for _, u := range h.Ulimits {
		l, err := rlimit(u)
		if err != nil {
			return nil, err
		}
		s.Process.Rlimits = append(s.Process.Rlimits, l)
	}
	if slices.ContainsFunc(r.Mounts, mountRecord.slave) {
		s.Linux.RootfsPropagation = "private" // every mount says for itself what it is
	}
	s.Mounts = specMounts(in)
	for _, d := range in.Devices {
		if in.BindDevs {
			s.Mounts = append(s.Mounts, d.mount())
		} else {
			s.Linux.Devices = append(s.Linux.Devices, d.LinuxDevice)
		}
	}
	return s, addSeccomp(s, sec)
}

// addSeccomp adds the profile. The default one depends on the architecture, the kernel and the capabilities.
func addSeccomp(s *specs.Spec, sec security) (err error) {
	switch sec.seccomp {
	case "unconfined":
	case "":
		s.Linux.Seccomp, err = mobyseccomp.GetDefaultProfile(s)
	default:
		s.Linux.Seccomp, err = mobyseccomp.LoadProfile(sec.seccomp, s)
	}
	if err != nil {
		return fail(ErrInvalid, "seccomp profile: %v", err)
	}
	return nil
}

// environment is what the command sees: Docker's variables, and over them those of image and caller. NAME without a
// value takes a variable away.
func environment(c *api.Config, hostname, home string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = replaceEnv(env, c.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// replaceEnv puts overrides over the variables of env; they keep their places.
func replaceEnv(env, overrides []string) []string {
	at := map[string]int{}
	for i, e := range env {
		key, _, _ := strings.Cut(e, "=")
		at[key] = i
	}
	gone := map[int]bool{}
	for _, o := range overrides {
		key, _, has := strings.Cut(o, "=")
		i, ok := at[key]
		switch {
		case !has && ok:
			gone[i] = true
		case !has:
		case ok:
			env[i] = o
			delete(gone, i)
		default:
			at[key] = len(env)
			env = append(env, o)
		}
	}
	kept := env[:0:0]
	for i, e := range env {
		if !gone[i] {
			kept = append(kept, e)
		}
	}
	return kept
}

func workingDir(c *api.Config) string {
	if c.WorkingDir == "" {
		return "/"
	}
	return filepath.Clean(c.WorkingDir)
}

// capabilitySets gives root all of them, and another user none that is effective, as Docker does since 1.10: what he
// executes gains them through file capabilities only.
func capabilitySets(caps []string, u specs.User) *specs.LinuxCapabilities {
	sets := &specs.LinuxCapabilities{Bounding: caps}
	if u.UID == 0 {
		sets.Effective, sets.Permitted = caps, caps
	}
	return sets
}

// namespaces are those that are not the machine's; joined has paths to those of others.
func namespaces(r *record, joined map[specs.LinuxNamespaceType]string) []specs.LinuxNamespace {
	h := r.HostConfig
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		host bool
	}{
		{specs.PIDNamespace, h.PidMode.IsHost()}, {specs.IPCNamespace, h.IpcMode.IsHost()},
		{specs.UTSNamespace, h.UTSMode.IsHost()}, {specs.NetworkNamespace, h.NetworkMode == "host"},
		{specs.CgroupNamespace, h.CgroupnsMode.IsHost()}, {specs.UserNamespace, len(r.UIDMap) == 0},
	} {
		if !n.host {
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: joined[n.kind]})
		}
	}
	return ns
}

// rlimit is a --ulimit in OCI's words. -1 is no limit.
//
// Errors: ErrInvalid for a limit that is none.
func rlimit(u *units.Ulimit) (specs.POSIXRlimit, error) {
	if _, err := u.GetRlimit(); err != nil {
		return specs.POSIXRlimit{}, fail(ErrInvalid, "ulimit %s: %v", u.Name, err)
	}
	if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
		return specs.POSIXRlimit{}, fail(ErrInvalid, "ulimit soft limit must be less than or equal to hard limit: %s", u)
	}
	return specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}, nil
}

func sizeOption(bytes int64) string { return "size=" + strconv.FormatInt(bytes, 10) }

// specMounts are the default mounts, the files of the container's own, and what the caller wants; who names a
// destination of the others takes its place.
func specMounts(in *specInput) []specs.Mount {
	wanted := map[string]bool{}
	for _, m := range in.Record.Mounts {
		wanted[m.Destination] = true
	}
	var mounts []specs.Mount
	for _, m := range defaultMounts(in) {
		if !wanted[m.Destination] {
			mounts = append(mounts, m)
		}
	}
	for _, f := range []struct{ dest, file string }{
		{"/etc/resolv.conf", resolvFile}, {"/etc/hostname", hostnameFile}, {"/etc/hosts", hostsFile},
	} {
		if wanted[f.dest] {
			continue
		}
		o := []string{"rbind", "rprivate"}
		if in.Record.HostConfig.ReadonlyRootfs {
			o = append(o, "ro")
		}
		mounts = append(mounts, specs.Mount{Destination: f.dest, Type: "bind", Source: filepath.Join(in.Dir, f.file), Options: o})
	}
	for _, m := range in.Record.Mounts {
		mounts = append(mounts, specMount(in, m))
	}
	return mounts
}

func specMount(in *specInput, m mountRecord) specs.Mount {
	s := specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: m.Options}
	switch m.Type {
	case mount.TypeTmpfs:
		s.Type, s.Source = "tmpfs", "tmpfs"
	case mount.TypeVolume:
		s.Source = in.Volumes[m.part()]
		o := in.VolumeMounts[m.Name]
		if o == nil {
			break
		}
		s.Options = append(slices.Clone(s.Options), o.Options...)
		if o.Type == volume.Tmpfs {
			s.Type, s.Source = "tmpfs", "tmpfs"
			s.Options = slices.DeleteFunc(s.Options, func(o string) bool { return o == "rbind" || o == "bind" })
		}
	}
	return s
}

// resources are the limits. Nil is left as it is.
func resources(r *api.Resources, in *specInput) *specs.LinuxResources {
	res := &specs.LinuxResources{}
	if in != nil {
		res.Devices = append(defaultDevices(), in.DeviceRules...)
		if in.Record.HostConfig.Privileged {
			res.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		}
		res.BlockIO = blockLimits(r, in)
	} else if r.BlkioWeight > 0 {
		res.BlockIO = &specs.LinuxBlockIO{Weight: &r.BlkioWeight}
	}
	set := func(v int64) *int64 {
		if v == 0 {
			return nil
		}
		return &v
	}
	memory := specs.LinuxMemory{Limit: set(r.Memory), Swap: set(r.MemorySwap), Reservation: set(r.MemoryReservation)}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		n := uint64(*r.MemorySwappiness)
		memory.Swappiness = &n
	}
	if memory != (specs.LinuxMemory{}) {
		res.Memory = &memory
	}
	cpu := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems, Quota: set(r.CPUQuota)}
	if r.CPUShares > 0 {
		n := uint64(r.CPUShares)
		cpu.Shares = &n
	}
	if r.CPUPeriod > 0 {
		n := uint64(r.CPUPeriod)
		cpu.Period = &n
	}
	if r.NanoCPUs > 0 {
		period := uint64(100_000) // microseconds, as Docker
		quota := r.NanoCPUs * int64(period) / 1e9
		cpu.Period, cpu.Quota = &period, &quota
	}
	if cpu != (specs.LinuxCPU{}) {
		res.CPU = &cpu
	}
	if r.PidsLimit != nil {
		limit := *r.PidsLimit
		if limit <= 0 {
			limit = -1 // unlimited
		}
		if limit > 0 || in == nil { // a new group is, one that is updated has to be told
			res.Pids = &specs.LinuxPids{Limit: &limit}
		}
	}
	return res
}
