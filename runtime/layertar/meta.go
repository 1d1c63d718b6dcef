package layertar

import (
	"archive/tar"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// meta is what an object has besides its data.
type meta struct {
	mode         uint32 // full st_mode
	uid, gid     uint32
	rdev         uint64
	atime, mtime unix.Timespec
	xattrs       []xattr // by name
}

type xattr struct {
	name  string // as it is shown in the merged tree
	value string
}

const (
	paxXattr = "SCHILY.xattr." // begins the PAX records that hold extended attributes

	capability = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	// selinux is the label a file had on the machine the layer was made on. It means nothing on another, and where
	// SELinux is used the container gets a label of its own.
	selinux = "security.selinux"
)

// noID is what chown(2) takes for "leave it"; no object can belong to it.
const noID = 1<<32 - 1

var types = map[byte]uint32{
	tar.TypeReg: unix.S_IFREG, tar.TypeCont: unix.S_IFREG, tar.TypeGNUSparse: unix.S_IFREG,
	tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK, tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR,
	tar.TypeBlock: unix.S_IFBLK,
}

// metaOf reads an entry's header. Errors: ErrInvalid.
func metaOf(h *tar.Header) (meta, error) {
	var m meta
	typ, known := types[h.Typeflag]
	if !known {
		return m, invalid("unknown type %q", h.Typeflag)
	}
	m.mode = typ | uint32(h.Mode)&0o7777
	if h.Uid < 0 || h.Uid >= noID || h.Gid < 0 || h.Gid >= noID {
		return m, invalid("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	m.uid, m.gid = uint32(h.Uid), uint32(h.Gid)
	if typ == unix.S_IFCHR || typ == unix.S_IFBLK {
		// 12 and 20 bits are what Linux has for them: mknod(2) would cut off the rest, and make another device.
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return m, invalid("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		m.rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	m.mtime = timespec(h.ModTime)
	m.atime = m.mtime
	if !h.AccessTime.IsZero() {
		m.atime = timespec(h.AccessTime)
	}
	for key, value := range h.PAXRecords {
		if name, is := strings.CutPrefix(key, paxXattr); is && name != "" && name != selinux {
			m.xattrs = append(m.xattrs, xattr{name, value})
		}
	}
	slices.SortFunc(m.xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return m, nil
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// isType reports whether the mode is of the type.
func (m *meta) isType(typ uint32) bool { return m.mode&unix.S_IFMT == typ }

// standIn is the st_mode of the inode of an object whose own owner, mode and type are in the override attribute: a
// directory or a regular file that the caller can work with.
func (m *meta) standIn() uint32 {
	switch m.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.S_IFDIR | m.mode&0o777 | 0o700
	case unix.S_IFLNK:
		return m.mode
	}
	return unix.S_IFREG | m.mode&0o777 | 0o600
}

// setOwner gives the object its owner, in the inode or in the override attribute, and returns the st_mode that the
// inode is to get. Times are the caller's matter.
func (u *unpacker) setOwner(at sys.At, m *meta) (inode uint32, err error) {
	if u.o.Owners == Real {
		err := sys.Chown(at, int(m.uid), int(m.gid))
		if err == nil {
			return m.mode, nil
		}
		// EPERM: not ours to give away. EINVAL: the id is not mapped in this user namespace (user_namespaces(7)).
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("set owner %d:%d: %w", m.uid, m.gid, err)
		}
	}
	return m.standIn(), u.setOverride(at, m)
}

// setOverride records the object's owner, mode and type in the attribute. A symbolic link cannot bear it.
func (u *unpacker) setOverride(at sys.At, m *meta) error {
	if m.isType(unix.S_IFLNK) {
		if m.uid != u.euid || m.gid != u.egid {
			u.warn(fmt.Errorf("owner %d:%d of a symbolic link cannot be kept without the right to set it", m.uid, m.gid))
		}
		return nil
	}
	s := override.Stat{UID: m.uid, GID: m.gid, Mode: m.mode, Rdev: m.rdev}
	if err := sys.Setxattr(at, override.Containers, []byte(s.String()), 0); err != nil {
		return fmt.Errorf("record owner %d:%d in %s: %w", m.uid, m.gid, override.Containers, err)
	}
	u.overrides = true
	return nil
}

// setXattrs sets the extended attributes that are in m and not in but.
func (u *unpacker) setXattrs(at sys.At, m *meta, but ...string) error {
	for _, x := range m.xattrs {
		if slices.Contains(but, x.name) {
			continue
		}
		stored, err := whiteout.Stored(x.name)
		if err != nil {
			u.warn(fmt.Errorf("extended attribute %s is a union filesystem's own, and is not kept", x.name))
			continue
		}
		err = sys.Setxattr(at, stored, []byte(x.value), 0)
		switch {
		case err == nil:
		case optional(m, x.name, err):
			u.warn(fmt.Errorf("extended attribute %s is not kept: %w", x.name, err))
		default:
			return fmt.Errorf("set extended attribute %s: %w", x.name, err)
		}
	}
	return nil
}

// optional reports whether an object can do without the attribute, given why it cannot be set.
//
// User attributes are data; an ACL left out changes who has access. All others belong to some kernel facility, which may
// not be there or not be ours; a capability left out takes rights away and grants none. Only regular files and
// directories bear user attributes at all (xattr(7)).
func optional(m *meta, name string, err error) bool {
	if name == aclAccess || name == aclDefault {
		return false
	}
	if strings.HasPrefix(name, "user.") && (m.isType(unix.S_IFREG) || m.isType(unix.S_IFDIR)) {
		return false
	}
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

// clearXattrs takes from a directory what an earlier entry of the same name gave it.
func clearXattrs(at sys.At) error {
	names, err := sys.XattrNames(at)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == selinux {
			continue
		}
		err := sys.Removexattr(at, name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("remove extended attribute %s: %w", name, err)
		}
	}
	return nil
}
