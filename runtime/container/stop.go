package container

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
)

// defaultStopTimeout is Docker's, in seconds.
const defaultStopTimeout = 10

// stopSignal is what stop sends first.
func (c *Container) stopSignal() unix.Signal {
	if s := c.r.Config.StopSignal; s != "" {
		if sig, err := parseSignal(s); err == nil {
			return sig
		}
	}
	return unix.SIGTERM
}

// stopTimeout is how long stop waits before it kills, in seconds.
func (c *Container) stopTimeout() int {
	if t := c.r.Config.StopTimeout; t != nil {
		return *t
	}
	return defaultStopTimeout
}

func (c *Container) notRunning() error {
	return fail(ErrNotRunning, "container %s is not running", c.r.ID)
}

// noMonitor says what errNoMonitor means to who wants a running container.
func (c *Container) noMonitor(err error) error {
	if errors.Is(err, errNoMonitor) {
		return c.notRunning()
	}
	return err
}

// ask sends the monitor a request and returns its answer. A done ctx ends the wait, not what was asked for.
//
// Errors: ErrNotRunning where there is no monitor, or it ends meanwhile.
func (c *Container) ask(ctx context.Context, req request, result any, files ...*os.File) (reply, error) {
	con, err := c.dial()
	if err != nil {
		return reply{}, c.noMonitor(err)
	}
	r, err := exchange(ctx, con, req, result, files...)
	return r, c.noMonitor(err)
}

// exchange sends a request and waits for the answer to it. The connection is closed. Errors: errNoMonitor.
func exchange(ctx context.Context, con *conn, req request, result any, files ...*os.File) (reply, error) {
	defer con.Close()
	return call(ctx, con, req, result, files...)
}

// call is exchange on a connection that lasts.
func call(ctx context.Context, con *conn, req request, result any, files ...*os.File) (reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = con.Close() })
	defer stop()
	r, got, err := con.ask(req, files...)
	closeAll(got)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil {
		return r, err
	}
	if result != nil && len(r.Result) > 0 {
		return r, json.Unmarshal(r.Result, result)
	}
	return r, nil
}

// StopOptions are those of docker stop and restart.
type StopOptions struct {
	Signal  string // default: the container's stop signal, SIGTERM
	Timeout *int   // seconds until SIGKILL; -1 for never. Default: the container's, 10
}

// Stop ends the container and returns when it has ended. One that does not run is no error.
func (c *Container) Stop(ctx context.Context, o StopOptions) error { return c.stop(ctx, o, false) }

// stop is Stop; keep leaves a container that is there with --rm.
func (c *Container) stop(ctx context.Context, o StopOptions, keep bool) error {
	req := request{Op: opStop, Signal: int(c.stopSignal()), Timeout: c.stopTimeout(), Keep: keep}
	if o.Signal != "" {
		sig, err := parseSignal(o.Signal)
		if err != nil {
			return err
		}
		req.Signal = int(sig)
	}
	if o.Timeout != nil {
		req.Timeout = *o.Timeout
	}
	_, err := c.ask(ctx, req, nil)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	return err
}

// Restart stops the container if it runs and starts it in the background.
func (c *Container) Restart(ctx context.Context, o StopOptions) error {
	if err := c.stop(ctx, o, true); err != nil {
		return err
	}
	if err := c.waitMonitor(); err != nil {
		return err
	}
	_, err := c.Start(ctx, StartOptions{})
	return err
}

// Kill sends PID 1 a signal: "KILL", "SIGUSR1", "10"; empty is SIGKILL. Errors: ErrNotRunning.
func (c *Container) Kill(ctx context.Context, signal string) error {
	sig := unix.SIGKILL
	if signal != "" {
		var err error
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	_, err := c.ask(ctx, request{Op: opSignal, Signal: int(sig)}, nil)
	return err
}

// Pause freezes all processes. Errors: ErrNotRunning; ErrConflict when it is paused.
func (c *Container) Pause(ctx context.Context) error {
	_, err := c.ask(ctx, request{Op: opPause}, nil)
	return err
}

// Unpause lets them go on. Errors: ErrConflict when it is not paused.
func (c *Container) Unpause(ctx context.Context) error {
	_, err := c.ask(ctx, request{Op: opUnpause}, nil)
	return err
}

// Resize sets the size of the container's terminal in characters.
func (c *Container) Resize(ctx context.Context, height, width uint) error {
	_, err := c.ask(ctx, request{Op: opResize, Console: [2]uint{height, width}}, nil)
	return err
}

// Wait returns the exit status when the condition holds: api.WaitConditionNotRunning (at once, if it does not run),
// WaitConditionNextExit, WaitConditionRemoved.
//
// Errors: ErrInvalid for another condition.
func (c *Container) Wait(ctx context.Context, condition api.WaitCondition) (code int, err error) {
	switch condition {
	case "", api.WaitConditionNotRunning:
		return c.waitExit(ctx, false)
	case api.WaitConditionNextExit:
		st, err := c.state()
		if err != nil {
			return 0, err
		}
		if before := st.StartedAt; !st.running() {
			if err := c.waitFor(ctx, func() (bool, error) {
				st, err := c.state()
				return err != nil || st.running() || !st.StartedAt.Equal(before), err
			}); err != nil {
				return 0, err
			}
		}
		return c.waitExit(ctx, true)
	case api.WaitConditionRemoved:
		code, err = c.waitExit(ctx, false)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return code, err
		}
		return code, c.waitFor(ctx, func() (bool, error) {
			_, err := os.Stat(filepath.Join(c.dir(), configFile))
			return missing(err), nil
		})
	}
	return 0, fail(ErrInvalid, "invalid condition: %q", condition)
}

// waitExit waits for the next exit, or for the last one of the monitor at hand.
func (c *Container) waitExit(ctx context.Context, next bool) (int, error) {
	for {
		r, err := c.ask(ctx, request{Op: opWait, Next: next}, nil)
		if err == nil {
			return r.ExitCode, nil
		}
		if !errors.Is(err, ErrNotRunning) {
			return 0, err
		}
		st, err := c.state()
		if err != nil {
			return 0, err
		}
		if !st.running() {
			if _, err := os.Stat(filepath.Join(c.dir(), configFile)); missing(err) {
				return 0, fail(ErrNotFound, "No such container: %s", c.r.Name)
			}
			return st.ExitCode, nil
		}
		// Its monitor is about to listen, to end, or dead: its lock tells when.
		if err := c.waitMonitor(); err != nil {
			return 0, err
		}
		if err := c.s.reapOne(c.r.ID); err != nil {
			return 0, err
		}
	}
}

// waitFor waits until something in the container's directory makes fn true.
func (c *Container) waitFor(ctx context.Context, fn func() (bool, error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(c.dir()); err != nil && !missing(err) {
		return err
	}
	for {
		if done, err := fn(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
		case err := <-w.Errors:
			if !overflowed(err) {
				return err
			}
		}
	}
}

// overflowed tells whether a watch says that there were more events than it holds (inotify(7), IN_Q_OVERFLOW). They are as good as one:
// what is watched is looked at anew.
func overflowed(err error) bool { return errors.Is(err, fsnotify.ErrEventOverflow) }

// RemoveOptions are those of docker rm.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // remove its anonymous volumes too
}

// Remove removes the container and its layer. Errors: ErrConflict when it runs and Force is not set; *DamagedError when
// its state cannot be read, and Force is not set.
func (c *Container) Remove(ctx context.Context, o RemoveOptions) error {
	err := c.remove(ctx, o)
	var d *DamagedError
	if o.Force && errors.As(err, &d) && d.ID == c.r.ID {
		return c.s.RemoveDamaged(ctx, d.ID, o)
	}
	return err
}

// end kills the container, and waits until it has no monitor.
func (c *Container) end(ctx context.Context) error {
	if err := c.Kill(ctx, ""); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	zero := 0
	if err := c.Stop(ctx, StopOptions{Signal: "KILL", Timeout: &zero}); err != nil {
		return err
	}
	return c.waitMonitor()
}

func (c *Container) remove(ctx context.Context, o RemoveOptions) error {
	for {
		err := c.tryRemove(o)
		if !errors.Is(err, errLocked) {
			return err
		}
		st, err := c.state()
		if err != nil {
			return err
		}
		if st.running() && !o.Force {
			what := "container is " + string(st.Status) + ": stop the container before removing or force remove"
			if st.Status == api.StatePaused {
				what = "container is paused and must be unpaused first"
			}
			return fail(ErrConflict, "cannot remove container %q: %s", c.r.Name, what)
		}
		if err := c.end(ctx); err != nil {
			return err
		}
		if c.r.HostConfig.AutoRemove {
			if _, err := c.s.load(c.r.ID); missing(err) {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// tryRemove removes the container. Errors: errLocked where it has a monitor.
func (c *Container) tryRemove(o RemoveOptions) error {
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.reapLocked(); err != nil {
		return err
	}
	mon, err := lockPath(filepath.Join(c.dir(), monitorLockFile), false)
	if missing(err) {
		return nil // reaped, and it was --rm
	}
	if err != nil {
		return err
	}
	defer mon.Close()
	return c.removeLocked(o.Volumes)
}

// Prune removes all containers that do not run and match the filters: label, label!, until (a time or a duration back).
// SpaceReclaimed is in bytes.
func (s *Store) Prune(ctx context.Context, filters map[string][]string) (api.PruneReport, error) {
	report := api.PruneReport{ContainersDeleted: []string{}}
	match, err := pruneFilter(filters, time.Now())
	if err != nil {
		return report, err
	}
	all, err := s.Containers()
	if err != nil {
		return report, err
	}
	for _, c := range all {
		st, err := c.state()
		if err != nil {
			if err := s.tell(err); err != nil {
				return report, err
			}
			continue
		}
		if st.running() || !match(c) {
			continue
		}
		size, err := c.sizeRw()
		if err != nil {
			return report, err
		}
		err = c.Remove(ctx, RemoveOptions{})
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			continue // started or removed meanwhile
		}
		if err != nil {
			return report, err
		}
		report.ContainersDeleted = append(report.ContainersDeleted, c.r.ID)
		report.SpaceReclaimed += uint64(size)
	}
	return report, nil
}
