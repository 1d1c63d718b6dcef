package sandbox

import (
	"fmt"
	"os"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// defaultDevices are there in every container (runtime-spec, config-linux.md "Default Devices"); /dev/console comes
// with the terminal and /dev/ptmx is a link.
var defaultDevices = []struct {
	path         string
	major, minor uint32
}{
	{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
}

// devices plans the nodes of /dev. Where mknod(2) is refused, as it is in every user namespace, the machine's own
// node is bound.
func (p *plan) devices(s *specs.Spec) error {
	given := map[string]bool{}
	for _, d := range s.Linux.Devices {
		given[path.Clean(d.Path)] = true
		dp, err := specDevice(d)
		if err != nil {
			return err
		}
		if err := p.addDevice(dp); err != nil {
			return err
		}
	}
	for _, d := range defaultDevices {
		if given[d.path] {
			continue
		}
		dp := devicePlan{Path: d.path, Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(d.major, d.minor)}
		if err := p.addDevice(dp); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) addDevice(dp devicePlan) (err error) {
	dp.Fd = -1
	if !p.canMknod() && dp.Mode&unix.S_IFMT != unix.S_IFIFO {
		if dp.Fd, err = p.device(dp.Path, dp.Mode&unix.S_IFMT, dp.Rdev); err != nil {
			return err
		}
	}
	p.config.Devices = append(p.config.Devices, dp)
	return nil
}

func (p *plan) canMknod() bool {
	have, err := ownPermitted()
	return p.config.InitNS && err == nil && have&(1<<unix.CAP_MKNOD) != 0
}

// device opens the machine's node as a detached mount, and makes sure that it is that node.
func (p *plan) device(name string, kind uint32, rdev uint64) (int, error) {
	fd, err := p.tree(name, false)
	if err != nil {
		return -1, fmt.Errorf("device %s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.host(fd), &st); err != nil {
		return -1, fmt.Errorf("device %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != rdev {
		return -1, fmt.Errorf("device %s: on this machine it is not the device %d:%d", name, unix.Major(rdev), unix.Minor(rdev))
	}
	return fd, nil
}

func specDevice(d specs.LinuxDevice) (devicePlan, error) {
	dp := devicePlan{Path: path.Clean("/" + d.Path), Mode: 0o666, Rdev: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
	switch d.Type {
	case "c", "u":
		dp.Mode |= unix.S_IFCHR
	case "b":
		dp.Mode |= unix.S_IFBLK
	case "p":
		dp.Mode |= unix.S_IFIFO
	default:
		return dp, fmt.Errorf("spec: device %s: unknown type %q", d.Path, d.Type)
	}
	if d.FileMode != nil {
		dp.Mode = dp.Mode&unix.S_IFMT | uint32(d.FileMode.Perm())
	}
	if d.UID != nil {
		dp.UID = *d.UID
	}
	if d.GID != nil {
		dp.GID = *d.GID
	}
	return dp, nil
}

// makeDevices makes the nodes, and the links that programs expect beside them.
func (in *initProcess) makeDevices() error {
	if in.config.NoDev {
		return nil
	}
	dev, err := in.root.ensure("/dev", true)
	if err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	defer sys.Close(dev)
	for _, d := range in.config.Devices {
		if err := in.makeDevice(d); err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
	}
	links := []struct{ name, target string }{
		{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
		{"ptmx", "pts/ptmx"},
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links = append(links, struct{ name, target string }{"core", "/proc/kcore"})
	}
	for _, l := range links {
		err := sys.Symlink(l.target, sys.At{Dirfd: dev, Name: l.name})
		if err == unix.EEXIST && l.name == "ptmx" {
			// One of the image's own would lead to the machine's terminals.
			if err = sys.RemoveAll(sys.At{Dirfd: dev, Name: l.name}); err == nil {
				err = sys.Symlink(l.target, sys.At{Dirfd: dev, Name: l.name})
			}
		}
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("/dev/%s: %w", l.name, err)
		}
	}
	return nil
}

func (in *initProcess) makeDevice(d devicePlan) error {
	if d.Fd >= 0 {
		target, err := in.root.ensure(d.Path, false)
		if err != nil {
			return err
		}
		defer sys.Close(target)
		return in.cover(d.Fd, target, d.Path)
	}
	parent, err := in.root.ensure(path.Dir(d.Path), true)
	if err != nil {
		return err
	}
	defer sys.Close(parent)
	at := sys.At{Dirfd: parent, Name: path.Base(d.Path)}
	err = sys.Mknod(at, d.Mode, d.Rdev)
	if err == unix.EEXIST {
		// In a rootfs that brings a /dev of its own: what is there must not be something else in disguise.
		if err = sys.RemoveAll(at); err == nil {
			err = sys.Mknod(at, d.Mode, d.Rdev)
		}
	}
	if err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	return sys.Chown(at, int(d.UID), int(d.GID))
}
