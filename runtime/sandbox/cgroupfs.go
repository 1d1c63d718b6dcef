package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// prepareCgroup makes the mount of a "cgroup" entry: the unified hierarchy where the machine has that alone, and
// else a tmpfs with all that there are (cgroups(7)).
func (in *initProcess) prepareCgroup(m *mountPlan) (detached, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return detached{}, fmt.Errorf("the machine's cgroups: %s: %w", cgroupRoot, err)
	}
	own := in.cgroups
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		fd, err := in.cgroupMount("cgroup2", "", path.Join(cgroupRoot, own[""]), m.Options)
		return detached{fd: fd}, err
	}
	o := mountOptions{Set: m.Options.Set &^ unix.MOUNT_ATTR_RDONLY, Data: []string{"mode=755"}} // read-only when it is filled
	fd, err := newFilesystem("tmpfs", "tmpfs", o)
	if err != nil {
		return detached{}, err
	}
	d := detached{fd: fd}
	for _, names := range sorted(own) {
		if err := in.prepareHierarchy(&d, names, own[names], m.Options); err != nil {
			return d, err
		}
	}
	return d, nil
}

func sorted(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ownCgroups, called before the cgroup namespace is made, maps a hierarchy's controllers, or name=NAME, or nothing for the unified one, to our cgroup in it.
func ownCgroups() (map[string]string, error) {
	b, err := os.ReadFile("/proc/thread-self/cgroup") // the other threads are elsewhere
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			own[f[1]] = f[2]
		}
	}
	return own, nil
}

// prepareHierarchy adds one hierarchy, and a link for each of several controllers in it. One that the machine has
// not mounted is left out.
func (in *initProcess) prepareHierarchy(d *detached, names, own string, o mountOptions) error {
	kind, dir, data := "cgroup", strings.TrimPrefix(names, "name="), names
	switch {
	case names == "":
		kind, dir, data = "cgroup2", "unified", ""
	case dir != names:
		data = "none," + names
	}
	var st unix.Stat_t
	host := path.Join(cgroupRoot, dir)
	if unix.Stat(host, &st) != nil {
		return nil
	}
	fd, err := in.cgroupMount(kind, data, path.Join(host, own), o)
	if err != nil {
		return fmt.Errorf("hierarchy %s: %w", dir, err)
	}
	d.below = append(d.below, below{dir: dir, fd: fd})
	if controllers := strings.Split(names, ","); len(controllers) > 1 {
		for _, c := range controllers {
			d.below = append(d.below, below{dir: c, fd: -1, target: dir})
		}
	}
	return nil
}

// cgroupMount mounts a hierarchy anew, which shows a cgroup namespace its own part; where there is no such
// namespace, or the kernel does not let it, the machine's is bound from our cgroup on.
func (in *initProcess) cgroupMount(kind, data, host string, o mountOptions) (int, error) {
	var mountErr error
	if in.config.Cgroup {
		mo := mountOptions{Set: o.Set}
		if data != "" {
			mo.Data = strings.Split(data, ",")
		}
		fd, err := newFilesystem(kind, "cgroup", mo)
		if err == nil {
			return fd, nil
		}
		mountErr = err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, host, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, errors.Join(mountErr, fmt.Errorf("bind %s: %w", host, err))
	}
	return fd, setReadonlyAttr(fd, o)
}

func setReadonlyAttr(fd int, o mountOptions) error {
	if o.Set == 0 {
		return nil
	}
	return mountSetattr(fd, unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: o.Set})
}
