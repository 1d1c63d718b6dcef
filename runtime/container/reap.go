package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
)

// killedCode is the exit status of a container that went with its monitor: 128 + SIGKILL.
const killedCode = 128 + int(unix.SIGKILL)

// readState reads a container's state; no file is the state "created".
func readState(dir string) (*state, error) {
	st := &state{Status: api.StateCreated}
	if err := readJSON(dir, stateFile, st); err != nil && !missing(err) {
		return nil, err
	}
	return st, nil
}

func writeState(dir string, st *state) error {
	st.Boot = bootID()
	return writeJSON(dir, stateFile, st)
}

// dirty tells whether a monitor has begun and not ended in order: it runs, or it has died.
func dirty(dir string) bool {
	if fi, err := os.Stat(filepath.Join(dir, monitorLockFile)); err == nil && fi.Size() > 0 {
		return true
	}
	st, err := readState(dir) // what a crash of the machine has left may lack the byte in monitor.lock
	return err == nil && st.running()
}

// ReapOutside kills what died monitors under root have left running. It is called by an ordinary user's command while
// that is still in the first user namespace: only there it has power over all processes of the user's containers.
// Root's commands need not call it. A root that does not exist is no error.
func ReapOutside(root string) error {
	s := &Store{root: root}
	ids, err := s.ids()
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		dir := filepath.Join(s.dir(), id)
		if stale(dir) || !dirty(dir) {
			continue
		}
		lock, err := lockMonitor(dir)
		if errors.Is(err, errLocked) || missing(err) {
			continue // it runs, or was removed
		}
		if err == nil {
			err = killLeft(id, dir)
			_ = lock.Close() // still marked: the rest is done inside
		}
		if err = s.tell(err); err != nil { // of what is damaged Open tells
			errs = append(errs, fmt.Errorf("container %.12s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// lockMonitor takes monitor.lock. One that is being killed this moment is waited for, so that the next command after a
// kill -9 does not find it.
//
// Errors: errLocked while the monitor lives.
func lockMonitor(dir string) (*os.File, error) {
	path := filepath.Join(dir, monitorLockFile)
	f, err := lockPath(path, false)
	if !errors.Is(err, errLocked) {
		return f, err
	}
	if st, err := readState(dir); err != nil || st.Monitor.Pid == 0 || !st.Monitor.dying() {
		return nil, errLocked
	}
	return lockPath(path, true)
}

// killLeft kills what a dead monitor has left running. Preconditions: monitor.lock is held.
//
// The union's mount has gone with the last process that saw it, so its server is ending: it is let end, to take away
// what it told of the mount.
func killLeft(id, dir string) error {
	st, err := readState(dir)
	if err != nil {
		return err
	}
	if st.Boot != bootID() {
		return nil // nothing outlives the machine
	}
	// The group first: what v1's freezer holds takes no signal, and only the group lets it go.
	err = errors.Join(killGroup(id, st.Cgroup), st.Init.kill())
	served := st.Laminafs.end(reapPatience)
	if errors.Is(served, unix.ETIMEDOUT) {
		served = nil // it waits for a disk and writes nothing more: a mount of the same layers would wait for it
	}
	return errors.Join(err, served)
}

// ErrLeft is returned outside where something is left to be cleaned up. It may have files of any ID, and what is half removed is
// not found any more: a volume has lost its name. So nothing is begun; the next command that is inside does it.
var ErrLeft = errors.New("what a dead command has left may have files of other IDs")

// reap cleans up after all monitors and commands that died.
//
// Errors: ErrLeft.
func (s *Store) reap() error {
	ids, err := s.ids()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := s.tell(s.reapOne(id)); err != nil {
			errs = append(errs, fmt.Errorf("container %.12s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (s *Store) reapOne(id string) error {
	dir := filepath.Join(s.dir(), id)
	if stale(dir) {
		return s.sweepStale(id)
	}
	if _, err := os.Stat(filepath.Join(dir, configFile)); missing(err) {
		return s.sweep(id)
	}
	if !dirty(dir) {
		return nil
	}
	lock, err := lockPath(filepath.Join(dir, lockFile), false)
	if errors.Is(err, errLocked) || missing(err) {
		return nil // who has it looks too
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := s.load(id)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.reapLocked()
}

// reapLocked cleans up after the container's monitor if that has died. Preconditions: the container's lock is held.
func (c *Container) reapLocked() error {
	if !dirty(c.dir()) {
		return nil
	}
	mon, err := lockMonitor(c.dir())
	if errors.Is(err, errLocked) {
		return nil // it lives
	}
	if err != nil {
		return err
	}
	defer mon.Close()
	if !entered() {
		return ErrLeft
	}
	if err := killLeft(c.r.ID, c.dir()); err != nil {
		return err
	}
	st, err := c.state()
	if err != nil {
		return err
	}
	if err := removeGroup(c.r.ID, st.Cgroup); err != nil {
		return err
	}
	_ = os.Remove(c.socket()) // nobody listens
	if st.running() {
		st.Status, st.ExitCode, st.FinishedAt = api.StateExited, killedCode, time.Now().UTC()
		st.Monitor, st.Init, st.Laminafs, st.Cgroup = process{}, process{}, process{}, nil
		if err := writeState(c.dir(), st); err != nil {
			return err
		}
	}
	if err := mon.Truncate(0); err != nil {
		return err
	}
	if c.r.HostConfig.AutoRemove {
		return c.removeLocked(true)
	}
	return nil
}

// sweep removes what a create or rm that was killed has left. A directory in which neither of the two has got
// anywhere is empty but for its locks.
func (s *Store) sweep(id string) error {
	names, err := s.lockNames() // held by create until it has the container's lock
	if err != nil {
		return err
	}
	defer names.Close()
	dir := filepath.Join(s.dir(), id)
	if _, err := os.Stat(dir); missing(err) {
		return nil
	}
	lock, err := lockPath(filepath.Join(dir, lockFile), false)
	if errors.Is(err, errLocked) || missing(err) {
		return nil // it is being made or removed, or has just gone
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Stat(filepath.Join(dir, configFile)); err == nil {
		return nil // made meanwhile
	}
	if !entered() {
		return ErrLeft
	}
	if err := killLeft(id, dir); err != nil {
		return err // the union of a monitor that died while it removed
	}
	return s.sweepLocked(id)
}

// sweepStale removes a container that was to go with another run of the machine, whatever of it has come to the disk. One with a
// monitor lives: it was made on another machine that has the store too, or where the boot ID is another, as in systemd-nspawn.
func (s *Store) sweepStale(id string) error {
	names, err := s.lockNames() // the container's locks go with it, and who waits for them would make them anew
	if err != nil {
		return err
	}
	defer names.Close()
	dir := filepath.Join(s.dir(), id)
	if !stale(dir) {
		return nil // it is gone
	}
	for _, name := range []string{lockFile, monitorLockFile} {
		lock, err := lockPath(filepath.Join(dir, name), false)
		if errors.Is(err, errLocked) || missing(err) {
			return nil // it lives, or who has it does this
		}
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	if !entered() {
		return ErrLeft
	}
	err = os.Rename(filepath.Join(dir, configFile), filepath.Join(dir, removingFile))
	if err != nil && !missing(err) {
		return err
	}
	// First of all what makes it dirty: ReapOutside would look for what it has left running once boot is gone.
	for _, name := range []string{stateFile, monitorLockFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !missing(err) {
			return err
		}
	}
	return s.sweepLocked(id)
}

// sweepLocked removes all that creating.json or removing.json names, and the directory last. Preconditions: the
// container's lock is held, and it has no config.json any more or not yet.
func (s *Store) sweepLocked(id string) error {
	dir := filepath.Join(s.dir(), id)
	r := &record{}
	err := readJSON(dir, removingFile, r)
	if missing(err) {
		err = readJSON(dir, creatingFile, r)
		r.RemoveVolumes = true
	}
	var d *DamagedError
	if errors.As(err, &d) {
		r, err = &record{}, nil // it goes all the same: its volumes are not known
	}
	if err != nil && !missing(err) {
		return err
	}
	if err := s.images.RemoveMount(id); err != nil && !missing(err) {
		return fmt.Errorf("remove its layer: %w", err)
	}
	if err := faultLayerless.Hit(); err != nil {
		return err
	}
	if r.RemoveVolumes {
		for _, m := range r.Mounts {
			if m.Anonymous {
				if err := s.removeVolume(m.Name, id); err != nil {
					return fmt.Errorf("remove volume %s: %w", m.Name, err)
				}
			}
		}
	}
	return removeDir(dir)
}

// removeDir removes the directory of a container that nobody finds any more. Who was looking at it meanwhile may make a lock
// anew, which lockPath does where it is missing: that goes too.
func removeDir(dir string) error {
	const tries = 100 // each of them takes another command that looked before
	for i := 1; ; i++ {
		if err := sys.RemovePath(dir); i == tries || !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
}
