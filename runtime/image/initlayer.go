package image

import (
	"fmt"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// initEntries is what every container has at the places that something is mounted on, and nothing of its image's.
// Source: moby daemon/initlayer/setup_unix.go, Setup.
var initEntries = []struct {
	dir, name string
	kind      uint32 // S_IFDIR, S_IFREG, S_IFLNK
	target    string
}{
	{"", "proc", unix.S_IFDIR, ""},
	{"", "sys", unix.S_IFDIR, ""},
	{"dev", "pts", unix.S_IFDIR, ""},
	{"dev", "shm", unix.S_IFDIR, ""},
	{"dev", "console", unix.S_IFREG, ""},
	{"etc", "resolv.conf", unix.S_IFREG, ""},
	{"etc", "hosts", unix.S_IFREG, ""},
	{"etc", "hostname", unix.S_IFREG, ""},
	{"etc", "mtab", unix.S_IFLNK, "/proc/mounts"},
}

// makeInitLayer fills the directory open as dir with what lies above the image's layers and below the container's
// own. lowers are the layers below, topmost first.
//
// Directories of the image keep their attributes, since the init layer's bear the same. Where the image has a
// directory, a directory is not made again, and no file is put in its place; a link or file gives way, as in Docker,
// where it would be followed out of the way of the mount. But where /etc or /dev itself is no directory, nothing is
// put there.
func makeInitLayer(dir int, lowers []string) error {
	root, err := openView(lowers)
	if err != nil {
		return err
	}
	defer root.close()
	if err := root.dress(dir); err != nil {
		return err
	}
	// Whoever makes it may have no power over a directory that its owner may not write to. The mode comes again at the end.
	if err := lendWrite(dir); err != nil {
		return err
	}
	var at, below = dir, root // of the directory at hand
	name := ""
	leave := func() error {
		if name == "" {
			return nil
		}
		defer below.close()
		defer sys.Close(at)
		return below.dress(at) // again: its times moved
	}
	for _, e := range initEntries {
		if e.dir != name {
			if err := leave(); err != nil {
				return err
			}
			name = e.dir
			below, err = root.lookup(name)
			if err != nil {
				return err
			}
			if at, err = enterInitDir(dir, name, below); err != nil {
				return err
			}
		}
		if below.file {
			continue
		}
		if err := makeInitEntry(sys.At{Dirfd: at, Name: e.name}, e.kind, e.target, below); err != nil {
			return fmt.Errorf("init layer: %s/%s: %w", e.dir, e.name, err)
		}
	}
	if err := leave(); err != nil {
		return err
	}
	return root.dress(dir)
}

// enterInitDir makes the directory of the init layer that lies over below. It is -1 where there is something else.
func enterInitDir(dir int, name string, below *view) (int, error) {
	if below.file {
		return -1, nil
	}
	a := sys.At{Dirfd: dir, Name: name}
	if err := makeDir(a); err != nil {
		return -1, fmt.Errorf("init layer: %s: %w", name, err)
	}
	return sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

// lendWrite lets its owner write to a directory.
func lendWrite(dir int) error {
	st, err := sys.Stat(sys.Fd(dir))
	if err != nil {
		return err
	}
	return sys.Chmod(sys.Fd(dir), st.Mode|0o700)
}

func makeDir(a sys.At) error {
	if err := sys.Mkdir(a, 0o755); err != nil {
		return err
	}
	return sys.Chmod(a, 0o755) // whatever the umask
}

func makeInitEntry(a sys.At, kind uint32, target string, below *view) error {
	there, err := below.lookup(a.Name)
	if err != nil {
		return err
	}
	defer there.close()
	if len(there.dirs) > 0 {
		return nil
	}
	switch kind {
	case unix.S_IFDIR:
		return makeDir(a)
	case unix.S_IFLNK:
		return sys.Symlink(target, a)
	}
	fd, err := sys.Open(a, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.Chmod(sys.Fd(fd), 0o755)
}

// view is one name as the union of some layers shows it: a directory (those that make it up, topmost first), some
// other file, or nothing.
type view struct {
	dirs []int
	file bool
}

// openView is the root of the union of directories, topmost first.
func openView(paths []string) (*view, error) {
	v := &view{}
	for _, path := range paths {
		fd, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: path + "/."}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			v.close()
			return nil, fmt.Errorf("open layer %s: %w", path, err)
		}
		v.dirs = append(v.dirs, fd)
		if opaque(fd) {
			break
		}
	}
	return v, nil
}

func (v *view) close() {
	for _, fd := range v.dirs {
		sys.Close(fd)
	}
}

// dress gives a directory the attributes of v, where that is one.
func (v *view) dress(dir int) error {
	if len(v.dirs) == 0 {
		return nil
	}
	return copyAttributes(sys.Fd(dir), sys.Fd(v.dirs[0]))
}

// lookup looks a name up in the directory v.
func (v *view) lookup(name string) (*view, error) {
	found := &view{}
	for _, dir := range v.dirs {
		a := sys.At{Dirfd: dir, Name: name}
		st, err := sys.Stat(a)
		switch {
		case err == unix.ENOENT && whiteout.HasFile(dir, name):
			return found, nil
		case err == unix.ENOENT:
			continue
		case err != nil:
			found.close()
			return nil, err
		case whiteout.IsDevice(st.Mode, st.Rdev):
			return found, nil
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			found.file = len(found.dirs) == 0
			return found, nil
		}
		fd, err := sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			found.close()
			return nil, err
		}
		found.dirs = append(found.dirs, fd)
		// A whiteout beside the directory hides what lies below it.
		if opaque(fd) || whiteout.HasFile(dir, name) {
			break
		}
	}
	return found, nil
}

// opaque reports whether nothing of lower layers shows through the directory.
func opaque(fd int) bool {
	if whiteout.HasOpaqueFile(fd) {
		return true
	}
	names, err := sys.XattrNames(sys.Fd(fd))
	if err != nil {
		return false
	}
	m, err := whiteout.ReadMarks(sys.Fd(fd), names)
	return err == nil && m.Opaque
}
