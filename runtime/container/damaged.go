package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
)

// A DamagedError is returned for a container whose record cannot be read. We replace records whole: it was others, or the
// disk. Nothing but RemoveDamaged takes such a container away.
type DamagedError struct {
	ID   string // of the container
	Path string // of the file
	Err  error  // why it cannot be read
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("container %.12s is damaged: %s: %v", e.ID, e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// damaged is err as a DamagedError, for a file of a container's directory. What says nothing of the file stays as it is.
func damaged(dir, name string, err error) error {
	err, ok := sys.OfFile(err) // the path is in the text once
	if !ok {
		return err
	}
	return &DamagedError{ID: filepath.Base(dir), Path: filepath.Join(dir, name), Err: err}
}

// tell says of a damaged container, once, that it is left out. It returns any other error.
func (s *Store) tell(err error) error {
	var d *DamagedError
	if !errors.As(err, &d) {
		return err
	}
	s.tellOnce(d.Path, d)
	return nil
}

func (s *Store) tellOnce(path string, err error) {
	if _, told := s.told.LoadOrStore(path, true); !told && s.o.Damaged != nil {
		s.o.Damaged(err)
	}
}

// RemoveDamaged removes a container whose record cannot be read, with its layer: what still runs of it, as far as that can
// be found, is killed. Volumes that only the record named stay. One that is not damaged is removed with Force.
func (s *Store) RemoveDamaged(ctx context.Context, id string, o RemoveOptions) error {
	c := &Container{s: s, r: &record{ID: id, Name: id, Config: &api.Config{}, HostConfig: &api.HostConfig{}}}
	for {
		err := c.tryRemoveDamaged(o.Volumes)
		if !errors.Is(err, errLocked) {
			return err
		}
		if err := c.end(ctx); err != nil { // its monitor knows what it runs
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// tryRemoveDamaged removes the container. Errors: errLocked where it has a monitor.
func (c *Container) tryRemoveDamaged(volumes bool) error {
	lock, err := lockPath(filepath.Join(c.dir(), lockFile), true)
	if missing(err) {
		return nil // with its monitor, which was --rm
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	mon, err := lockMonitor(c.dir())
	if err != nil {
		return err
	}
	defer mon.Close()
	if err := c.killDamaged(); err != nil {
		return err
	}
	_ = os.Remove(c.socket()) // nobody listens
	if now, err := c.s.load(c.r.ID); err == nil {
		c.r = now.r
		return c.removeLocked(volumes)
	}
	err = os.Rename(filepath.Join(c.dir(), configFile), filepath.Join(c.dir(), removingFile))
	if err != nil && !missing(err) {
		return err
	}
	return c.s.sweepLocked(c.r.ID)
}

// killDamaged kills what a dead monitor has left running: what the state names, and where that cannot be read, or tells of
// another boot, as when it is gone, what is in the cgroup that bears the container's ID.
func (c *Container) killDamaged() error {
	st, err := readState(c.dir())
	if err == nil && st.Boot == bootID() {
		err = killLeft(c.r.ID, c.dir())
	} else {
		st = &state{}
		err = killGroup(c.r.ID, nil)
	}
	if err != nil {
		return err
	}
	return removeGroup(c.r.ID, st.Cgroup)
}
