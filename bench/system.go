package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The systems that show layers as one tree.
const (
	Plain         = "plain" // a directory that holds what the union would show
	Overlay       = "overlay"
	FuseOverlayfs = "fuse-overlayfs"
	UnionfsFuse   = "unionfs-fuse"
	Laminafs      = "laminafs"
)

// The systems that start containers or unpack images.
const (
	Lamina = "lamina"
	Podman = "podman"
	Runc   = "runc"  // in a mount of laminafs, made and unmounted for each container
	Bwrap  = "bwrap" // on the bare directory
	Tar    = "tar"
)

// Unions and Launchers are all systems, in the order of reports.
var (
	Unions    = []string{Plain, Overlay, FuseOverlayfs, UnionfsFuse, Laminafs}
	Launchers = []string{Lamina, Podman, Runc, Bwrap, Tar}
)

// A System is somebody who is measured.
type System struct {
	Name string // with its options

	mount func(m *Mount) error // nil for launchers
}

// union reports whether it is mounted.
func (s System) union() bool { return s.mount != nil }

// NewSystem finds the system with the name, which for laminafs may have options: "laminafs:transport=loop+noacl". bin is
// the directory of our own programs.
func NewSystem(name, bin string) (System, error) {
	family, options, some := strings.Cut(name, ":")
	if some && (family != Laminafs || options == "") {
		return System{}, fmt.Errorf("system %q: only %s has options, as in %s:transport=loop+noacl", name, Laminafs, Laminafs)
	}
	s := System{Name: name}
	switch family {
	case Plain:
		s.mount = func(*Mount) error { return nil }
	case Overlay:
		s.mount = mountOverlay
	case FuseOverlayfs:
		s.mount = func(m *Mount) error { return m.serveLayers(FuseOverlayfs) }
	case UnionfsFuse:
		s.mount = mountUnionfs
	case Laminafs:
		var opts []string
		if some {
			opts = strings.Split(options, "+")
		}
		s.mount = func(m *Mount) error {
			if err := m.serveLayers(filepath.Join(bin, Laminafs), opts...); err != nil {
				return err
			}
			return m.understood()
		}
	default:
		if !slices.Contains(Launchers, family) {
			return s, fmt.Errorf("there is no system %q: there are %s", name, strings.Join(append(slices.Clone(Unions), Launchers...), ", "))
		}
	}
	return s, nil
}

// Present mounts a union over a small layer in the directory scratch, and looks at what it shows.
//
// Errors: say why it cannot be had here.
func (s System) Present(scratch string) (err error) {
	if !s.union() || s.Name == Plain {
		return nil
	}
	dir, err := os.MkdirTemp(scratch, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lower := filepath.Join(dir, "lower")
	if err := os.Mkdir(lower, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(lower, "name"), []byte("content"), 0o644); err != nil {
		return err
	}
	m, err := s.Mount(filepath.Join(dir, "mount"), &Layers{Lowers: []string{lower}, Plain: lower})
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(m.Dir, "name"))
	if err == nil && string(text) != "content" {
		err = fmt.Errorf("a file of the lower has the content %q", text)
	}
	if err == nil && strings.HasPrefix(s.Name, Laminafs) {
		err = m.understood() // some options are tried by the first that opens a file
	}
	return errors.Join(err, m.Unmount())
}

// mountOverlay mounts the kernel's overlay, by fsopen(2): mount(2) takes a page of options, which 500 layers exceed.
func mountOverlay(m *Mount) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	params := [][2]string{{"source", "overlay"}, {"upperdir", m.upper}, {"workdir", m.work}, {"xino", "on"}}
	if !inUserNamespace() {
		params = append(params, [2]string{"redirect_dir", "on"}, [2]string{"index", "on"})
	}
	for _, dir := range m.layers.Lowers {
		params = append(params, [2]string{"lowerdir+", dir})
	}
	if inUserNamespace() {
		// Marks in user.overlay.*, without which a directory could not even be made opaque there.
		if err := unix.FsconfigSetFlag(fs, "userxattr"); err != nil {
			return fmt.Errorf("overlay option userxattr: %w", err)
		}
	}
	for _, p := range params {
		if err := unix.FsconfigSetString(fs, p[0], p[1]); err != nil {
			return fmt.Errorf("overlay option %s=%s: %w", p[0], p[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create overlay: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount overlay: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, m.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount overlay: %w", err)
	}
	m.mounted = true
	return nil
}

// serveLayers runs laminafs, or fuse-overlayfs, which takes the same options.
func (m *Mount) serveLayers(program string, opts ...string) error {
	opts = append(slices.Clone(opts), "lowerdir="+strings.Join(m.layers.Lowers, ":"), "upperdir="+m.upper, "workdir="+m.work)
	return m.serve(program, "-f", "-o", strings.Join(opts, ","), m.Dir)
}

// without are the beginnings of what laminafs says about options that it does without.
var without = []string{"unknown option", "no FUSE over io_uring", "passthrough: not possible"}

// understood is an error where an option of laminafs has no effect, because it is unknown or the kernel does not offer that: as
// fuse-overlayfs it warns and goes on, and what was measured would bear the name of something else.
func (m *Mount) understood() error {
	text, err := os.ReadFile(m.log.Name())
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if slices.ContainsFunc(without, func(text string) bool { return strings.Contains(line, text) }) {
			return errors.New(strings.TrimSpace(line))
		}
	}
	return nil
}

// mountUnionfs runs unionfs-fuse, copying up on write as the others do. Its whiteouts are files in the upper, which it
// hides when it is told to.
func mountUnionfs(m *Mount) error {
	branches := m.upper + "=RW"
	for _, dir := range m.layers.Lowers {
		branches += ":" + dir + "=RO"
	}
	path, err := exec.LookPath(UnionfsFuse)
	if err != nil {
		return err
	}
	return m.serve(path, "-f", "-o", "cow,hide_meta_files,use_ino,suid,dev", branches, m.Dir)
}
