package container

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What a container has by default, as Docker 28 (oci/defaults.go, oci/caps).

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths are seen as empty: what they tell of the machine, or let do to it, is nothing for a container.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
	"/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// ttyGroup is the group "tty" of nearly all distributions: terminals belong to it.
const ttyGroup = 5

// defaultMounts are those of every container. sysfs may be mounted by who owns the network namespace only; the others
// get the machine's. Without a mapped group tty a terminal belongs to the group of who opens it.
func defaultMounts(in *specInput) []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if in.TTYGroup {
		pts = append(pts, "gid=5")
	}
	sys := specs.Mount{
		Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"},
	}
	if in.BindSys {
		sys.Type, sys.Source = "bind", "/sys"
		sys.Options = append([]string{"rbind", "rprivate"}, sys.Options...)
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		sys,
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	switch h := in.Record.HostConfig; {
	case h.IpcMode.IsHost():
		mounts = append(mounts, specs.Mount{
			Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"},
		})
	case !h.IpcMode.IsNone():
		mounts = append(mounts, specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", sizeOption(h.ShmSize)},
		})
	}
	if in.Record.HostConfig.Privileged {
		for i := range mounts {
			mounts[i].Options = slices.DeleteFunc(mounts[i].Options, func(o string) bool { return o == "ro" })
		}
	}
	return mounts
}

// defaultDevices are the rules of the devices cgroup: nodes may be made of any, and opened of these.
func defaultDevices() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	allow := func(typ string, major, minor int64, access string) {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: typ, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		rules = append(rules, r)
	}
	allow("c", -1, -1, "m")
	allow("b", -1, -1, "m")
	allow("c", 1, 3, "rwm")    // null
	allow("c", 1, 5, "rwm")    // zero
	allow("c", 1, 7, "rwm")    // full
	allow("c", 1, 8, "rwm")    // random
	allow("c", 1, 9, "rwm")    // urandom
	allow("c", 5, 0, "rwm")    // tty
	allow("c", 5, 1, "rwm")    // console
	allow("c", 5, 2, "rwm")    // ptmx
	allow("c", 136, -1, "rwm") // pts/*
	return rules
}
