package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Descriptors of init. What the parent has opened for it follows, in the order of initConfig.
const (
	fdSocket = 3 + iota
	fdConfig
	fdSelf
	fdFirst
)

// An initConfig is all that init is told. Its descriptors are numbers in init.
type initConfig struct {
	Process  processConfig
	Hostname string
	Domain   string
	Cgroup   bool // make a cgroup namespace
	Tasks    []taskFile

	Root struct {
		Fd          int // the rootfs, a detached mount
		Readonly    bool
		Propagation uint64
	}
	Mounts   []mountPlan
	Devices  []devicePlan
	NoDev    bool // /dev is bound from outside: nothing is made in it
	Null     int  // /dev/null, a detached mount, for what is masked; -1: nothing is
	Sysctl   map[string]string
	Masked   []string
	Readonly []string
	InitNS   bool // in the machine's own user namespace: as it is without a nested one
}

// A mountPlan is one mount of the specification.
type mountPlan struct {
	Text    string // for errors: type, source, target and options
	Type    string // of the filesystem; empty for a bind
	Source  string
	Target  string
	Fd      int // a bind's detached mount
	IsDir   bool
	Options mountOptions
}

// A devicePlan is one node of /dev.
type devicePlan struct {
	Path     string
	Mode     uint32 // type and permission bits
	Rdev     uint64
	UID, GID uint32
	Fd       int // detached mount of the machine's node; -1: mknod(2)
}

// A plan is a config with the descriptors that go with it, in this process.
type plan struct {
	config initConfig
	files  []int // numbered from fdFirst in init
}

func (p *plan) close() {
	for _, fd := range p.files {
		_ = unix.Close(fd) // a detached mount goes with its last descriptor
	}
}

// add hands fd to init and returns its number there.
func (p *plan) add(fd int) int {
	p.files = append(p.files, fd)
	return fdFirst + len(p.files) - 1
}

// newPlan opens everything that is outside of the container.
func newPlan(o *Options, ns *namespaces) (*plan, error) {
	p := &plan{}
	if err := p.fill(o, ns); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *plan) fill(o *Options, ns *namespaces) (err error) {
	s, c := o.Spec, &p.config
	if c.Process, err = newProcessConfig(s.Process, s.Linux.Seccomp, o.Init); err != nil {
		return err
	}
	c.Process.MakeCwd = true
	c.Hostname, c.Domain = s.Hostname, s.Domainname
	c.Cgroup = ns.isNew(unix.CLONE_NEWCGROUP)
	for _, f := range o.Tasks {
		if err := p.tasks(f); err != nil {
			return err
		}
	}
	c.Sysctl, c.Masked, c.Readonly = s.Linux.Sysctl, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths
	c.InitNS = initNamespace(ns.isNew(unix.CLONE_NEWUSER))

	if c.Root.Fd, err = p.tree(s.Root.Path, true); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	c.Root.Readonly = s.Root.Readonly
	if prop := s.Linux.RootfsPropagation; prop != "" {
		c.Root.Propagation = propagationOptions[prop]
		if c.Root.Propagation == 0 {
			return fmt.Errorf("spec: rootfs propagation %q is none of shared, slave, private, unbindable", prop)
		}
	}
	for _, m := range s.Mounts {
		if err := p.mount(m, ns, s); err != nil {
			return err
		}
	}
	c.Null = -1
	if len(c.Masked) > 0 {
		if c.Null, err = p.device("/dev/null", unix.S_IFCHR, unix.Mkdev(1, 3)); err != nil {
			return err
		}
	}
	if !c.NoDev {
		err = p.devices(s)
	}
	return err
}

// tree opens path as a detached mount, with what is mounted below it if recursive.
func (p *plan) tree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return p.add(fd), nil
}

func (p *plan) host(fd int) int { return p.files[fd-fdFirst] }

// mount plans one mount. A filesystem that the kernel only mounts for the owner of a namespace is bound from the
// machine where the container shares that namespace and is not its owner, as podman does it.
func (p *plan) mount(m specs.Mount, ns *namespaces, s *specs.Spec) error {
	o := parseMountOptions(m.Options)
	mp := mountPlan{
		Text: describe(m.Type, m.Source, m.Destination, m.Options), Type: m.Type, Source: m.Source,
		Target: path.Clean("/" + m.Destination), Options: o, Fd: -1, IsDir: true,
	}
	if m.Destination == "" || mp.Target == "/" {
		return fmt.Errorf("mount %s: the target must be a path below /", mp.Text)
	}
	shared := false
	switch m.Type {
	case "sysfs":
		shared = !ns.own(specs.NetworkNamespace, unix.CLONE_NEWNET)
	case "mqueue":
		shared = !ns.own(specs.IPCNamespace, unix.CLONE_NEWIPC)
	case "proc":
		shared = !ns.own(specs.PIDNamespace, unix.CLONE_NEWPID)
	}
	if shared && !p.config.InitNS {
		mp.Source = map[string]string{"sysfs": "/sys", "mqueue": "/dev/mqueue", "proc": "/proc"}[m.Type]
		mp.Options.Bind, mp.Options.Recursive, mp.Options.Data = true, true, nil
		if _, err := os.Stat(mp.Source); m.Type == "mqueue" && errors.Is(err, fs.ErrNotExist) {
			return nil // the machine has not mounted its queues either
		}
	}
	if m.Type == "bind" || m.Type == "none" || mp.Options.Bind {
		mp.Type = ""
		if len(mp.Options.Data) > 0 {
			return fmt.Errorf("mount %s: a bind has no option %q", mp.Text, mp.Options.Data[0])
		}
		if !path.IsAbs(mp.Source) {
			return fmt.Errorf("mount %s: the source must be an absolute path", mp.Text)
		}
		if err := p.bind(&mp); err != nil {
			return fmt.Errorf("mount %s: %w", mp.Text, err)
		}
		p.config.NoDev = p.config.NoDev || mp.Target == "/dev"
	}
	if m.Type == "devpts" {
		mp.Options.Data = slices.DeleteFunc(mp.Options.Data, func(d string) bool { return !gidMapped(d, s.Linux.GIDMappings) })
	}
	p.config.Mounts = append(p.config.Mounts, mp)
	return nil
}

// gidMapped reports whether an option that gives files to a group names one that exists in the container. Docker's
// gid=5 (tty) does not where a single id is mapped; the terminals belong to the group of the process then.
func gidMapped(option string, nested []specs.LinuxIDMapping) bool {
	text, ok := strings.CutPrefix(option, "gid=")
	gid, err := strconv.ParseUint(text, 10, 32)
	if !ok || err != nil {
		return true
	}
	if len(nested) > 0 {
		return maps(nested, uint32(gid))
	}
	m, err := ownMap("/proc/self/gid_map")
	return err != nil || maps(m, uint32(gid))
}

func ownMap(file string) ([]specs.LinuxIDMapping, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m []specs.LinuxIDMapping
	for line := range strings.Lines(string(b)) {
		var e specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &e.ContainerID, &e.HostID, &e.Size); err != nil {
			return nil, err
		}
		m = append(m, e)
	}
	return m, nil
}

// bind opens the source, once: whatever its name stands for later, this is what is mounted.
func (p *plan) bind(mp *mountPlan) error {
	fd, err := p.tree(mp.Source, mp.Options.Recursive)
	if errors.Is(err, unix.EINVAL) && !mp.Options.Recursive {
		return fmt.Errorf("%w (what is mounted below the source may not be uncovered here: use rbind)", err)
	}
	if err != nil {
		return err
	}
	mp.Fd = fd
	var st unix.Stat_t
	if err := unix.Fstat(p.host(fd), &st); err != nil {
		return err
	}
	mp.IsDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	return nil
}

// initNamespace reports whether the container is in the machine's own user namespace.
func initNamespace(nested bool) bool { return !nested && !userns.RunningInUserNS() }

// wireVersion is that of initConfig, execConfig and message: a child may be another program than the parent, of another
// build. It changes with them.
const wireVersion = 2

// A versioned is what a child is told.
type versioned struct {
	Version int
	Config  any // *initConfig or *execConfig
}

// Prepare does what takes time in the first Create of a process, and is the same in all.
func Prepare() {
	_, _ = json.Marshal(versioned{wireVersion, &initConfig{}}) // the plans of the types are what is wanted
	_, _ = json.Marshal(message{})
}

// encodeConfig writes what a child of ours is told to where it reads it.
func encodeConfig(v any) (int, error) {
	b, err := json.Marshal(versioned{wireVersion, v})
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("config", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	if n, err := unix.Pwrite(fd, b, 0); err != nil || n != len(b) {
		_ = unix.Close(fd) // ours alone
		return -1, fmt.Errorf("write the configuration: %w", errors.Join(err, unix.EIO))
	}
	return fd, nil
}
