package createopts

import (
	"github.com/docker/cli/opts"
	"github.com/spf13/pflag"
)

// Flags hold what the command line says. Add makes the flags, Parse reads them.
type Flags struct {
	set *pflag.FlagSet

	process   processFlags
	security  securityFlags
	network   networkFlags
	storage   storageFlags
	resources resourceFlags
	identity  identityFlags
}

// processFlags say what runs and how it is attached.
type processFlags struct {
	attach      opts.ListOpts
	env         opts.ListOpts
	envFile     opts.ListOpts
	entrypoint  string
	hostname    string
	domainname  string
	interactive bool
	tty         bool
	labels      opts.ListOpts
	labelFile   opts.ListOpts
	annotations *opts.MapOpts
	restart     string
	stopSignal  string
	stopTimeout int
	user        string
	workdir     string
	autoRemove  bool
	init        bool
	cidfile     string
	logDriver   string
	logOpts     opts.ListOpts
}

type securityFlags struct {
	capAdd      opts.ListOpts
	capDrop     opts.ListOpts
	groupAdd    opts.ListOpts
	privileged  bool
	securityOpt opts.ListOpts
	cgroupns    string
	ipc         string
	pid         string
	uts         string
	sysctls     *opts.MapOpts
}

type networkFlags struct {
	network    string
	publish    opts.ListOpts
	publishAll bool
	expose     opts.ListOpts
	dns        opts.ListOpts
	dnsSearch  opts.ListOpts
	dnsOptions opts.ListOpts
	extraHosts opts.ListOpts
}

type storageFlags struct {
	volumes     opts.ListOpts
	mounts      opts.MountOpt
	tmpfs       opts.ListOpts
	volumesFrom opts.ListOpts
	devices     opts.ListOpts
	readOnly    bool
	rootfs      string
}

type resourceFlags struct {
	memory            opts.MemBytes
	memoryReservation opts.MemBytes
	memorySwap        opts.MemSwapBytes
	swappiness        int64
	oomKillDisable    bool
	oomScoreAdj       int
	cpus              opts.NanoCPUs
	cpuShares         int64
	cpuPeriod         int64
	cpuQuota          int64
	cpusetCpus        string
	cpusetMems        string
	pidsLimit         int64
	blkioWeight       uint16
	blkioWeightDevice opts.WeightdeviceOpt
	deviceReadBps     opts.ThrottledeviceOpt
	deviceWriteBps    opts.ThrottledeviceOpt
	deviceReadIOps    opts.ThrottledeviceOpt
	deviceWriteIOps   opts.ThrottledeviceOpt
	ulimits           *opts.UlimitOpt
	shmSize           opts.MemBytes
	cgroupParent      string
}

type identityFlags struct {
	userns string
	uidMap opts.ListOpts
	gidMap opts.ListOpts
}

// Add gives a command the flags of run and create.
func Add(set *pflag.FlagSet) *Flags {
	f := &Flags{set: set}
	f.addProcess()
	f.addSecurity()
	f.addNetwork()
	f.addStorage()
	f.addResources()
	f.addIdentity()
	return f
}

func (f *Flags) addProcess() {
	p := &f.process
	p.attach = opts.NewListOpts(validateAttach)
	p.env = opts.NewListOpts(opts.ValidateEnv)
	p.envFile = opts.NewListOpts(nil)
	p.labels = opts.NewListOpts(opts.ValidateLabel)
	p.labelFile = opts.NewListOpts(nil)
	p.annotations = opts.NewMapOpts(nil, nil)
	p.logOpts = opts.NewListOpts(nil)
	f.set.VarP(&p.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.set.VarP(&p.env, "env", "e", "Set environment variables")
	f.set.Var(&p.envFile, "env-file", "Read in a file of environment variables")
	f.set.StringVar(&p.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.set.StringVarP(&p.hostname, "hostname", "h", "", "Container host name")
	f.set.StringVar(&p.domainname, "domainname", "", "Container NIS domain name")
	f.set.BoolVarP(&p.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.set.BoolVarP(&p.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.set.VarP(&p.labels, "label", "l", "Set meta data on a container")
	f.set.Var(&p.labelFile, "label-file", "Read in a line delimited file of labels")
	f.set.Var(p.annotations, "annotation", "Add an annotation to the container")
	f.set.StringVar(&p.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.set.StringVar(&p.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.set.IntVar(&p.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.set.StringVarP(&p.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.set.StringVarP(&p.workdir, "workdir", "w", "", "Working directory inside the container")
	f.set.BoolVar(&p.autoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	f.set.BoolVar(&p.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.set.StringVar(&p.cidfile, "cidfile", "", "Write the container ID to the file")
	f.set.StringVar(&p.logDriver, "log-driver", "", `Logging driver for the container ("json-file", "none")`)
	f.set.Var(&p.logOpts, "log-opt", `Log driver options ("max-size", "max-file")`)
}

func (f *Flags) addSecurity() {
	s := &f.security
	s.capAdd = opts.NewListOpts(nil)
	s.capDrop = opts.NewListOpts(nil)
	s.groupAdd = opts.NewListOpts(nil)
	s.securityOpt = opts.NewListOpts(nil)
	s.sysctls = opts.NewMapOpts(nil, opts.ValidateSysctl)
	f.set.Var(&s.capAdd, "cap-add", "Add Linux capabilities")
	f.set.Var(&s.capDrop, "cap-drop", "Drop Linux capabilities")
	f.set.Var(&s.groupAdd, "group-add", "Add additional groups to join")
	f.set.BoolVar(&s.privileged, "privileged", false, "Give extended privileges to this container")
	f.set.Var(&s.securityOpt, "security-opt", "Security Options")
	f.set.StringVar(&s.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	f.set.StringVar(&s.ipc, "ipc", "", "IPC mode to use")
	f.set.StringVar(&s.pid, "pid", "", "PID namespace to use")
	f.set.StringVar(&s.uts, "uts", "", "UTS namespace to use")
	f.set.Var(s.sysctls, "sysctl", "Sysctl options")
}

func (f *Flags) addNetwork() {
	n := &f.network
	n.publish = opts.NewListOpts(nil)
	n.expose = opts.NewListOpts(nil)
	n.dns = opts.NewListOpts(opts.ValidateIPAddress)
	n.dnsSearch = opts.NewListOpts(opts.ValidateDNSSearch)
	n.dnsOptions = opts.NewListOpts(nil)
	n.extraHosts = opts.NewListOpts(opts.ValidateExtraHost)
	f.set.StringVar(&n.network, "network", "", `Connect a container to a network ("host", "none", "private")`)
	f.set.StringVar(&n.network, "net", "", "Connect a container to a network")
	f.set.VarP(&n.publish, "publish", "p", "Publish a container's port(s) to the host")
	f.set.BoolVarP(&n.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.set.Var(&n.expose, "expose", "Expose a port or a range of ports")
	f.set.Var(&n.dns, "dns", "Set custom DNS servers")
	f.set.Var(&n.dnsSearch, "dns-search", "Set custom DNS search domains")
	f.set.Var(&n.dnsOptions, "dns-option", "Set DNS options")
	f.set.Var(&n.dnsOptions, "dns-opt", "Set DNS options")
	f.set.Var(&n.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	hide(f.set, "net", "dns-opt")
}

func (f *Flags) addStorage() {
	s := &f.storage
	s.volumes = opts.NewListOpts(nil)
	s.tmpfs = opts.NewListOpts(nil)
	s.volumesFrom = opts.NewListOpts(nil)
	s.devices = opts.NewListOpts(nil)
	f.set.VarP(&s.volumes, "volume", "v", "Bind mount a volume")
	f.set.Var(&s.mounts, "mount", "Attach a filesystem mount to the container")
	f.set.Var(&s.tmpfs, "tmpfs", "Mount a tmpfs directory")
	f.set.Var(&s.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	f.set.Var(&s.devices, "device", "Add a host device to the container")
	f.set.BoolVar(&s.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.set.StringVar(&s.rootfs, "rootfs", "", "Take directories for the image: DIR[:LOWER...], the topmost first")
}

func (f *Flags) addResources() {
	r := &f.resources
	r.blkioWeightDevice = opts.NewWeightdeviceOpt(opts.ValidateWeightDevice)
	r.deviceReadBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	r.deviceWriteBps = opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice)
	r.deviceReadIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	r.deviceWriteIOps = opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice)
	r.ulimits = opts.NewUlimitOpt(nil)
	f.set.VarP(&r.memory, "memory", "m", "Memory limit")
	f.set.Var(&r.memoryReservation, "memory-reservation", "Memory soft limit")
	f.set.Var(&r.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	f.set.Int64Var(&r.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.set.BoolVar(&r.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.set.IntVar(&r.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.set.Var(&r.cpus, "cpus", "Number of CPUs")
	f.set.Int64VarP(&r.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.set.Int64Var(&r.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.set.Int64Var(&r.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.set.StringVar(&r.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.set.StringVar(&r.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.set.Int64Var(&r.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.set.Uint16Var(&r.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.set.Var(&r.blkioWeightDevice, "blkio-weight-device", "Block IO weight (relative device weight)")
	f.set.Var(&r.deviceReadBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	f.set.Var(&r.deviceWriteBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	f.set.Var(&r.deviceReadIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	f.set.Var(&r.deviceWriteIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	f.set.Var(r.ulimits, "ulimit", "Ulimit options")
	f.set.Var(&r.shmSize, "shm-size", "Size of /dev/shm")
	f.set.StringVar(&r.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
}

func (f *Flags) addIdentity() {
	i := &f.identity
	i.uidMap = opts.NewListOpts(nil)
	i.gidMap = opts.NewListOpts(nil)
	f.set.StringVar(&i.userns, "userns", "", `User namespace to use ("host", "private", "keep-id")`)
	f.set.Var(&i.uidMap, "uidmap", "Map user IDs of a user namespace of its own (container:host:count)")
	f.set.Var(&i.gidMap, "gidmap", "Map group IDs of a user namespace of its own (container:host:count)")
}

// hide keeps flags out of the help. They exist.
func hide(set *pflag.FlagSet, names ...string) {
	for _, n := range names {
		set.Lookup(n).Hidden = true
	}
}
