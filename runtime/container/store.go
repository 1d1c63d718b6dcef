package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/beside"
	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/volume"
)

// Options are those of a Store. The zero value is the default.
type Options struct {
	// RunDir is where the monitors' sockets are. Default: $XDG_RUNTIME_DIR/lamina for an ordinary user, /run/lamina for
	// root, <root>/run where neither can be made.
	RunDir string

	// Laminafs is the program that mounts the layers. Default: the one beside our own executable, then that in $PATH.
	Laminafs string

	// Executable is what monitors are started from, with MonitorArg0 as os.Args[0]. Default: lamina-monitor beside our own
	// executable, then our own.
	Executable string

	// Expected is the monitor of the container that is made next: Expect, with the same root and options. Nil without.
	Expected *Expected

	// Damaged is told of each container, image and volume that is left out because it cannot be read, once: a *DamagedError,
	// an *image.DamagedError or a *volume.DamagedError; and of what is left of a removed one and cannot be removed. Nil is
	// silent.
	Damaged func(error)
}

// Store is the containers of one root. Any number of processes may have it open at once.
type Store struct {
	root    string
	o       Options
	images  *image.Store
	volumes *volume.Store

	expected *Expected // nil without

	told sync.Map // the paths of which Damaged was told
}

// Open opens the containers under root, "/var/lib/lamina" for example, and cleans up what died monitors and killed
// commands have left: a container whose monitor is gone is marked as exited (137), one with --rm is removed.
//
// Preconditions: euid 0, of the machine or of a user namespace of ours (idmap.Reexec); an ordinary user's command has
// called ReapOutside before. Or an ordinary user in no namespace of ours, who may open a store, and make and start a container: all
// of these fail, and leave nothing behind, where they need an ID that is not his.
func Open(root string, o Options) (*Store, error) {
	s, err := openStore(root, o)
	if err != nil {
		return nil, err
	}
	if err := s.reap(); err != nil {
		return nil, fmt.Errorf("clean up %s: %w", s.dir(), err)
	}
	return s, nil
}

// openStore opens the store and leaves alone what is there: a monitor's own view.
func openStore(root string, o Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := checkText(root, o.RunDir); err != nil {
		return nil, err
	}
	s := &Store{root: root, o: o, expected: o.Expected}
	if err := lent(root, unix.S_IRWXO); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir(), 0o710); err != nil {
		return nil, err
	}
	s.fill()
	if err := lent(s.o.RunDir, unix.S_IRWXO); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.o.RunDir, 0o700); err != nil {
		return nil, err
	}
	if s.images, err = image.Open(root); err != nil {
		return nil, err
	}
	s.images.Containers = s.imageContainers
	s.images.Damaged = func(d *image.DamagedError) { s.tellOnce(d.Path, d) }
	if s.volumes, err = volume.Open(root); err != nil {
		return nil, err
	}
	s.volumes.Damaged = func(d *volume.DamagedError) { s.tellOnce(d.Path, d) }
	if err := s.images.Left(); err != nil {
		s.tellOnce(root, fmt.Errorf("what is left of something removed cannot be removed either: %w", err))
	}
	return s, nil
}

// fill fills in the options that were left out.
func (s *Store) fill() {
	if s.o.Executable == "" {
		if s.o.Executable = beside.Path("lamina-monitor"); s.o.Executable == "" {
			s.o.Executable = executable()
		}
	}
	if s.o.RunDir == "" {
		s.o.RunDir = runDir(s.root)
	}
	if abs, err := filepath.Abs(s.o.RunDir); err == nil {
		s.o.RunDir = abs // a monitor is elsewhere
	}
}

// runDir finds the place for sockets. Root of a user namespace is an ordinary user.
func runDir(root string) string {
	var tries []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && ordinary() {
		tries = append(tries, filepath.Join(dir, "lamina"))
	}
	if !ordinary() {
		tries = append(tries, "/run/lamina")
	}
	for _, dir := range tries {
		if os.MkdirAll(dir, 0o700) == nil {
			return dir
		}
	}
	return filepath.Join(root, "run")
}

// dir is where the containers are.
func (s *Store) dir() string { return filepath.Join(s.root, "containers") }

// lockNames takes the lock under which names are given away.
func (s *Store) lockNames() (*os.File, error) {
	return lockPath(filepath.Join(s.root, "containers.lock"), true)
}

// ids returns the IDs of all directories, of containers and of what is left of some, sorted.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir())
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

func validID(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// load reads one container. Errors: fs.ErrNotExist for a directory that is none yet, or not any more; *DamagedError.
func (s *Store) load(id string) (*Container, error) {
	r := &record{}
	dir := filepath.Join(s.dir(), id)
	if err := readJSON(dir, configFile, r); err != nil {
		return nil, err
	}
	switch {
	case r.Version != recordVersion:
		return nil, damaged(dir, configFile, fmt.Errorf("version %d, want %d", r.Version, recordVersion))
	case r.Config == nil || r.HostConfig == nil || r.ID != id:
		return nil, damaged(dir, configFile, errors.New("it is not the record of this container"))
	}
	return &Container{s: s, r: r}, nil
}

// Containers returns all containers, the newest first. Damaged ones are left out, and told of.
func (s *Store) Containers() ([]*Container, error) {
	all, bad, err := s.loadAll()
	for _, d := range bad {
		_ = s.tell(d) // nil
	}
	return all, err
}

// loadAll returns all containers, the newest first, and why others cannot be read.
func (s *Store) loadAll() (all []*Container, bad []*DamagedError, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		c, err := s.load(id)
		var d *DamagedError
		switch {
		case err == nil:
			all = append(all, c)
		case errors.As(err, &d):
			bad = append(bad, d)
		case !missing(err):
			return nil, nil, err
		}
	}
	slices.SortFunc(all, func(a, b *Container) int { return b.r.Created.Compare(a.r.Created) })
	return all, bad, nil
}

// Get returns the container with that name, full ID, or prefix of an ID that no other one has.
//
// Errors: ErrNotFound, ErrAmbiguous; *DamagedError for one that is found by its ID only.
func (s *Store) Get(nameOrID string) (*Container, error) {
	if nameOrID == "" {
		return nil, fail(ErrInvalid, "invalid container name or ID: value is empty")
	}
	if validID(nameOrID) {
		if c, err := s.load(nameOrID); !missing(err) {
			return c, err
		}
	}
	all, bad, err := s.loadAll()
	if err != nil {
		return nil, err
	}
	found, damaged, err := lookUp(all, bad, nameOrID)
	for _, d := range bad {
		if d != damaged {
			_ = s.tell(d) // nil
		}
	}
	if err == nil && damaged != nil {
		return nil, damaged
	}
	return found, err
}

// lookUp finds a container, or a damaged one, of which the ID is known only.
func lookUp(all []*Container, bad []*DamagedError, nameOrID string) (found *Container, damaged *DamagedError, err error) {
	name := strings.TrimPrefix(nameOrID, "/")
	for _, c := range all {
		if c.r.Name == name {
			return c, nil, nil
		}
	}
	n := 0
	for _, c := range all {
		if !strings.HasPrefix(c.r.ID, nameOrID) {
			continue
		}
		found = c
		n++
	}
	for _, d := range bad {
		if strings.HasPrefix(d.ID, nameOrID) {
			damaged = d
			n++
		}
	}
	switch n {
	case 0:
		return nil, nil, fail(ErrNotFound, "No such container: %s", nameOrID)
	case 1:
		return found, damaged, nil
	}
	return nil, nil, fail(ErrAmbiguous, "multiple IDs found with provided prefix: %s", nameOrID)
}

// ImageUsers returns the containers that were made from the image with that ID ("sha256:..."), for rmi, which refuses.
func (s *Store) ImageUsers(imageID string) ([]*Container, error) {
	return s.filter(func(c *Container) bool { return c.r.ImageID == imageID })
}

func (s *Store) filter(keep func(*Container) bool) ([]*Container, error) {
	all, err := s.Containers()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(c *Container) bool { return !keep(c) }), nil
}

// dir is the container's directory.
func (c *Container) dir() string { return filepath.Join(c.s.dir(), c.r.ID) }

// state reads state.json; none is the state "created". One that another run of the machine has left says what was true
// then: nothing runs.
func (c *Container) state() (*state, error) { return readState(c.dir()) }

// lock takes the container's lock, and reads its record anew. It is to be closed.
//
// Errors: ErrNotFound when it was removed meanwhile.
func (c *Container) lock() (*os.File, error) {
	f, err := lockPath(filepath.Join(c.dir(), lockFile), true)
	if err == nil {
		var now *Container
		if now, err = c.s.load(c.r.ID); err == nil {
			c.r = now.r
			return f, nil
		}
		_ = f.Close()
	}
	if missing(err) {
		return nil, fail(ErrNotFound, "No such container: %s", c.r.Name)
	}
	return nil, err
}

// save writes the record. Preconditions: the container's lock is held.
func (c *Container) saveLocked() error { return writeJSON(c.dir(), configFile, c.r) }
