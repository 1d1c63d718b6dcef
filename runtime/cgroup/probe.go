package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Info is what this user can have on this machine, for `lamina info`.
type Info struct {
	Version     string   // VersionV1, ...
	Driver      string   // "systemd", "cgroupfs", or "none" where no cgroup can be made
	Controllers []string // that limits of this user's containers can use, sorted
	Missing     []string // sentences: what is missing, and how to get it
}

// Probe finds out without changing anything.
func Probe() Info {
	m, err := look()
	if err != nil {
		return Info{Version: VersionNone, Driver: "none", Missing: []string{err.Error()}}
	}
	info := Info{Version: m.version, Driver: "cgroupfs"}
	switch m.version {
	case VersionNone:
		info.Missing = append(info.Missing, "No cgroup filesystem is mounted on this machine.")
	case VersionV2:
		m.probeV2(&info)
	default:
		m.probeV1(&info)
	}
	if len(info.Controllers) == 0 {
		info.Driver = "none"
	}
	slices.Sort(info.Controllers)
	return info
}

func (m *machine) probeV1(info *Info) {
	for _, c := range controllersV1 {
		if c == unified || c == nameSystemd || !m.wantV1(c) {
			continue
		}
		h := m.at(c)
		if h == nil {
			if c != "hugetlb" {
				info.Missing = append(info.Missing, fmt.Sprintf("The %s controller is not mounted on this machine.", c))
			}
			continue
		}
		if m.mayHaveBaseV1(h) {
			info.Controllers = append(info.Controllers, c)
		} else {
			info.Missing = append(info.Missing, sentence(m.notDelegated(h)))
		}
	}
}

// mayHaveBaseV1 is baseV1 without making anything.
func (m *machine) mayHaveBaseV1(h *hierarchy) bool {
	return slices.ContainsFunc(m.basesV1(h), func(dir string) bool { return usable(h, dir) }) || outerUID() == 0 && writable(h.mount)
}

func (m *machine) probeV2(info *Info) {
	h := m.at(unified)
	var from string
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		from = managerCgroup(h)
	}
	switch {
	case from != "":
		info.Driver = "systemd"
	case outerUID() == 0 && writable(h.mount):
		from = h.mount
	case mayDelegate(h.own):
		from = h.own
	default:
		_, err := m.baseV2(h) // changes nothing: the own cgroup may not be written to
		info.Missing = append(info.Missing, sentence(err.Error()))
		return
	}
	have, err := cgroups.ReadFile(from, "cgroup.controllers")
	if err != nil {
		info.Missing = append(info.Missing, sentence(err.Error()))
		return
	}
	info.Controllers = strings.Fields(have)
	for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(info.Controllers, c) {
			info.Missing = append(info.Missing, sentence(m.noControllerV2(c, from)))
		}
	}
}

// managerCgroup is the cgroup whose controllers systemd's scopes get; empty where no manager runs for this user.
func managerCgroup(h *hierarchy) string {
	uid := outerUID()
	if uid == 0 {
		if inUserNamespace() {
			return ""
		}
		return h.mount
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run/user/" + strconv.Itoa(uid)
	}
	if _, err := os.Stat(filepath.Join(dir, "systemd/private")); err != nil {
		return ""
	}
	return filepath.Dir(scopeSlices(h)[0])
}

// sentence makes one of the reason of an error.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
