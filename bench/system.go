package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A System is a filesystem that shows layers as one tree.
type System struct {
	Name  string
	mount func(m *Mount) error
}

// The names of the systems.
const (
	Plain         = "plain"
	Overlay       = "overlay"
	FuseOverlayfs = "fuse-overlayfs"
	Laminafs      = "laminafs"
)

// Systems returns all of them. binary is the path of laminafs, opts are further options for it.
func Systems(binary string, opts ...string) []System {
	return []System{
		{Plain, func(*Mount) error { return nil }},
		{Overlay, mountOverlay},
		{FuseOverlayfs, func(m *Mount) error { return m.serve("fuse-overlayfs") }},
		{Laminafs, func(m *Mount) error { return m.serve(binary, opts...) }},
	}
}

// Mount is a System mounted over layers.
type Mount struct {
	Dir string // the merged tree

	lowers            []string // topmost first
	base, upper, work string
	server            *exec.Cmd // nil where the kernel serves
	log               *os.File
	mounted           bool
}

// Mount mounts s below the directory base, which it makes, over the lowers with an empty upper. For Plain, plain is
// the directory that stands for the union.
func (s System) Mount(base string, lowers []string, plain string) (*Mount, error) {
	m := &Mount{
		base: base, lowers: lowers,
		Dir: filepath.Join(base, "merged"), upper: filepath.Join(base, "upper"), work: filepath.Join(base, "work"),
	}
	if s.Name == Plain {
		m.Dir = plain
		return m, nil
	}
	for _, dir := range []string{base, m.Dir, m.upper, m.work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.mount(m); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", s.Name, err), m.Unmount())
	}
	return m, nil
}

// mountOverlay mounts the kernel's overlay, by fsopen(2): mount(2) takes a page of options, which 500 layers exceed.
func mountOverlay(m *Mount) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	params := [][2]string{
		{"source", "overlay"}, {"upperdir", m.upper}, {"workdir", m.work},
		{"redirect_dir", "on"}, {"index", "on"}, {"xino", "on"},
	}
	for _, dir := range m.lowers {
		params = append(params, [2]string{"lowerdir+", dir})
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

// mountLimit is how long a server may take until its mount answers.
const mountLimit = time.Minute

// serve starts a server in the foreground, so that its pid is known, and waits until the mount is there.
func (m *Mount) serve(program string, opts ...string) error {
	opts = append(opts, "lowerdir="+strings.Join(m.lowers, ":"), "upperdir="+m.upper, "workdir="+m.work)
	m.server = exec.Command(program, "-f", "-o", strings.Join(opts, ","), m.Dir)
	var err error
	if m.log, err = os.OpenFile(filepath.Join(m.base, "log"), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o644); err != nil {
		return err
	}
	m.server.Stdout, m.server.Stderr = m.log, m.log
	if err := m.server.Start(); err != nil {
		m.server = nil
		return err
	}
	var parent, root unix.Stat_t
	if err := unix.Stat(m.base, &parent); err != nil {
		return err
	}
	return poll(mountLimit, func() (bool, error) {
		if ended, err := m.ended(); ended || err != nil {
			text, _ := os.ReadFile(m.log.Name())
			return false, fmt.Errorf("server ended at once: %w: %s", err, text)
		}
		m.mounted = unix.Stat(m.Dir, &root) == nil && root.Dev != parent.Dev
		return m.mounted, nil
	})
}

// ended reports whether the server has, without reaping it.
func (m *Mount) ended() (bool, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, m.server.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return info.Signo != 0, err
}

// poll asks until the answer is yes.
func poll(limit time.Duration, yes func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; {
		ok, err := yes()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing after %v", limit)
		}
		time.Sleep(time.Millisecond)
	}
}

// Pid is the server's, 0 where there is none.
func (m *Mount) Pid() int {
	if m.server == nil {
		return 0
	}
	return m.server.Process.Pid
}

// Unmount ends the mount and its server, and removes the upper.
func (m *Mount) Unmount() error {
	var errs []error
	if m.mounted {
		m.mounted = false
		if err := unix.Unmount(m.Dir, 0); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Dir, err), unix.Unmount(m.Dir, unix.MNT_DETACH))
		}
	} else if m.server != nil {
		errs = append(errs, m.server.Process.Kill())
	}
	if m.server != nil {
		if err := m.server.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("server: %w", err))
		}
		m.server = nil
	}
	if m.log != nil {
		m.log.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(m.base))...)
}

// ServerCPU is the CPU time that the server has used, 0 where there is none.
func (m *Mount) ServerCPU() (time.Duration, error) {
	if m.server == nil {
		return 0, nil
	}
	// The CPU clock of another process (clock_getcpuclockid(3)): nanoseconds, where /proc/PID/stat has ticks.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^m.server.Process.Pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of the server: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Requests returns how many requests the server has answered, by opcode. Only laminafs can tell; others give nil.
func (m *Mount) Requests() (map[string]int64, error) {
	if m.server == nil {
		return nil, nil
	}
	dir, err := liveDir(m.server.Process.Pid)
	if dir == "" || err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "requests")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := m.server.Process.Signal(unix.SIGUSR1); err != nil {
		return nil, err
	}
	var text []byte
	err = poll(10*time.Second, func() (bool, error) {
		var err error
		text, err = os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("requests of the server: %w", err)
	}
	counts := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("requests of the server: line %q", line)
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, err
		}
		counts[f[0]] = n
	}
	return counts, nil
}

// liveDir is the directory in which laminafs tells about the mount that the process serves, empty for another server.
func liveDir(pid int) (string, error) {
	pids, err := filepath.Glob("/run/laminafs/si_*/pid")
	if err != nil {
		return "", err
	}
	for _, file := range pids {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // gone meanwhile
		}
		if strings.TrimSpace(string(text)) == strconv.Itoa(pid) {
			return filepath.Dir(file), nil
		}
	}
	return "", nil
}
