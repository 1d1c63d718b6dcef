package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/beside"
	"github.com/laminafs/lamina/internal/version"
	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/idmap"
	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/network"
)

// hostInfo is what info --format sees: the fields that Docker's has and that mean something here, and our own.
type hostInfo struct {
	system.Info

	Rootless bool
	Identity *idmap.Identity
	Cgroup   cgroup.Info
	Network  network.Info
	Laminafs string // the program that mounts, empty where it was not found

	// Missing has a sentence for each thing that is missing and how to get it.
	Missing []string
}

func (a *app) infoCommand() *cobra.Command {
	var format string
	cmd := command("info [OPTIONS]", "Display system-wide information", noArgs, "system info, info",
		func(cmd *cobra.Command, _ []string) error {
			info, err := a.info(cmd)
			if err != nil {
				return err
			}
			if format != "" {
				return a.showOne(format, info)
			}
			return a.showInfo(info)
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

func (a *app) info(cmd *cobra.Command) (*hostInfo, error) {
	root, err := a.rootDir()
	if err != nil {
		return nil, err
	}
	info := &hostInfo{Rootless: rootless(), Identity: idmap.Inside(), Cgroup: cgroup.Probe(), Network: network.Probe()}
	info.Driver, info.DockerRootDir, info.ServerVersion, info.Debug = image.Driver, root, version.Module(), a.debug
	info.CgroupDriver, info.CgroupVersion = info.Cgroup.Driver, info.Cgroup.Version
	info.LoggingDriver, info.DefaultRuntime = "json-file", "lamina"
	info.Laminafs, err = beside.Find("laminafs", "lamina")
	if err != nil {
		info.Missing = append(info.Missing, err.Error())
	}
	if err := fuseUsable(); err != nil {
		info.Missing = append(info.Missing, err.Error())
	}
	info.Missing = append(info.Missing, info.Identity.Missing...)
	info.Missing = append(info.Missing, info.Cgroup.Missing...)
	info.Missing = append(info.Missing, info.Network.Missing...)
	info.SecurityOptions = []string{"name=seccomp,profile=builtin", "name=no-new-privileges"}
	if info.Rootless {
		info.SecurityOptions = append(info.SecurityOptions, "name=rootless")
	}
	info.aboutMachine()
	return info, a.countObjects(cmd, info)
}

// aboutMachine fills in what uname(2) and the like know.
func (i *hostInfo) aboutMachine() {
	b := thisBuild()
	i.OSType, i.Architecture = b.Os, b.Arch
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		i.KernelVersion, i.Name = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Nodename[:])
		i.Architecture = unix.ByteSliceToString(u.Machine[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		i.MemTotal = int64(s.Totalram) * int64(s.Unit)
	}
	var cpus unix.CPUSet
	if unix.SchedGetaffinity(0, &cpus) == nil {
		i.NCPU = cpus.Count()
	}
	text, _ := os.ReadFile("/etc/os-release") // may be missing
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			i.OperatingSystem = strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
}

func (a *app) countObjects(cmd *cobra.Command, i *hostInfo) error {
	containers, err := a.containers()
	if err != nil {
		return err
	}
	list, err := containers.List(cmd.Context(), container.ListOptions{All: true})
	if err != nil {
		return err
	}
	i.Containers = len(list)
	for _, c := range list {
		switch c.State {
		case "running":
			i.ContainersRunning++
		case "paused":
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
	images, err := a.images()
	if err != nil {
		return err
	}
	all, err := images.List(image.ListOptions{All: true})
	i.Images = len(all)
	return err
}

// fuseUsable says what keeps laminafs from mounting.
func fuseUsable() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case os.IsNotExist(err):
		return fmt.Errorf("/dev/fuse is missing; root can load the module with: modprobe fuse")
	case os.IsPermission(err):
		return fmt.Errorf("/dev/fuse may not be opened for reading and writing; root can allow it with: chmod 0666 /dev/fuse")
	}
	return fmt.Errorf("/dev/fuse cannot be used: %w", err)
}

// showInfo prints Docker's layout.
func (a *app) showInfo(i *hostInfo) error {
	var b strings.Builder
	line := func(indent int, name string, value any) {
		fmt.Fprintf(&b, "%s%s: %v\n", strings.Repeat(" ", indent), name, value)
	}
	line(0, "Containers", i.Containers)
	line(1, "Running", i.ContainersRunning)
	line(1, "Paused", i.ContainersPaused)
	line(1, "Stopped", i.ContainersStopped)
	line(0, "Images", i.Images)
	line(0, "Version", i.ServerVersion)
	line(0, "Storage Driver", i.Driver)
	line(1, "laminafs", orNone(i.Laminafs))
	line(0, "Logging Driver", i.LoggingDriver)
	line(0, "Cgroup Driver", i.CgroupDriver)
	line(0, "Cgroup Version", i.CgroupVersion)
	line(1, "Controllers", orNone(strings.Join(i.Cgroup.Controllers, " ")))
	line(0, "Network", i.Network.Default)
	line(1, "Tools", orNone(strings.Join(i.Network.Tools, " ")))
	b.WriteString("Security Options:\n")
	for _, o := range i.SecurityOptions {
		fmt.Fprintf(&b, " %s\n", strings.TrimPrefix(o, "name="))
	}
	line(0, "Identity", i.Identity.Kind)
	line(1, "User", fmt.Sprintf("%s (%d:%d)", i.Identity.User, i.Identity.UID, i.Identity.GID))
	for _, m := range i.Identity.UIDs {
		line(1, "UID map", fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	for _, m := range i.Identity.GIDs {
		line(1, "GID map", fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	line(0, "Kernel Version", i.KernelVersion)
	line(0, "Operating System", orNone(i.OperatingSystem))
	line(0, "OSType", i.OSType)
	line(0, "Architecture", i.Architecture)
	line(0, "CPUs", i.NCPU)
	line(0, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(0, "Name", i.Name)
	line(0, "Root Dir", i.DockerRootDir)
	line(0, "Debug Mode", i.Debug)
	if _, err := a.out.WriteString(b.String()); err != nil {
		return err
	}
	a.warn(i.Missing)
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
