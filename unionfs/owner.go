package unionfs

import (
	"fmt"
	"sync"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Owners and modes of upper objects are kept in their inodes where that is possible: as root, or as root of a user
// namespace with a range of ids. Else, and always with xattr_permissions, the inode belongs to the server's user and
// the attribute override_stat says what is shown. A device or other special file is then an empty regular file.

// prepareOwners finds out which it is.
func (fs *FS) prepareOwners(cfg *Config) error {
	fs.overrideAlways = cfg.XattrPermissions > 0
	switch {
	case fs.upper.override != "": // a tree goes on with the spelling it has
	case cfg.XattrPermissions == 1:
		fs.upper.override = override.Privileged
	case cfg.XattrPermissions == 2, !fs.canChown && !fs.noUserXattr:
		fs.upper.override = override.Containers
	}
	if fs.overrideAlways {
		if err := fs.markUpperRoot(); err != nil {
			return &ConfigError{"upperdir", cfg.Upper, fmt.Errorf("xattr_permissions=%d: %w", cfg.XattrPermissions, err)}
		}
	}
	return nil
}

// probeChown tries whether an object can be given to another user.
func (fs *FS) probeChown(at sys.At) bool { return fs.euid == 0 && sys.Chown(at, 1, 1) == nil }

// markUpperRoot gives the upper's root the attribute, by which everybody tells that the layer has it.
func (fs *FS) markUpperRoot() error {
	at := sys.Fd(fs.upperFd)
	if _, err := sys.Getxattr(at, fs.upper.override, nil); err == nil {
		return nil
	}
	l := fs.upper
	if len(fs.layers) > 1 {
		l = fs.layers[1] // the merged root looks like the lower's until somebody changes it
	}
	st, err := sys.Stat(sys.Fd(l.fd))
	if err == nil && l.override != "" {
		err = applyOverride(sys.Fd(l.fd), l.override, &st)
	}
	if err != nil {
		return err
	}
	return fs.writeOverride(at, override.Stat{UID: st.Uid, GID: st.Gid, Mode: st.Mode})
}

// plan decides how an object with the owner, st_mode and device number given is stored: with which of them in the
// inode, and with which override attribute, nil for none. ids are those of the layer.
func (fs *FS) plan(uid, gid, mode uint32, rdev uint64) (copyup.Meta, *override.Stat) {
	m := copyup.Meta{UID: uid, GID: gid, Mode: mode, Rdev: rdev}
	foreign := uid != fs.euid || gid != fs.egid
	if !fs.overrideAlways && (fs.canChown || !foreign) {
		return m, nil
	}
	m.UID, m.GID = fs.euid, fs.egid
	o := &override.Stat{UID: uid, GID: gid, Mode: mode, Rdev: rdev}
	m.Mode = realMode(mode)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		m.Mode = mode // bears no user attribute: where the inode cannot have the owner either, it is lost
		if fs.canChown {
			m.UID, m.GID = uid, gid
		}
		return m, nil
	default:
		m.Rdev = 0
	}
	if fs.upper.override == "" {
		return m, nil // no extended attributes either: said at mount
	}
	return m, o
}

// realMode is the st_mode of the inode behind an object whose own mode is in the attribute: a directory or a regular
// file that the server can work with.
func realMode(mode uint32) uint32 {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.S_IFDIR | mode&0o777 | 0o700
	}
	return unix.S_IFREG | mode&0o777 | 0o600
}

// readOverride reads the attribute of an upper object.
func (fs *FS) readOverride(at sys.At) (override.Stat, bool) {
	if fs.upper.override == "" {
		return override.Stat{}, false
	}
	v, err := sys.XattrValue(at, fs.upper.override)
	if err != nil {
		return override.Stat{}, false
	}
	o, err := override.Parse(string(v))
	return o, err == nil
}

// overrideLocks keep others from an override attribute while it is read, changed and written back. Nodes share them.
type overrideLocks struct {
	nodes [64]sync.Mutex

	rootMu sync.Mutex
	root   bool // the upper's root has the attribute
}

func (l *overrideLocks) lock(n *node) (unlock func()) {
	mu := &l.nodes[n.id%uint64(len(l.nodes))]
	mu.Lock()
	return mu.Unlock
}

// markRootOnce sees that the upper's root has the attribute. What fails is tried again the next time.
func (fs *FS) markRootOnce() error {
	fs.overrides.rootMu.Lock()
	defer fs.overrides.rootMu.Unlock()
	if fs.overrides.root {
		return nil
	}
	err := fs.markUpperRoot()
	fs.overrides.root = err == nil
	return err
}

// writeOverride writes the attribute to an upper object, and sees that the root has one.
func (fs *FS) writeOverride(at sys.At, o override.Stat) error {
	if at.Dirfd != fs.upperFd {
		if err := fs.markRootOnce(); err != nil {
			return err
		}
	}
	return sys.Setxattr(at, fs.upper.override, []byte(o.String()), 0)
}
