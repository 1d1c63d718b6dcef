package unionfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// layer is one directory tree of the union. Layer 0 is the upper; it has an index but no layer in a read-only union.
type layer struct {
	index  int
	path   string // as given, for messages; never used to reach anything
	fd     int    // O_PATH
	device int    // number of its filesystem among those of the mount, from the top
	dev    uint64 // st_dev
	root   *dir

	// private says that the layer is a mount of our own: nothing is mounted in it.
	private bool

	// override is the attribute that holds the owner and mode of this layer's objects, "" where the inodes do.
	override string
}

// openLayer opens a lower. Where we may, the layer becomes a private mount of its own, read-only and without what
// is mounted below it, so that nothing we do could change it (open_tree(2), mount_setattr(2)).
func openLayer(option, path string) (*layer, error) {
	fail := func(err error) (*layer, error) { return nil, &ConfigError{option, path, err} }
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	if err := readable(fd); err != nil {
		sys.Close(fd)
		return fail(err)
	}
	private := false
	if mount, err := privateMount(fd); err == nil {
		sys.Close(fd)
		fd, private = mount, true
	}
	l := &layer{path: path, fd: fd, private: private}
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		sys.Close(fd)
		return fail(err)
	}
	l.dev = st.Dev
	return l, nil
}

// readable checks that the directory can be listed, which an O_PATH descriptor does not tell.
func readable(fd int) error {
	list, err := reopen(fd, unix.O_RDONLY)
	sys.Close(list)
	return err
}

// privateMount clones the mount that fd lies in, from fd on and without submounts, and makes the clone read-only.
// It takes CAP_SYS_ADMIN, and fails where a submount is locked to its parent; then the directory is used as it is.
func privateMount(fd int) (int, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, err
	}
	// No device is to be opened there, and what is mounted in the layer later stays out of it.
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NODEV, Attr_clr: unix.MOUNT_ATTR__ATIME,
		Propagation: unix.MS_PRIVATE,
	}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		sys.Close(clone)
		return -1, err
	}
	return clone, nil
}

// openUpper opens the upper. It stays in the mount it is in: rename(2) does not cross mounts, and the work
// directory must be on the same one.
func openUpper(path string) (*layer, error) {
	fail := func(err error) (*layer, error) { return nil, &ConfigError{"upperdir", path, err} }
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	l := &layer{path: path, fd: fd}
	st, err := sys.Stat(sys.Fd(fd))
	if err == nil {
		err = readable(fd)
	}
	if err == nil {
		err = unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		sys.Close(fd)
		return fail(err)
	}
	l.dev = st.Dev
	return l, nil
}

// open opens all layers and numbers their devices.
func (fs *FS) openLayers(cfg *Config) error {
	if len(cfg.Lowers) == 0 {
		return &ConfigError{Option: "lowerdir", Err: errors.New("not given")}
	}
	fs.layers = []*layer{nil}
	if cfg.Upper != "" {
		l, err := openUpper(cfg.Upper)
		if err != nil {
			return err
		}
		fs.upper, fs.layers[0] = l, l
	}
	for _, path := range cfg.Lowers {
		l, err := openLayer("lowerdir", path)
		if err != nil {
			return err
		}
		l.index = len(fs.layers)
		fs.layers = append(fs.layers, l)
	}
	for _, l := range fs.layers {
		if l == nil {
			continue
		}
		l.device = fs.deviceNumber(l.dev)
		l.root = &dir{layer: l}
		l.override = detectOverride(l)
	}
	return nil
}

func (fs *FS) deviceNumber(dev uint64) int {
	for i, d := range fs.devices {
		if d == dev {
			return i
		}
	}
	fs.devices = append(fs.devices, dev)
	return len(fs.devices) - 1
}

// detectOverride finds the attribute in which the layer keeps owners and modes: its root then has one.
func detectOverride(l *layer) string {
	for _, attr := range override.Names {
		if _, err := sys.Getxattr(sys.Fd(l.fd), attr, nil); err == nil {
			return attr
		}
	}
	return ""
}

// checkUpper checks how the upper lies to the work directory and the lowers. Layers are compared by what they are,
// not by what they are called. Upper and work directory may lie in a lower: lowerdir=/ has everything in it.
func (fs *FS) checkUpper(cfg *Config) error {
	same := func(a, b string) bool {
		sa, errA := os.Stat(a)
		sb, errB := os.Stat(b)
		return errA == nil && errB == nil && os.SameFile(sa, sb)
	}
	if same(cfg.Upper, cfg.Work) {
		return &ConfigError{"workdir", cfg.Work, errors.New("is the upperdir itself")}
	}
	if inside(cfg.Upper, cfg.Work) {
		return &ConfigError{"upperdir", cfg.Upper, fmt.Errorf("lies inside workdir=%s", cfg.Work)}
	}
	if inside(cfg.Work, cfg.Upper) {
		return &ConfigError{"workdir", cfg.Work, fmt.Errorf("lies inside upperdir=%s", cfg.Upper)}
	}
	for _, lower := range cfg.Lowers {
		switch {
		case same(cfg.Upper, lower):
			return &ConfigError{"upperdir", cfg.Upper, errors.New("is also a lowerdir")}
		case same(cfg.Work, lower):
			return &ConfigError{"workdir", cfg.Work, errors.New("is also a lowerdir")}
		case inside(lower, cfg.Upper):
			return &ConfigError{"lowerdir", lower, fmt.Errorf("lies inside upperdir=%s", cfg.Upper)}
		case inside(lower, cfg.Work):
			return &ConfigError{"lowerdir", lower, fmt.Errorf("lies inside workdir=%s", cfg.Work)}
		}
	}
	return nil
}

// inside reports whether the directory path is below dir.
func inside(path, dir string) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	top, err := os.Stat(dir)
	if err != nil {
		return false
	}
	for path != "/" {
		path = filepath.Dir(path)
		if st, err := os.Stat(path); err == nil && os.SameFile(st, top) {
			return true
		}
	}
	return false
}

// probeUpper finds out, by trying in the staging directory, what the upper's filesystem can do, and says once what
// is lost.
func (fs *FS) probeUpper(cfg *Config) error {
	tmp := fs.stage.Temp()
	err := sys.Mknod(tmp, unix.S_IFREG|0o600, 0)
	if sys.NoRoom(err) {
		// It is by what is deleted in this mount that there will be room again, and the mount before has tried all.
		fs.log.Printf("upperdir=%s: %v: mounted without trying what its filesystem can do", cfg.Upper, err)
		if _, err := sys.Getxattr(fs.lockFile(), "user.lamina.probe", nil); errors.Is(err, unix.ENOTSUP) {
			fs.withoutXattrs(cfg, err)
		}
		fs.canChown = fs.probeChown(fs.lockFile())
		_ = sys.Chown(fs.lockFile(), int(fs.euid), int(fs.egid)) // what was possible one way is the other
		return nil
	}
	if err != nil {
		return &ConfigError{"workdir", cfg.Work, fmt.Errorf("cannot make a file in it: %w", err)}
	}
	defer fs.stage.Discard(tmp)
	if err := sys.Setxattr(tmp, "user.lamina.probe", []byte("1"), 0); err != nil && !sys.NoRoom(err) {
		fs.withoutXattrs(cfg, err)
	}
	fs.canChown = fs.probeChown(tmp)
	var typ uint8
	err = fs.listStaging(func(e sys.Dirent) {
		if e.Name == tmp.Name {
			typ = e.Type
		}
	})
	if err != nil {
		return &ConfigError{"workdir", cfg.Work, err}
	}
	if typ == unix.DT_UNKNOWN {
		fs.log.Printf("upperdir=%s: the filesystem gives no d_type: listings take a system call for every name", cfg.Upper)
	}
	if fs.format == whiteout.Overlay {
		return fs.probeOverlayFormat(cfg, tmp)
	}
	return fs.probeFiles(cfg)
}

// withoutXattrs notes that the upper's filesystem keeps no user attributes, and says what is lost.
func (fs *FS) withoutXattrs(cfg *Config, err error) {
	fs.log.Printf("upperdir=%s: no user extended attributes (%v): inode numbers of copied-up files are kept "+
		"in workdir, moved directories are copied", cfg.Upper, err)
	fs.noUserXattr = true
	fs.redirect = false
}

// lockFile is the one file that is in the work directory at any time.
func (fs *FS) lockFile() sys.At { return sys.At{Dirfd: fs.work.fd, Name: "lock"} }

// probeFiles checks that .wh. files can be made here: another union filesystem does not let us.
func (fs *FS) probeFiles(cfg *Config) error {
	const name = "probe"
	if err := whiteout.MakeFile(fs.work.staging, name); err != nil {
		return &ConfigError{"upperdir", cfg.Upper, fmt.Errorf("a whiteout cannot be made: %w", err)}
	}
	return whiteout.RemoveFile(fs.work.staging, name)
}

// probeOverlayFormat checks that kernel whiteouts can be made here, and renames leave them.
func (fs *FS) probeOverlayFormat(cfg *Config, tmp sys.At) error {
	dst := fs.stage.Temp()
	err := sys.Rename(tmp, dst, unix.RENAME_WHITEOUT)
	fs.stage.Discard(dst)
	if err == nil {
		// Another union filesystem makes none: to it a whiteout is a name that is not there.
		var st unix.Stat_t
		if st, err = sys.Stat(tmp); err == nil && !whiteout.IsDevice(st.Mode, st.Rdev) {
			err = unix.EINVAL
		}
	}
	if err != nil {
		return &ConfigError{"whiteout", "overlay", fmt.Errorf("upperdir=%s: rename with RENAME_WHITEOUT: %w", cfg.Upper, err)}
	}
	return nil
}

func (fs *FS) listStaging(fn func(sys.Dirent)) error {
	fd, err := reopen(fs.work.staging, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.ReadDir(fd, fn)
}
