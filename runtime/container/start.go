package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
)

// StartOptions say how a container is started.
type StartOptions struct {
	// Streams are attached from the first byte on; nil for a start in the background (-d).
	Streams *Streams

	// Foreground ends the container, by SIGKILL, when the calling process goes without Detach.
	Foreground bool

	// ConsoleSize is height and width in characters, for a container with a terminal; zero leaves it to be set.
	ConsoleSize [2]uint
}

// Start runs the container and returns when its command is executed. The session is that of the attached streams; it
// is to be waited for. Without Streams and Foreground it is nil.
//
// Errors: *ExitError with 125, 126 or 127; ErrConflict when it is paused. One that runs already is no error: its
// streams are attached.
func (c *Container) Start(ctx context.Context, o StartOptions) (*Session, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := c.tryStart(o)
		if !errors.Is(err, errLocked) {
			return s, err
		}
		// Another monitor has it: it runs, or is about to end.
		st, err := c.state()
		if err != nil {
			return nil, err
		}
		if st.Status == api.StatePaused {
			return nil, fail(ErrConflict, "cannot start a paused container, try unpause instead")
		}
		if o.Streams == nil && !o.Foreground && st.running() {
			return nil, nil
		}
		if s, err = c.Attach(ctx, *orEmpty(o.Streams)); !errors.Is(err, ErrNotRunning) {
			return s, err
		}
		if err := c.waitMonitor(); err != nil {
			return nil, err
		}
	}
}

func orEmpty(st *Streams) *Streams {
	if st == nil {
		return &Streams{}
	}
	return st
}

// waitMonitor waits until no monitor has the container.
func (c *Container) waitMonitor() error {
	lock, err := lockPath(filepath.Join(c.dir(), monitorLockFile), true)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return lock.Close()
}

// tryStart starts a monitor. Errors: errLocked where there is one.
func (c *Container) tryStart(o StartOptions) (_ *Session, err error) {
	lock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := c.reapLocked(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(c.dir(), configFile)); missing(err) {
		return nil, fail(ErrNotFound, "No such container: %s", c.r.Name) // it was --rm, and its monitor had died
	}
	mon, err := lockPath(filepath.Join(c.dir(), monitorLockFile), false)
	if err != nil {
		return nil, err
	}
	defer mon.Close() // the monitor has it
	if _, err := mon.WriteAt([]byte{'1'}, 0); err != nil {
		return nil, err
	}
	if err := faultMarked.Hit(); err != nil {
		return nil, errors.Join(err, mon.Truncate(0))
	}
	p, err := o.Streams.open()
	if err != nil {
		return nil, errors.Join(err, mon.Truncate(0)) // nobody has begun
	}
	var con *conn
	defer func() {
		if err == nil {
			return
		}
		p.close()
		_ = mon.Close() // the monitor alone has it now, if there is one
		if con != nil {
			_ = con.Close() // it goes
		}
		err = errors.Join(err, c.notStartedLocked())
	}()
	if con, err = c.monitorFor(mon); err != nil {
		_ = mon.Truncate(0) // nobody has begun
		return nil, err
	}
	if err = faultSpawned.Hit(); err != nil {
		return nil, err
	}
	req := request{Op: opStart, Streams: p.names, Foreground: o.Foreground, Console: o.ConsoleSize}
	theirs := p.theirs
	if c.r.HostConfig.AutoRemove {
		req.Streams, theirs = append(slices.Clip(req.Streams), "lock"), append(slices.Clip(theirs), lock)
	}
	if _, _, err = con.ask(req, theirs...); err == errNoMonitor {
		err = errors.New("the container's monitor has ended without a word")
	}
	if err != nil {
		return nil, err
	}
	if o.Streams == nil && !o.Foreground {
		p.close()
		err := con.send(request{Op: opDetach})
		_ = con.Close()
		if err != nil && gone(err) != errNoMonitor { // it has ended already
			return nil, err
		}
		return nil, nil
	}
	s := newSession(con, o.Streams, p, c.r.Config.Tty)
	go s.listen()
	return s, nil
}

// Startable tells whether the container does not run, and nobody wants it not to: one that restarts unless it is stopped
// was not stopped.
func (c *Container) Startable() (bool, error) {
	st, err := c.state()
	if err != nil {
		return false, err
	}
	stopped := c.r.HostConfig.RestartPolicy.Name == api.RestartPolicyUnlessStopped && st.ManuallyStopped
	return !st.running() && !stopped, nil
}

// notStartedLocked takes back a container with --rm that could not be started, where its monitor has not: it was not told, or has
// died.
func (c *Container) notStartedLocked() error {
	if !c.r.HostConfig.AutoRemove {
		return nil
	}
	err := c.waitMonitor()
	if err == nil {
		err = c.reapLocked()
	}
	if errors.Is(err, ErrLeft) {
		return nil // of the monitor
	}
	if err != nil {
		return err
	}
	if _, err := c.s.load(c.r.ID); missing(err) {
		return nil // reaped
	}
	return c.removeLocked(true)
}

// spawn starts a monitor, without a lock one that waits for it, in a session and a mount namespace of its own.
func (s *Store) spawn(mode, id string, lock *os.File) (*conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer null.Close()
	args := []string{MonitorArg0, mode, s.root, id, s.o.RunDir, s.o.Laminafs, monitorVersion}
	files := []*os.File{null, null, null, theirs}
	if lock != nil {
		files = append(files, lock)
	} else {
		args = append(args, argExpected)
	}
	if err := sys.KeepInherited(false); err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start the container's monitor: %w", err)
	}
	start := sys.StartProgram
	if !entered() {
		start = identity().StartProgram
	}
	pid, err := start(s.o.Executable, args, os.Environ(), "/", files, &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS, // it sets the propagation of what is in it first of all
	})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start the container's monitor: %w", err)
	}
	go func() { _, _ = sys.WaitProgram(pid) }() // what it has to say it says on the socket
	return ours, nil
}

// Attach attaches to a running container. Errors: ErrNotRunning; ErrConflict for a paused one.
func (c *Container) Attach(ctx context.Context, o Streams) (*Session, error) {
	p, err := o.open()
	if err != nil {
		return nil, err
	}
	con, err := c.dial()
	if err != nil {
		p.close()
		return nil, c.noMonitor(err)
	}
	if _, _, err := con.ask(request{Op: opAttach, Streams: p.names}, p.theirs...); err != nil {
		p.close()
		_ = con.Close()
		return nil, c.noMonitor(err)
	}
	s := newSession(con, &o, p, c.r.Config.Tty)
	go s.listen()
	return s, nil
}

// executable is our own program, by its path where that still leads to it: a process that is executed through
// /proc/self/exe cannot make a mount of its own file, which the sandbox does.
func executable() string {
	path, err := os.Executable()
	var at, exe unix.Stat_t
	if err != nil || unix.Stat(path, &at) != nil || unix.Stat("/proc/self/exe", &exe) != nil ||
		at.Dev != exe.Dev || at.Ino != exe.Ino {
		return "/proc/self/exe"
	}
	return path
}
