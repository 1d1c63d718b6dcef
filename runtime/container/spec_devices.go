package container

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moby/sys/capability"

	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostNode is a device as it will be in the container, and where it is on the machine.
type hostNode struct {
	specs.LinuxDevice
	host string
}

// mount shows the machine's node.
func (d *hostNode) mount() specs.Mount {
	return specs.Mount{Destination: d.Path, Type: "bind", Source: d.host, Options: []string{"bind", "rprivate", "rw"}}
}

// hostDevices looks up the devices of --device on the machine. A directory stands for all devices in it.
//
// Errors: ErrInvalid for what is no device.
func hostDevices(mappings []api.DeviceMapping, rules []string) ([]hostNode, []specs.LinuxDeviceCgroup, error) {
	var devices []hostNode
	var allowed []specs.LinuxDeviceCgroup
	add := func(host, inside, access string) error {
		d, err := hostDevice(host, inside)
		if err != nil {
			return err
		}
		if access == "" {
			access = "rwm"
		}
		devices = append(devices, hostNode{d, host})
		allowed = append(allowed, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: access})
		return nil
	}
	for _, m := range mappings {
		inside := m.PathInContainer
		if inside == "" {
			inside = m.PathOnHost
		}
		if fi, err := os.Stat(m.PathOnHost); err == nil && fi.IsDir() {
			err := filepath.WalkDir(m.PathOnHost, func(p string, e fs.DirEntry, err error) error {
				if err != nil || e.Type()&fs.ModeDevice == 0 {
					return err
				}
				rel, err := filepath.Rel(m.PathOnHost, p)
				if err != nil {
					return err
				}
				return add(p, path.Join(inside, rel), m.CgroupPermissions)
			})
			if err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := add(m.PathOnHost, inside, m.CgroupPermissions); err != nil {
			return nil, nil, err
		}
	}
	for _, r := range rules {
		d, err := deviceRule(r)
		if err != nil {
			return nil, nil, err
		}
		allowed = append(allowed, d)
	}
	return devices, allowed, nil
}

// allDevices are those of a privileged container: every node in the machine's /dev but for terminals and what each
// container has of its own, as Docker has it (pkg/devices, GetDevices).
func allDevices() ([]hostNode, error) {
	var devices []hostNode
	skip := map[string]bool{"pts": true, "shm": true, "mqueue": true, ".lxc": true, ".lxd-mounts": true, ".udev": true,
		"null": true, "zero": true, "full": true, "random": true, "urandom": true, "tty": true, "console": true, "ptmx": true}
	err := filepath.WalkDir("/dev", func(p string, e fs.DirEntry, err error) error {
		switch {
		case missing(err):
			return nil // unplugged meanwhile
		case err != nil && !os.IsPermission(err):
			return err
		case err != nil || path.Dir(p) == "/dev" && skip[e.Name()]:
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.Type()&fs.ModeDevice == 0:
			return nil
		}
		if d, err := hostDevice(p, p); err == nil {
			devices = append(devices, hostNode{d, p})
		}
		return nil
	})
	return devices, err
}

// heldCapabilities are all that this process may give.
func heldCapabilities() ([]string, error) {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	var names []string
	for _, c := range capability.ListKnown() {
		if own.Get(capability.PERMITTED, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names, nil
}

func hostDevice(host, inside string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		return specs.LinuxDevice{}, fail(ErrInvalid, "error gathering device information while adding custom device %q: %v", host, err)
	}
	typ := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		typ = "c"
	case unix.S_IFBLK:
		typ = "b"
	default:
		return specs.LinuxDevice{}, fail(ErrInvalid, "error gathering device information while adding custom device %q: not a device node", host)
	}
	mode := fs.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{
		Path: inside, Type: typ, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
	}, nil
}

// deviceRule reads --device-cgroup-rule: "c 1:3 mr".
func deviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := func() (specs.LinuxDeviceCgroup, error) {
		return specs.LinuxDeviceCgroup{}, fail(ErrInvalid, "invalid device cgroup rule format: '%s'", rule)
	}
	f := strings.Fields(rule)
	if len(f) != 3 || !strings.Contains("abc", f[0]) || strings.Trim(f[2], "rwm") != "" {
		return bad()
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return bad()
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil {
			return bad()
		}
		*n.to = &v
	}
	return r, nil
}

// deviceNumbers finds the block devices that limits name.
func deviceNumbers(r *api.Resources) (map[string][2]int64, error) {
	numbers := map[string][2]int64{}
	add := func(path string) error {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fail(ErrInvalid, "block device %s: %v", path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return fail(ErrInvalid, "%s is not a block device", path)
		}
		numbers[path] = [2]int64{int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))}
		return nil
	}
	for _, w := range r.BlkioWeightDevice {
		if err := add(w.Path); err != nil {
			return nil, err
		}
	}
	for _, list := range [][]*blkiodev.ThrottleDevice{
		r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps,
	} {
		for _, t := range list {
			if err := add(t.Path); err != nil {
				return nil, err
			}
		}
	}
	return numbers, nil
}

// blockLimits are the limits of block devices, nil without any.
func blockLimits(r *api.Resources, in *specInput) *specs.LinuxBlockIO {
	throttles := func(list []*blkiodev.ThrottleDevice) []specs.LinuxThrottleDevice {
		var out []specs.LinuxThrottleDevice
		for _, t := range list {
			d := specs.LinuxThrottleDevice{Rate: t.Rate}
			d.Major, d.Minor = in.Numbers[t.Path][0], in.Numbers[t.Path][1]
			out = append(out, d)
		}
		return out
	}
	b := specs.LinuxBlockIO{
		ThrottleReadBpsDevice:   throttles(r.BlkioDeviceReadBps),
		ThrottleWriteBpsDevice:  throttles(r.BlkioDeviceWriteBps),
		ThrottleReadIOPSDevice:  throttles(r.BlkioDeviceReadIOps),
		ThrottleWriteIOPSDevice: throttles(r.BlkioDeviceWriteIOps),
	}
	if r.BlkioWeight > 0 {
		b.Weight = &r.BlkioWeight
	}
	for _, w := range r.BlkioWeightDevice {
		d := specs.LinuxWeightDevice{Weight: &w.Weight}
		d.Major, d.Minor = in.Numbers[w.Path][0], in.Numbers[w.Path][1]
		b.WeightDevice = append(b.WeightDevice, d)
	}
	if b.Weight == nil && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+
		len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return nil
	}
	return &b
}
