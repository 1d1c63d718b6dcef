// Package volume keeps named volumes: directories that containers share and that outlive them.
//
//	<root>/volumes/<name>/_data       what is mounted in the container
//	<root>/volumes/<name>/opts.json   labels, when it was made, whether it was filled
//	<root>/volumes/.lock              flock: shared to look a name up, exclusive to make or take one away
//	<root>/volumes/.new-*, .old-*     a volume that is being made or removed
//
// A volume is made beside its name and renamed to it, and renamed away before it is removed, so that after a kill -9 it is
// there or not. What such an end leaves bears a name that no volume can have, and goes with the next change.
//
// Whether a volume is in use is known to those who keep containers: they give a function. A container that is being made
// has to be seen by it before Create is called for its volumes; then nobody removes them in between.
package volume

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/jsontext"
	"github.com/laminafs/lamina/internal/sys"
)

// AnonymousLabel marks a volume that nobody named, as Docker does.
const AnonymousLabel = "com.docker.volume.anonymous"

var (
	// ErrNotFound is returned for a name that no volume has; it answers errors.Is for fs.ErrNotExist.
	ErrNotFound error = notFound{}
	// ErrInUse is returned by Remove for a volume that a container has.
	ErrInUse = errors.New("volume is in use")
)

// notFound is the type of ErrNotFound.
type notFound struct{}

func (notFound) Error() string { return "no such volume" }

func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// Users names the containers that have a volume. It is called with the store locked.
type Users func(name string) ([]string, error)

// A DamagedError is returned for a volume of which the record cannot be read. We replace records whole: it was others, or
// the disk. Remove takes it away.
type DamagedError struct {
	Name string // of the volume
	Path string // of the file
	Err  error  // why it cannot be read
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("volume %s is damaged: %s: %v", e.Name, e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Store is the volumes below one root.
type Store struct {
	dir string

	// Damaged is told of what is left out of a list, as often as that happens, with the store locked; nil is silent.
	Damaged func(*DamagedError)
}

// Volume is one volume as it was when it was looked up.
type Volume struct {
	Name      string
	CreatedAt time.Time
	Labels    map[string]string
	Options   map[string]string // as given to Create
	Anonymous bool

	dir string
}

// options is opts.json.
type options struct {
	CreatedAt time.Time
	Labels    map[string]string `json:",omitempty"`
	Options   map[string]string `json:",omitempty"`
	Anonymous bool              `json:",omitempty"`
	Filled    bool              `json:",omitempty"` // what the image has at its place was copied, or there was nothing to copy
}

const (
	dataDir  = "_data"
	optsFile = "opts.json"
	lockFile = ".lock"
	newStem  = ".new-"
	oldStem  = ".old-"
)

// Open makes the directory, if it is not there yet, and takes nothing.
func Open(root string) (*Store, error) {
	s := &Store{dir: filepath.Join(root, "volumes")}
	// As Docker's: others may pass through, to what a volume's own modes let them see, and not list.
	if err := os.MkdirAll(s.dir, 0o711); err != nil {
		return nil, err
	}
	return s, nil
}

// names are what Docker lets a volume be called.
var names = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`) })

// CheckName tells what is wrong with a name.
func CheckName(name string) error {
	if len(name) == 1 {
		return errors.New("volume name is too short, names should be at least two alphanumeric characters")
	}
	if !names().MatchString(name) {
		return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name)
	}
	if len(name) > 255 {
		return fmt.Errorf("volume name is too long: %d characters, 255 are allowed", len(name))
	}
	return nil
}

// lock takes the store's lock; the closing of the file releases it, and so does the end of the process.
func (s *Store) lock(how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("lock %s: %w", f.Name(), err)
			}
			return nil
		}
	}
}

// sweep removes what killed processes left; what cannot be removed, the next change tries again. Preconditions: the lock is
// held exclusively, so that nobody is at it.
//
// Errors: fs.ErrPermission, where not root but an ordinary user asks: he has one try more, with all IDs.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil // who asks makes something here, and is told
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newStem) || strings.HasPrefix(e.Name(), oldStem) {
			errs = append(errs, sys.RemovePath(filepath.Join(s.dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return err
	}
	return nil
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Create makes a volume, or returns the one of that name, whose labels stay as they are. Without a name it is anonymous
// and gets one of 64 digits.
//
// Errors: a name that none can have; options that cannot be had, or that differ from those of the volume that is there; those of
// sweep.
func (s *Store) Create(name string, labels, opts map[string]string) (*Volume, error) {
	if err := jsontext.Check(labels, opts); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	if err := checkOptions(name, opts); err != nil {
		return nil, err
	}
	o := options{CreatedAt: time.Now().UTC().Truncate(time.Second), Labels: maps.Clone(labels), Options: maps.Clone(opts)}
	_, o.Anonymous = labels[AnonymousLabel] // one whose name its container has chosen beforehand
	if name == "" {
		name, o.Anonymous = random(32), true
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[AnonymousLabel] = ""
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l, err := s.lock(unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if v, err := s.read(name); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = v.agree(opts)
		}
		if err != nil {
			return nil, err
		}
		return v, nil
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	staged := filepath.Join(s.dir, newStem+random(8))
	if err := stage(staged, o); err != nil {
		_ = sys.RemovePath(staged) // the error at hand is the one to tell
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	if err := os.Rename(staged, filepath.Join(s.dir, name)); err != nil {
		_ = sys.RemovePath(staged) // likewise
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	return s.read(name)
}

// Check tells what Create would say to a name and options, and makes nothing.
func (s *Store) Check(name string, opts map[string]string) error {
	if err := errors.Join(CheckName(name), checkOptions(name, opts)); err != nil {
		return err
	}
	v, err := s.Get(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return v.agree(opts)
}

func checkOptions(name string, opts map[string]string) error {
	if _, err := parseOptions(opts); err != nil {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	return nil
}

// agree refuses options that are not those of the volume; none are always right.
func (v *Volume) agree(opts map[string]string) error {
	if len(opts) > 0 && !maps.Equal(v.Options, opts) {
		return fmt.Errorf("create volume %s: it exists, with other options", v.Name)
	}
	return nil
}

// stage makes what a volume consists of.
func stage(dir string, o options) error {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	data := filepath.Join(dir, dataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(data, 0o755); err != nil { // whatever the umask is: the container's users are not this one
		return err
	}
	return writeOptions(dir, o)
}

// writeOptions replaces opts.json. Preconditions: nobody else does, by a lock on the volume or because nobody knows of it.
func writeOptions(dir string, o options) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	staged := filepath.Join(dir, optsFile+".new")
	f, err := os.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(staged, filepath.Join(dir, optsFile))
}

// read looks a volume up. Errors: ErrNotFound, *DamagedError.
func (s *Store) read(name string) (*Volume, error) {
	v := &Volume{Name: name, dir: filepath.Join(s.dir, name)}
	o, err := v.options()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		if why, ok := sys.OfFile(err); ok {
			return nil, &DamagedError{Name: name, Path: filepath.Join(v.dir, optsFile), Err: why} // the path is in the text once
		}
		return nil, fmt.Errorf("volume %s: %w", name, err)
	}
	v.CreatedAt, v.Labels, v.Options, v.Anonymous = o.CreatedAt, o.Labels, o.Options, o.Anonymous
	return v, nil
}

func (v *Volume) options() (o options, err error) {
	b, err := os.ReadFile(filepath.Join(v.dir, optsFile))
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	return o, err
}

// Get looks a volume up. Errors: ErrNotFound.
func (s *Store) Get(name string) (*Volume, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	l, err := s.lock(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return s.read(name)
}

// List returns all volumes, by name. Damaged ones are left out, and told of.
func (s *Store) List() ([]*Volume, error) {
	l, err := s.lock(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return s.list()
}

func (s *Store) list() ([]*Volume, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var vs []*Volume
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue
		}
		v, err := s.read(e.Name())
		var d *DamagedError
		switch {
		case err == nil:
			vs = append(vs, v)
		case errors.Is(err, fs.ErrNotExist): // a directory that somebody put here
		case !errors.As(err, &d):
			return nil, err
		case s.Damaged != nil:
			s.Damaged(d)
		}
	}
	return vs, nil
}

// Remove removes a volume that nobody uses, with all that is in it, damaged or not.
//
// Errors: ErrNotFound, ErrInUse (it names the containers).
func (s *Store) Remove(name string, users Users) error {
	l, err := s.lock(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer l.Close()
	if CheckName(name) != nil {
		return fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	var d *DamagedError
	if _, err := s.read(name); err != nil && !errors.As(err, &d) {
		return err
	}
	who, err := users(name)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if len(who) > 0 {
		return fmt.Errorf("remove %s: %w - [%s]", name, ErrInUse, strings.Join(who, ", "))
	}
	return s.remove(name, l)
}

// remove renames the volume away and lets go of the lock before the long part.
func (s *Store) remove(name string, l *os.File) error {
	old := filepath.Join(s.dir, oldStem+random(8))
	if err := os.Rename(filepath.Join(s.dir, name), old); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := flock(l, unix.LOCK_UN); err != nil {
		return err
	}
	if err := sys.RemovePath(old); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Prune removes the volumes that nobody uses and that keep, when it is not nil, does not want: the anonymous ones, or with
// all every one. It returns their names, and how many bytes of disk they had.
func (s *Store) Prune(all bool, users Users, keep func(*Volume) bool) (removed []string, bytes int64, err error) {
	vs, err := s.List()
	if err != nil {
		return nil, 0, err
	}
	for _, v := range vs {
		if !all && !v.Anonymous || keep != nil && keep(v) {
			continue
		}
		who, err := users(v.Name)
		if err != nil {
			return removed, bytes, fmt.Errorf("prune %s: %w", v.Name, err)
		}
		if len(who) > 0 {
			continue
		}
		size, err := v.Size()
		if err != nil {
			return removed, bytes, err
		}
		// Asked again with the lock held: a container may have come meanwhile.
		if err := s.Remove(v.Name, users); errors.Is(err, ErrInUse) || errors.Is(err, ErrNotFound) {
			continue
		} else if err != nil {
			return removed, bytes, err
		}
		removed = append(removed, v.Name)
		bytes += size
	}
	return removed, bytes, nil
}

// Mountpoint is the directory that a container gets.
func (v *Volume) Mountpoint() string { return filepath.Join(v.dir, dataDir) }

// Size is how many bytes of disk the volume takes; a file with several names counts once. What goes meanwhile, or cannot be
// looked at, does not count: what is in a volume is its containers' to make, as deep as they like.
func (v *Volume) Size() (int64, error) {
	fd, err := unix.Open(v.Mountpoint(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: v.Mountpoint(), Err: err}
	}
	defer sys.Close(fd)
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: v.Mountpoint(), Err: err}
	}
	return st.Blocks*512 + sizeBelow(fd, map[inode]bool{}), nil
}

// sizeBelow is what is in a directory. counted are the files with several names that are.
func sizeBelow(fd int, counted map[inode]bool) (n int64) {
	var names []string
	if sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) }) != nil {
		return 0
	}
	for _, name := range names {
		at := sys.At{Dirfd: fd, Name: name}
		st, err := sys.Stat(at)
		if err != nil || !sys.ValidName(name) {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if sub, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
				n += sizeBelow(sub, counted)
				sys.Close(sub)
			}
		} else if st.Nlink > 1 {
			if counted[inode{st.Dev, st.Ino}] {
				continue
			}
			counted[inode{st.Dev, st.Ino}] = true
		}
		n += st.Blocks * 512
	}
	return n
}

// API is the volume as `docker volume inspect` has it.
func (v *Volume) API() volume.Volume {
	labels := v.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	opts := v.Options
	if opts == nil {
		opts = map[string]string{}
	}
	return volume.Volume{
		Name: v.Name, Driver: "local", Scope: "local", Mountpoint: v.Mountpoint(), Labels: labels,
		CreatedAt: v.CreatedAt.Format(time.RFC3339), Options: opts,
	}
}
