package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A detached is a mount that is made and not attached yet, with what goes below it.
type detached struct {
	fd    int
	below []below
}

type below struct {
	dir    string // below the mount's root
	fd     int    // of a detached mount; -1: the link
	target string // of a symbolic link
}

// prepareMounts makes the filesystems of the container while the machine's own are still there: procfs and sysfs
// are given to a user namespace only if it sees one already that is not covered anywhere (kernel,
// fs/namespace.c mount_too_revealing). cgroup says which of the two kinds: those depend on the cgroup namespace.
func (in *initProcess) prepareMounts(cgroup bool) (map[int]detached, error) {
	prepared := map[int]detached{}
	for i := range in.config.Mounts {
		m := &in.config.Mounts[i]
		isCgroup := m.Type == "cgroup" || m.Type == "cgroup2"
		if m.Type == "" || isCgroup != cgroup {
			continue
		}
		d, err := in.prepare(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Text, err)
		}
		if m.Type == "proc" && in.proc < 0 {
			if in.proc, err = unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
				return nil, err
			}
		}
		prepared[i] = d
	}
	return prepared, nil
}

func (in *initProcess) prepare(m *mountPlan) (detached, error) {
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		return in.prepareCgroup(m)
	}
	fd, err := newFilesystem(m.Type, m.Source, m.Options)
	if err == unix.EPERM && m.Type == "proc" {
		err = fmt.Errorf("%w (this process's own /proc is covered in part, as it is inside of another container: start that one with all of /proc visible)", err)
	}
	return detached{fd: fd}, err
}

// newFilesystem makes a detached mount of a filesystem (fsopen(2), fsmount(2)).
func newFilesystem(kind, source string, o mountOptions) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer sys.Close(fs)
	if source != "" {
		// Not every filesystem has a source; it is a name in mountinfo, no more.
		_ = unix.FsconfigSetString(fs, "source", source)
	}
	for _, flag := range o.SB {
		if err := unix.FsconfigSetFlag(fs, flag); err != nil {
			return -1, fsError(fs, flag, err)
		}
	}
	for _, d := range o.Data {
		key, value, hasValue := strings.Cut(d, "=")
		if hasValue {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, fsError(fs, d, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.Set))
	if err != nil {
		return -1, fsError(fs, "", err)
	}
	return fd, nil
}

// fsError adds what the kernel has to say about it, which it keeps with the descriptor.
func fsError(fs int, option string, err error) error {
	said := make([]byte, 512)
	n, readErr := unix.Read(fs, said)
	text := ""
	if readErr == nil && n > 2 {
		text = strings.TrimSpace(string(said[2:n])) // "e " for an error
	}
	switch {
	case text != "":
		return fmt.Errorf("%w (%s)", err, text)
	case option != "":
		return fmt.Errorf("option %q: %w", option, err)
	}
	return err
}

// attach puts the detached mount fd on target, both by descriptor.
func attach(fd, target int) error {
	return unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// attachMounts puts everything in its place, in the order of the specification.
func (in *initProcess) attachMounts(prepared map[int]detached) error {
	for i := range in.config.Mounts {
		m := &in.config.Mounts[i]
		d, ok := prepared[i]
		if !ok {
			d.fd = m.Fd
		}
		if err := in.attachMount(m, d); err != nil {
			return fmt.Errorf("%s: %w", m.Text, err)
		}
	}
	return nil
}

func (in *initProcess) attachMount(m *mountPlan, d detached) error {
	target, err := in.root.ensure(m.Target, m.IsDir)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	defer sys.Close(target)
	late := false // attributes that this kernel sets on attached mounts only
	if m.Type == "" {
		if late, err = bindAttributes(m, d.fd); err != nil {
			return err
		}
	}
	if err := in.cover(d.fd, target, m.Target); err != nil {
		return err
	}
	if late {
		if err := remountBind(d.fd, m.Options, in.proc); err != nil {
			return err
		}
	}
	for _, b := range d.below {
		if err := in.attachBelow(d.fd, b); err != nil {
			return fmt.Errorf("%s: %w", b.dir, err)
		}
	}
	if len(d.below) > 0 && m.Options.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := setReadonly(d.fd, false, in.proc); err != nil {
			return err
		}
	}
	sys.Close(d.fd)
	return in.setPropagation(m)
}

func (in *initProcess) attachBelow(top int, b below) error {
	at := sys.At{Dirfd: top, Name: b.dir}
	if b.fd < 0 {
		return sys.Symlink(b.target, at)
	}
	if err := sys.Mkdir(at, 0o755); err != nil {
		return err
	}
	fd, err := sys.Open(at, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	defer sys.Close(b.fd)
	return attach(b.fd, fd)
}

// bindAttributes sets a bind's attributes before anyone can reach it; late says that the kernel cannot (before
// 5.12). A read-only bind is so with all that is mounted below it, if that is not asked to be otherwise.
func bindAttributes(m *mountPlan, fd int) (late bool, err error) {
	o := m.Options
	attr := unix.MountAttr{Attr_set: o.Set, Attr_clr: o.Clear}
	if attr == (unix.MountAttr{}) {
		return false, nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if o.Recursive && o.Set&unix.MOUNT_ATTR_RDONLY != 0 && !o.NonRecRO {
		rec := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := mountSetattr(fd, flags|unix.AT_RECURSIVE, &rec); errors.Is(err, unix.ENOSYS) {
			return true, nil
		} else if err != nil {
			return false, fmt.Errorf("mount_setattr: %w", err)
		}
	}
	err = mountSetattr(fd, flags, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("mount_setattr: %w", err)
	}
	return false, nil
}

// mountSetattr is replaced by tests that play an old kernel.
var mountSetattr = func(fd int, flags uint, attr *unix.MountAttr) error {
	return unix.MountSetattr(fd, "", flags, attr)
}

// setReadonly makes the mount whose root fd is read-only.
func setReadonly(fd int, recursive bool, proc int) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := mountSetattr(fd, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if errors.Is(err, unix.ENOSYS) {
		return remountBind(fd, mountOptions{Set: unix.MOUNT_ATTR_RDONLY}, proc)
	}
	return err
}

// remountBind changes the attributes of an attached mount with mount(2), which knows paths only: the one below a
// procfs of ours leads to the descriptor.
func remountBind(fd int, o mountOptions, proc int) error {
	if proc < 0 {
		return errors.New("needs mount_setattr(2), of Linux 5.12, or a /proc in the container")
	}
	flags, err := sys.RemountFlags(fd, o.Set, o.Clear)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(proc); err != nil {
		return err
	}
	err = unix.Mount("", fmt.Sprintf("self/fd/%d", fd), "", flags, "")
	return errors.Join(err, unix.Chdir("/"))
}

// setPropagation: a bind is private if it does not say otherwise, whatever its source is.
func (in *initProcess) setPropagation(m *mountPlan) error {
	p := m.Options.Propagation
	if m.Type == "" && p == 0 {
		p = unix.MS_PRIVATE | unix.MS_REC
	}
	if p == 0 {
		return nil
	}
	fd, err := in.root.open(m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	flags := uint(unix.AT_EMPTY_PATH)
	if p&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	err = mountSetattr(fd, flags, &unix.MountAttr{Propagation: p &^ unix.MS_REC})
	if errors.Is(err, unix.ENOSYS) {
		// By path, in a root that nobody else changes.
		err = unix.Mount("", m.Target, "", uintptr(p), "")
	}
	if err != nil {
		return fmt.Errorf("propagation: %w", err)
	}
	return nil
}
