package sandbox

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is what the options of one mount of the specification mean.
type mountOptions struct {
	Set, Clear  uint64 // MOUNT_ATTR_*
	SB          []string
	Data        []string // for the filesystem: "key=value" or "flag"
	Propagation uint64   // MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; with MS_REC; 0 for none given
	Bind        bool
	Recursive   bool // rbind
	NonRecRO    bool // read-only for this mount and not for those below it
}

var attrOptions = map[string]struct{ set, clear uint64 }{
	"nosuid": {set: unix.MOUNT_ATTR_NOSUID}, "suid": {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev": {set: unix.MOUNT_ATTR_NODEV}, "dev": {clear: unix.MOUNT_ATTR_NODEV},
	"noexec": {set: unix.MOUNT_ATTR_NOEXEC}, "exec": {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime": {set: unix.MOUNT_ATTR_NODIRATIME}, "diratime": {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow": {set: unix.MOUNT_ATTR_NOSYMFOLLOW}, "symfollow": {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"noatime": {unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME}, "strictatime": {unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	"relatime": {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
}

var propagationOptions = map[string]uint64{
	"shared": unix.MS_SHARED, "slave": unix.MS_SLAVE, "private": unix.MS_PRIVATE, "unbindable": unix.MS_UNBINDABLE,
	"rshared": unix.MS_SHARED | unix.MS_REC, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"rprivate": unix.MS_PRIVATE | unix.MS_REC, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// parseMountOptions sorts the options. Of two that contradict each other the later one holds.
func parseMountOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		if p, ok := propagationOptions[opt]; ok {
			o.Propagation = p
			continue
		}
		if a, ok := attrOptions[opt]; ok {
			o.Set = o.Set&^(a.set|a.clear) | a.set
			o.Clear = o.Clear&^a.set | a.clear
			continue
		}
		switch opt {
		case "ro", "rro":
			o.Set |= unix.MOUNT_ATTR_RDONLY
		case "ro-non-recursive", "norro":
			o.Set |= unix.MOUNT_ATTR_RDONLY
			o.NonRecRO = true
		case "rw":
			// A bind stays as read-only as its source is: that cannot be lifted in a user namespace.
			o.Set &^= unix.MOUNT_ATTR_RDONLY
		case "bind":
			o.Bind = true
		case "rbind":
			o.Bind, o.Recursive = true, true
		case "sync", "dirsync", "lazytime", "mand":
			o.SB = append(o.SB, opt)
		case "defaults", "async", "nomand", "nolazytime", "norelatime", "nostrictatime", "atime", "newinstance", "remount", "":
			// What the kernel does anyway.
		default:
			o.Data = append(o.Data, opt)
		}
	}
	return o
}

// describe spells a mount for an error.
func describe(kind, source, target string, options []string) string {
	s := kind + " " + source + " on " + target
	if len(options) > 0 {
		s += " (" + strings.Join(options, ",") + ")"
	}
	return s
}
