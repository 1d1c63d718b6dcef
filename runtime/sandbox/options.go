package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Options say what to run.
type Options struct {
	// Spec describes the container. Root.Path is a directory of this mount namespace. Not everything that the
	// specification knows is done: what is not, and is asked for, is an error. Linux.Resources is ignored: limits
	// are set by who puts the process into a cgroup (Joined).
	Spec *specs.Spec

	// Stdio are the command's standard files when Spec.Process.Terminal is not set; nil is /dev/null. They are
	// the caller's to close.
	Stdio [3]*os.File

	// Console gets the master side of the terminal, when there is one, before Create or Exec returns. It is the
	// receiver's to close; a nil Console closes it.
	Console func(master *os.File)

	// Self is the executable that is run in the container for the roles of Main, by path; empty is the program that
	// is running. It must be static: a container has no shared libraries for it.
	Self string

	// Init has the command run below a PID 1 of ours that reaps processes and forwards signals (--init).
	Init bool

	// Tasks are the "tasks" of cgroups of v1, which init enters by itself, before it makes a cgroup namespace. Cgroup is the
	// directory of a cgroup2 that it is born in; nil for none. They are the caller's to close.
	Tasks  []*os.File
	Cgroup *os.File

	// Joined is called in the parent when init is in its namespaces, and before it makes a cgroup namespace: here
	// pid is put into its cgroup, if it does not enter it, and its network is set up. An error of it ends the container and
	// is returned.
	Joined func(pid int) error

	// Born, where it is not nil, is called for init and for every process of Exec while it waits with the caller's user ID,
	// before it becomes root of the container. A cgroup of v1 that is an ordinary user's takes in nobody with another one.
	Born func(pid int) error

	// ExecJoined is as Joined for every process of Exec: it puts pid into the container's cgroup.
	ExecJoined func(pid int) error
}

// nsFlags are the namespaces of the specification that are made by clone(2), in the order in which joining them
// by path works.
var nsFlags = []struct {
	kind specs.LinuxNamespaceType
	flag uintptr
	file string // below /proc/PID/ns
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

// A namespaces is what a Spec asks for: new ones, and existing ones by path.
type namespaces struct {
	fresh uintptr // CLONE_NEW*
	join  map[specs.LinuxNamespaceType]string
}

func (n *namespaces) isNew(flag uintptr) bool { return n.fresh&flag != 0 }

// own reports whether the container has a namespace of the kind, new or joined, that is not ours.
func (n *namespaces) own(kind specs.LinuxNamespaceType, flag uintptr) bool {
	return n.isNew(flag) || n.join[kind] != ""
}

func parseNamespaces(l *specs.Linux) (*namespaces, error) {
	n := &namespaces{join: map[specs.LinuxNamespaceType]string{}}
	seen := map[specs.LinuxNamespaceType]bool{}
next:
	for _, ns := range l.Namespaces {
		if seen[ns.Type] {
			return nil, fmt.Errorf("namespace %s is listed twice", ns.Type)
		}
		seen[ns.Type] = true
		for _, known := range nsFlags {
			if known.kind != ns.Type {
				continue
			}
			if ns.Path == "" {
				n.fresh |= known.flag
				continue next
			}
			if ns.Type == specs.UserNamespace || ns.Type == specs.MountNamespace {
				return nil, fmt.Errorf("namespace %s: joining an existing one is not supported", ns.Type)
			}
			n.join[ns.Type] = ns.Path
			continue next
		}
		return nil, fmt.Errorf("namespace %q is not supported", ns.Type)
	}
	if len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0 {
		n.fresh |= unix.CLONE_NEWUSER
	}
	if !n.isNew(unix.CLONE_NEWNS) {
		return nil, errors.New("a container needs a mount namespace of its own")
	}
	return n, nil
}

// validate refuses what would otherwise be ignored, and what could change the machine outside of the container.
func validate(s *specs.Spec) (*namespaces, error) {
	switch {
	case s == nil || s.Process == nil || s.Root == nil || s.Linux == nil:
		return nil, errors.New("spec: process, root and linux must be there")
	case s.Root.Path == "":
		return nil, errors.New("spec: root.path is empty")
	case s.Hooks != nil:
		return nil, errors.New("spec: hooks are not supported")
	case s.Linux.MountLabel != "" || s.Process.SelinuxLabel != "":
		return nil, errors.New("spec: SELinux labels are not supported")
	case s.Linux.IntelRdt != nil:
		return nil, errors.New("spec: Intel RDT is not supported")
	case s.Linux.Personality != nil:
		return nil, errors.New("spec: a personality is not supported")
	case len(s.Linux.TimeOffsets) > 0:
		return nil, errors.New("spec: time namespaces are not supported")
	}
	n, err := parseNamespaces(s.Linux)
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if err := validateProcess(s.Process); err != nil {
		return nil, err
	}
	if n.isNew(unix.CLONE_NEWUSER) && (!maps(s.Linux.UIDMappings, 0) || !maps(s.Linux.GIDMappings, 0)) {
		return nil, errors.New("spec: a user namespace must map user 0 and group 0")
	}
	if (s.Hostname != "" || s.Domainname != "") && !n.own(specs.UTSNamespace, unix.CLONE_NEWUTS) {
		return nil, errors.New("spec: a host name needs a UTS namespace of the container's own")
	}
	for key := range s.Linux.Sysctl {
		if err := validateSysctl(key, n); err != nil {
			return nil, fmt.Errorf("spec: %w", err)
		}
	}
	return n, nil
}

func validateProcess(p *specs.Process) error {
	switch {
	case len(p.Args) == 0:
		return errors.New("spec: process.args is empty")
	case !path.IsAbs(p.Cwd):
		return fmt.Errorf("spec: working directory %q is not an absolute path", p.Cwd)
	case p.ApparmorProfile != "" || p.SelinuxLabel != "":
		return errors.New("spec: AppArmor profiles and SELinux labels are not supported")
	case p.Scheduler != nil || p.IOPriority != nil || p.ExecCPUAffinity != nil:
		return errors.New("spec: scheduler, io priority and cpu affinity of a process are not supported")
	}
	_, err := parseCapabilities(p.Capabilities)
	return err
}

func maps(m []specs.LinuxIDMapping, id uint32) bool {
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return true
		}
	}
	return false
}

// validateSysctl lets only those through that belong to a namespace of the container's own (as runc and Docker do).
func validateSysctl(key string, n *namespaces) error {
	key = strings.ReplaceAll(key, "/", ".")
	ipc := key == "kernel.msgmax" || key == "kernel.msgmnb" || key == "kernel.msgmni" || key == "kernel.sem" ||
		key == "kernel.shmall" || key == "kernel.shmmax" || key == "kernel.shmmni" || key == "kernel.shm_rmid_forced" ||
		strings.HasPrefix(key, "fs.mqueue.")
	var needs specs.LinuxNamespaceType
	var flag uintptr
	switch {
	case ipc:
		needs, flag = specs.IPCNamespace, unix.CLONE_NEWIPC
	case strings.HasPrefix(key, "net."):
		needs, flag = specs.NetworkNamespace, unix.CLONE_NEWNET
	case key == "kernel.domainname" || key == "kernel.hostname":
		needs, flag = specs.UTSNamespace, unix.CLONE_NEWUTS
	default:
		return fmt.Errorf("sysctl %q is not of a namespace: setting it would change the whole machine", key)
	}
	if !n.own(needs, flag) {
		return fmt.Errorf("sysctl %q needs a %s namespace of the container's own", key, needs)
	}
	return nil
}
