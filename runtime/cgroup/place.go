package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// folder is the directory at the top of a hierarchy that has root's containers, and below it, by name, what he gives to
// users. An id of a container is 64 digits and no user's name is as long.
const folder = "lamina"

// supervisor is the child cgroup to which the processes move that would stand in the way of controllers.
const supervisor = "supervisor"

// place finds where the group of container id goes, and makes what is around it. With no place at all, why says so.
func (m *machine) place(id string, o Options) (p place, why string) {
	switch m.version {
	case VersionNone:
		return place{}, "no cgroup filesystem is mounted on this machine"
	case VersionV2:
		return m.placeV2(id, o)
	}
	p = place{Version: VersionV1, Paths: map[string]string{}}
	for _, c := range controllersV1 {
		h := m.at(c)
		if h == nil || !m.wantV1(c) {
			continue
		}
		base := m.baseV1(h)
		if base != "" && o.Parent != "" {
			if outerUID() == 0 && base == filepath.Join(h.mount, folder) {
				base = h.mount
			}
			base = filepath.Join(base, filepath.Clean("/"+o.Parent))
		}
		if base != "" {
			p.Paths[c] = filepath.Join(base, id)
		}
	}
	if p.onlyNames() {
		p.Paths = nil
		h := m.at("memory")
		if h == nil {
			h = &m.hierarchies[0]
		}
		return p, m.notDelegated(h)
	}
	return p, ""
}

// wantV1 leaves out what would do nothing: device rules belong to root of the machine, and so do the hierarchies that have
// no controller.
func (m *machine) wantV1(controller string) bool {
	switch controller {
	case "devices", nameSystemd, unified:
		return outerUID() == 0 && !inUserNamespace()
	}
	return true
}

// onlyNames reports whether no controller is among the paths.
func (p place) onlyNames() bool {
	for c := range p.Paths {
		if c != unified && c != nameSystemd {
			return false
		}
	}
	return true
}

// baseV1 is the directory of the hierarchy under which the caller may make groups; made when he is root. Empty when there
// is none.
func (m *machine) baseV1(h *hierarchy) string {
	if outerUID() == 0 {
		top := filepath.Join(h.mount, folder)
		if err := os.Mkdir(top, 0o755); err == nil || errors.Is(err, fs.ErrExist) && writable(top) {
			return top
		}
	}
	for _, dir := range m.basesV1(h) {
		if usable(h, dir) {
			return dir
		}
	}
	return ""
}

// usable reports whether groups in dir can have processes: those of a cpuset get CPUs and memory nodes from it, and a
// directory that was made and given away has none before somebody writes them (cgroup-v1/cpusets.rst).
func usable(h *hierarchy, dir string) bool {
	if !writable(dir) {
		return false
	}
	if !slices.Contains(h.controllers, "cpuset") || outerUID() == 0 {
		return true // root's are filled when they are made
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err == nil && strings.TrimSpace(string(b)) == "" {
			return false
		}
	}
	return true
}

// basesV1 are the directories that can be a base, best first.
func (m *machine) basesV1(h *hierarchy) []string {
	var dirs []string
	if outerUID() == 0 {
		dirs = append(dirs, filepath.Join(h.mount, folder))
	}
	if h.own != "" && h.own != h.mount {
		dirs = append(dirs, h.own)
	}
	for _, name := range callerNames() {
		dirs = append(dirs, filepath.Join(h.mount, folder, name))
	}
	return dirs
}

// callerNames are what the directory given to the caller may be called: his name, his uid.
var callerNames = sync.OnceValue(func() []string {
	uid := strconv.Itoa(outerUID())
	if u, err := user.LookupId(uid); err == nil && !strings.Contains(u.Username, "/") {
		return []string{u.Username, uid}
	}
	return []string{uid}
})

// notDelegated says how the caller would get a directory of the hierarchy.
func (m *machine) notDelegated(h *hierarchy) string {
	name := callerNames()[0]
	if outerUID() == 0 {
		return fmt.Sprintf("%s is read-only here", h.mount)
	}
	return fmt.Sprintf("user %s has no cgroup of the %s controller of his own; root can give him one: %s",
		name, strings.Join(h.controllers, ","), giving(h, name))
}

// giving is what root types to give the user a directory.
func giving(h *hierarchy, name string) string {
	top := filepath.Join(h.mount, folder)
	dir := filepath.Join(top, name)
	s := "mkdir -p " + dir
	if slices.Contains(h.controllers, "cpuset") {
		s += fmt.Sprintf(" && for f in cpuset.cpus cpuset.mems; do cat %s/$f >%s/$f && cat %s/$f >%s/$f; done", h.mount, top, h.mount, dir)
	}
	return s + fmt.Sprintf(" && chown %s %s", name, dir)
}

// placeV2 finds the place on cgroup v2: a scope of systemd's, or below a cgroup of the caller's own.
func (m *machine) placeV2(id string, o Options) (place, string) {
	h := m.at(unified)
	var whys []string
	if !o.NoSystemd {
		p, err := m.scope(h, id, o.Parent)
		if err == nil {
			return p, ""
		}
		if !errors.Is(err, errNoSystemd) {
			whys = append(whys, err.Error())
		}
	}
	base, err := m.baseV2(h)
	if err != nil {
		whys = append(whys, err.Error())
		return place{Version: VersionV2}, strings.Join(whys, "; ")
	}
	if o.Parent != "" {
		if base, err = nest(base, o.Parent); err != nil {
			return place{Version: VersionV2}, err.Error()
		}
	}
	return place{Version: VersionV2, Paths: map[string]string{unified: filepath.Join(base, groupName(id))}}, ""
}

// nest makes the cgroup parent below base, which has its controllers, and passes them on.
func nest(base, parent string) (string, error) {
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean("/"+parent), "/"), "/") {
		base = filepath.Join(base, name)
		if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("--cgroup-parent: %w", err)
		}
		if err := enable(base); err != nil {
			return "", fmt.Errorf("--cgroup-parent: %w", err)
		}
	}
	return base, nil
}

// groupName is the directory of a container below a cgroup that has others besides.
func groupName(id string) string { return "lamina-" + id }

// baseV2 finds a cgroup that may have children with controllers: the nearest one that needs nobody moved, else the
// caller's own, whose processes move to a child.
func (m *machine) baseV2(h *hierarchy) (string, error) {
	if outerUID() == 0 && !inUserNamespace() && h.root == "/" && writable(h.mount) && !ownRootHasParent(h.mount) {
		base := filepath.Join(h.mount, folder)
		if err := os.Mkdir(base, 0o755); err == nil || writable(base) {
			if enable(h.mount) == nil && enable(base) == nil {
				return base, nil
			}
		}
	}
	if h.own == "" {
		return "", errors.New("the caller's own cgroup is not visible here")
	}
	for dir := h.own; mayDelegate(dir); dir = filepath.Dir(dir) {
		if !hasProcesses(dir) && enable(dir) == nil {
			return dir, nil
		}
		if dir == h.mount {
			break
		}
	}
	if !mayDelegate(h.own) {
		return "", fmt.Errorf("cgroup %s belongs to another user, and no systemd user session gives out one: log in with one (loginctl enable-linger), or start from `systemd-run --user --scope -p Delegate=yes`", h.own)
	}
	if err := moveDown(h.own); err != nil {
		return "", err
	}
	return h.own, nil
}

// ownRootHasParent reports whether the mount's root is not the machine's: only that one may have processes and
// controllers for children both, and only the others have cgroup.type (cgroup-v2.rst).
func ownRootHasParent(mount string) bool {
	return cgroups.PathExists(filepath.Join(mount, "cgroup.type"))
}

// mayDelegate reports whether the caller may make children of a v2 cgroup and move processes within it.
func mayDelegate(dir string) bool {
	return writable(dir) &&
		unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil &&
		unix.Access(filepath.Join(dir, "cgroup.subtree_control"), unix.W_OK) == nil
}

func hasProcesses(dir string) bool {
	pids, err := cgroups.GetPids(dir)
	return err != nil || len(pids) > 0
}

// enable gives the children of a v2 cgroup all controllers that it has.
func enable(dir string) error {
	have, err := cgroups.ReadFile(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	given, err := cgroups.ReadFile(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(given)
	for _, c := range strings.Fields(have) {
		if slices.Contains(on, c) {
			continue
		}
		if err := cgroups.WriteFile(dir, "cgroup.subtree_control", "+"+c); err != nil && errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("controller %s of cgroup %s: %w", c, dir, err) // processes are in the way
		}
		// Any other controller that cannot be had is missed by the limit that needs it, and said there.
	}
	return nil
}

// moveDown moves the processes of a v2 cgroup to its child and gives its children the controllers. Processes may be
// starting others meanwhile.
func moveDown(dir string) error {
	child := filepath.Join(dir, supervisor)
	if err := os.Mkdir(child, 0o755); err != nil && !os.IsExist(err) {
		return fmt.Errorf("cgroup: %w", err)
	}
	var last error
	for range 100 {
		pids, err := cgroups.GetPids(dir)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
		for _, pid := range pids {
			if pid == 0 {
				return fmt.Errorf("cgroup %s has processes of another pid namespace", dir)
			}
			if err := cgroups.WriteCgroupProc(child, pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cgroup %s: process %d is in the way: %w", dir, pid, err)
			}
		}
		if last = enable(dir); last == nil {
			return nil
		}
	}
	return fmt.Errorf("cgroup: %w", last)
}

// noControllerV2 says why children of a v2 cgroup lack a controller.
func (m *machine) noControllerV2(name, parent string) string {
	h := m.at(unified)
	all, _ := cgroups.ReadFile(h.mount, "cgroup.controllers")
	if !slices.Contains(strings.Fields(all), name) {
		return fmt.Sprintf("this kernel, or the machine around it, has no %s controller for cgroup v2", name)
	}
	if uid := outerUID(); uid != 0 {
		return fmt.Sprintf("the %s controller is not delegated to user %s; root can do so: a file /etc/systemd/system/user@.service.d/delegate.conf with [Service] and Delegate=cpu cpuset io memory pids, then systemctl daemon-reload and a new login",
			name, callerNames()[0])
	}
	return fmt.Sprintf("the %s controller is not enabled for the children of %s", name, parent)
}

// find looks for the group of a container whose state was lost.
func (m *machine) find(id string) place {
	if m.version == VersionV2 {
		return m.findV2(id)
	}
	p := place{Version: VersionV1, Paths: map[string]string{}}
	for _, c := range controllersV1 {
		h := m.at(c)
		if h == nil {
			continue
		}
		for _, base := range m.basesV1(h) {
			if dir := filepath.Join(base, id); cgroups.PathExists(dir) {
				p.Paths[c] = dir
				break
			}
		}
	}
	return p
}

// findV2 looks in the scope's slice, at the top, and along the caller's own cgroup.
func (m *machine) findV2(id string) place {
	h := m.at(unified)
	for _, slice := range scopeSlices(h) {
		scope := filepath.Join(slice, unitName(id))
		if dir := filepath.Join(scope, containerCgroup); cgroups.PathExists(dir) {
			return place{Version: VersionV2, Paths: map[string]string{unified: dir}, Unit: unitName(id), Scope: scope}
		}
	}
	dirs := []string{filepath.Join(h.mount, folder)}
	for dir := h.own; strings.HasPrefix(dir, h.mount); dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
	}
	for _, base := range dirs {
		if dir := filepath.Join(base, groupName(id)); cgroups.PathExists(dir) {
			return place{Version: VersionV2, Paths: map[string]string{unified: dir}}
		}
	}
	return place{Version: VersionV2}
}
