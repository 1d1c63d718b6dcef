package cgroup

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Versions of cgroups that a machine can have.
const (
	VersionNone   = "none"
	VersionV1     = "1"
	VersionHybrid = "hybrid"
	VersionV2     = "2"
)

// controllersV1 are those that a container's group joins. The others cost a directory each and do nothing for a container
// unless asked for by name.
var controllersV1 = []string{"memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer", "devices", "hugetlb", nameSystemd, unified}

const (
	nameSystemd = "name=systemd" // systemd's own v1 hierarchy, without a controller
	unified     = ""             // the cgroup2 mount, as /proc/self/cgroup calls it
)

// hierarchy is one mounted cgroup filesystem.
type hierarchy struct {
	controllers []string // "memory", ..., "name=systemd"; unified for cgroup2
	mount       string   // where it is mounted
	root        string   // which of its directories that mount shows as its root
	own         string   // the caller's own cgroup in it, below mount; empty where the mount does not show it
}

// machine is what cgroups this machine has, and where the caller is in them.
type machine struct {
	version     string
	hierarchies []hierarchy // v1 and, with unified as its only controller, v2
}

// at is the hierarchy that has the controller, or nil.
func (m *machine) at(controller string) *hierarchy {
	for i := range m.hierarchies {
		if slices.Contains(m.hierarchies[i].controllers, controller) {
			return &m.hierarchies[i]
		}
	}
	return nil
}

// readMounts is read once: cgroup mounts do not change while a program runs, and mountinfo can be long.
var readMounts = sync.OnceValues(func() ([]*mountinfo.Info, error) {
	return mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
})

// look reads what cgroups there are.
func look() (*machine, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		if !os.IsNotExist(err) {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
		return &machine{version: VersionNone}, nil // a kernel without cgroups
	}
	return newMachine(mounts, own), nil
}

func newMachine(mounts []*mountinfo.Info, own map[string]string) *machine {
	m := &machine{version: VersionNone}
	v1, v2 := false, false
	for _, mi := range mounts {
		h := hierarchy{mount: mi.Mountpoint, root: mi.Root}
		if mi.FSType == "cgroup2" {
			h.controllers = []string{unified}
		} else {
			for _, o := range strings.Split(mi.VFSOptions, ",") {
				if _, ok := own[o]; ok && o != unified {
					h.controllers = append(h.controllers, o)
				}
			}
		}
		if len(h.controllers) == 0 || m.at(h.controllers[0]) != nil {
			continue // mounted twice, or options that name no controller
		}
		h.own = below(h.mount, h.root, own[h.controllers[0]])
		v1 = v1 || h.controllers[0] != unified
		v2 = v2 || h.controllers[0] == unified
		m.hierarchies = append(m.hierarchies, h)
	}
	switch {
	case v1 && v2:
		m.version = VersionHybrid
	case v1:
		m.version = VersionV1
	case v2:
		m.version = VersionV2
	}
	return m
}

// below is where the cgroup named path is found in a mount that shows root; empty where it does not show it.
func below(mount, root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return ""
	}
	return filepath.Join(mount, rel)
}

// writable reports whether the caller may make cgroups in dir and put processes in them.
func writable(dir string) bool {
	return dir != "" && unix.Access(dir, unix.W_OK|unix.X_OK) == nil
}

// outerUID is who the caller is outside of the user namespace that he is in.
var outerUID = sync.OnceValue(func() int {
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return os.Geteuid()
	}
	defer f.Close()
	return mappedUID(bufio.NewScanner(f), os.Geteuid())
})

// mappedUID maps uid through the lines of a uid_map (user_namespaces(7)).
func mappedUID(sc *bufio.Scanner, uid int) int {
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) != 3 {
			continue
		}
		inside, err1 := strconv.Atoi(f[0])
		outside, err2 := strconv.Atoi(f[1])
		count, err3 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil && err3 == nil && uid >= inside && uid-inside < count {
			return outside + uid - inside
		}
	}
	return uid
}
