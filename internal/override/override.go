// Package override reads and writes the extended attribute in which a layer keeps an owner, mode and type that
// its filesystem could not hold for want of privilege: user.containers.override_stat and its older spellings.
//
// Value: UID:GID:MODE[:TYPE], decimal ids, octal permission bits, TYPE one of file, dir, symlink, pipe, socket,
// block-MAJOR-MINOR, char-MAJOR-MINOR. fuse-overlayfs writes the whole st_mode and no type; containers/storage
// writes the type.
//
// Sources: containers/storage docs "override_stat"; fuse-overlayfs(1), xattr_permissions.
package override

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The attribute's spellings.
const (
	Containers = "user.containers.override_stat"
	User       = "user.fuseoverlayfs.override_stat"     // fuse-overlayfs, xattr_permissions=2
	Privileged = "security.fuseoverlayfs.override_stat" // fuse-overlayfs, xattr_permissions=1
)

// Names lists the spellings in the order in which they are looked for.
var Names = []string{Privileged, User, Containers}

// Stat is what the attribute says.
type Stat struct {
	UID, GID uint32
	Mode     uint32 // permission bits, and the S_IFMT bits where a type was given; else those are 0
	Rdev     uint64 // of a device
}

var types = map[string]uint32{
	"file": unix.S_IFREG, "dir": unix.S_IFDIR, "symlink": unix.S_IFLNK, "pipe": unix.S_IFIFO, "socket": unix.S_IFSOCK,
}

// known reports whether typ is a type of file, or none.
func known(typ uint32) bool {
	switch typ {
	case 0, unix.S_IFBLK, unix.S_IFCHR:
		return true
	}
	for _, t := range types {
		if t == typ {
			return true
		}
	}
	return false
}

// Parse reads a value, which comes from an untrusted layer. Errors: EINVAL.
func Parse(v string) (Stat, error) {
	var s Stat
	bad := fmt.Errorf("override_stat %q is not UID:GID:MODE[:TYPE]: %w", v, unix.EINVAL)
	parts := strings.SplitN(strings.TrimRight(v, "\x00"), ":", 4)
	if len(parts) < 3 {
		return s, bad
	}
	uid, err1 := strconv.ParseUint(parts[0], 10, 32)
	gid, err2 := strconv.ParseUint(parts[1], 10, 32)
	mode, err3 := strconv.ParseUint(parts[2], 8, 32)
	if err1 != nil || err2 != nil || err3 != nil || mode&^0o177777 != 0 {
		return s, bad
	}
	s.UID, s.GID, s.Mode = uint32(uid), uint32(gid), uint32(mode)
	if len(parts) == 3 || parts[3] == "" {
		if !known(s.Mode & unix.S_IFMT) {
			return Stat{}, bad
		}
		return s, nil
	}
	s.Mode &= 0o7777
	if t, ok := types[parts[3]]; ok {
		s.Mode |= t
		return s, nil
	}
	dev := strings.Split(parts[3], "-")
	if len(dev) != 3 {
		return s, bad
	}
	major, err1 := strconv.ParseUint(dev[1], 10, 32)
	minor, err2 := strconv.ParseUint(dev[2], 10, 32)
	if err1 != nil || err2 != nil {
		return s, bad
	}
	switch dev[0] {
	case "block":
		s.Mode |= unix.S_IFBLK
	case "char":
		s.Mode |= unix.S_IFCHR
	default:
		return s, bad
	}
	s.Rdev = unix.Mkdev(uint32(major), uint32(minor))
	return s, nil
}

// String formats s as containers/storage does. The type is left out where the mode has none.
func (s Stat) String() string {
	v := fmt.Sprintf("%d:%d:0%o", s.UID, s.GID, s.Mode&0o7777)
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		v += ":file"
	case unix.S_IFDIR:
		v += ":dir"
	case unix.S_IFLNK:
		v += ":symlink"
	case unix.S_IFIFO:
		v += ":pipe"
	case unix.S_IFSOCK:
		v += ":socket"
	case unix.S_IFBLK:
		v += fmt.Sprintf(":block-%d-%d", unix.Major(s.Rdev), unix.Minor(s.Rdev))
	case unix.S_IFCHR:
		v += fmt.Sprintf(":char-%d-%d", unix.Major(s.Rdev), unix.Minor(s.Rdev))
	}
	return v
}
