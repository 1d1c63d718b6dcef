package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// Layers are what is mounted.
type Layers struct {
	Lowers []string // topmost first
	Plain  string   // a directory with what the union shows; empty where nobody asks for it
}

// Mount is a System mounted over Layers.
type Mount struct {
	Dir string // the merged tree

	layers            *Layers
	base, upper, work string
	server            *exec.Cmd // nil where the kernel serves
	log               *os.File
	mounted           bool
}

// Mount mounts s below the directory base, which it makes, with an empty upper.
func (s System) Mount(base string, layers *Layers) (*Mount, error) {
	m := &Mount{
		base: base, layers: layers,
		Dir: filepath.Join(base, "merged"), upper: filepath.Join(base, "upper"), work: filepath.Join(base, "work"),
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

// inUserNamespace reports whether we are root of less than the machine.
var inUserNamespace = userns.RunningInUserNS

// mountLimit is how long a server may take until its mount answers.
const mountLimit = time.Minute

// serve starts a server in the foreground, so that its pid is known, and waits until the mount is there.
func (m *Mount) serve(program string, args ...string) error {
	m.server = exec.Command(program, args...)
	m.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a ^C is for us: the mount is wanted until the end
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
			return false, errors.Join(fmt.Errorf("the server ended at once: %s", text), err)
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

// unmountLimit is how long something may keep a mount busy that nobody uses any more.
const unmountLimit = 30 * time.Second

// Unmount ends the mount and its server, and removes the upper.
func (m *Mount) Unmount() error {
	var errs []error
	served := m.mounted
	if m.mounted {
		m.mounted = false
		errs = append(errs, m.unmountDir())
	} else if m.server != nil {
		// It may have mounted and then died, or not have answered in time.
		errs = append(errs, m.server.Process.Kill())
		_ = unix.Unmount(m.Dir, unix.MNT_DETACH) // mostly it is none
	}
	if m.server != nil {
		// Of one that never served, serve has told already.
		if err := m.server.Wait(); err != nil && served {
			text, _ := os.ReadFile(m.log.Name())
			errs = append(errs, fmt.Errorf("server: %w: %s", err, text))
		}
		m.server = nil
	}
	if m.log != nil {
		m.log.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(m.base))...)
}

// unmountDir gives those who just let go a moment; then it is taken away all the same, which is an error.
func (m *Mount) unmountDir() error {
	err := poll(unmountLimit, func() (bool, error) {
		err := unix.Unmount(m.Dir, 0)
		if err == unix.EBUSY {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("unmount %s: %w", m.Dir, err), unix.Unmount(m.Dir, unix.MNT_DETACH))
	}
	return nil
}
