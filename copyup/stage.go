package copyup

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Options is how a Stager works.
type Options struct {
	// Work is the staging directory, open, on the upper's filesystem. It belongs to the Stager alone; the descriptor
	// remains the caller's.
	Work int

	// Sync waits until the data of a copy is on disk, so that after a crash of the machine the name is never that
	// of a file with holes where data was.
	Sync bool
}

// Stager makes objects in the staging directory. It may be used by several goroutines.
type Stager struct {
	o    Options
	last atomic.Uint64 // number of the name last given out

	noClone sync.Map // st_dev of filesystems that share no blocks with the upper's
}

// NewStager returns a Stager for the directory. Clean it before the first use.
func NewStager(o Options) *Stager { return &Stager{o: o} }

// Temp returns a name in the staging directory that nothing has, nor will have, in this mount. It looks like those of
// kernel overlayfs: fs/overlayfs/dir.c, ovl_tempname.
func (s *Stager) Temp() sys.At {
	return sys.At{Dirfd: s.o.Work, Name: "#" + strconv.FormatUint(s.last.Add(1), 16)}
}

// Clean empties the staging directory of what an earlier mount left there, and takes ACLs from it that everything
// made in it would inherit.
//
// Errors: of the first object that could not be removed, after all the others were.
func (s *Stager) Clean() error {
	for _, acl := range []string{aclDefault, aclAccess} {
		_ = sys.Removexattr(sys.Fd(s.o.Work), acl) // mostly there is none, or no such thing
	}
	fd, err := sys.Open(sys.At{Dirfd: s.o.Work, Name: "."}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("clean staging directory: %w", err)
	}
	defer sys.Close(fd)
	var names []string
	if err := sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return fmt.Errorf("clean staging directory: %w", err)
	}
	var first error
	for _, name := range names {
		if err := s.remove(sys.At{Dirfd: s.o.Work, Name: name}); err != nil && first == nil {
			first = fmt.Errorf("clean staging directory: remove %q: %w", name, err)
		}
	}
	return first
}

// Discard removes a, with all below it when it is a directory. What it cannot remove is left to the next Clean.
func (s *Stager) Discard(a sys.At) {
	_ = s.remove(a) // best effort: nothing in the staging directory is ever seen
}

// remove removes a and all below it, not following links. That there is no a is no error.
//
// A tree of any depth takes one descriptor at a time: directories that are not empty are first moved up into the
// staging directory. A mount point on the way is EBUSY, and what is mounted there stays.
func (s *Stager) remove(a sys.At) error {
	err := removeOne(a)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	for dirs := []sys.At{a}; len(dirs) > 0; {
		dir := dirs[len(dirs)-1]
		moved, err := s.empty(dir)
		if err != nil {
			return err
		}
		if err := sys.Rmdir(dir); err != nil {
			return err
		}
		dirs = append(dirs[:len(dirs)-1], moved...)
	}
	return nil
}

// removeOne removes what is not a directory, or an empty one. Errors: ENOTEMPTY for another directory.
func removeOne(a sys.At) error {
	err := sys.Unlink(a)
	if err == unix.EISDIR || err == unix.EPERM { // POSIX lets unlink(2) of a directory be EPERM
		if errDir := sys.Rmdir(a); errDir != unix.ENOTDIR {
			err = errDir
		}
	}
	switch err {
	case unix.ENOENT:
		return nil
	case unix.EEXIST:
		return unix.ENOTEMPTY // POSIX allows either
	}
	return err
}

// empty removes the entries of the directory, or moves them to the staging directory and returns where. The directory's
// mode stays as it is: who has a removed directory open still sees it.
func (s *Stager) empty(dir sys.At) (moved []sys.At, err error) {
	fd, err := sys.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES {
		var restore func()
		if restore, err = lendRights(dir); err == nil {
			defer restore()
			fd, err = sys.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	defer sys.Close(fd)
	var names []string
	if err := sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return nil, err
	}
	lent := false
	for _, name := range names {
		to, err := s.takeOut(sys.At{Dirfd: fd, Name: name})
		if errors.Is(err, unix.EACCES) && !lent {
			lent = true
			restore, errLend := lendRights(sys.Fd(fd))
			if errLend == nil {
				defer restore()
				to, err = s.takeOut(sys.At{Dirfd: fd, Name: name})
			}
		}
		if err != nil {
			return moved, err
		}
		if to.Name != "" {
			moved = append(moved, to)
		}
	}
	return moved, nil
}

// lendRights gives the owner of a directory, who is no root, all rights on it until restore is called.
func lendRights(dir sys.At) (restore func(), err error) {
	st, err := sys.Stat(dir)
	if err == nil {
		err = sys.Chmod(dir, 0o700)
	}
	return func() { _ = sys.Chmod(dir, st.Mode&0o7777) }, err // it is on its way out: nobody may be left to see
}

// takeOut removes the entry, or moves a directory that is not empty to the staging directory and returns where.
func (s *Stager) takeOut(entry sys.At) (to sys.At, err error) {
	err = removeOne(entry)
	if err == unix.ENOTEMPTY {
		return s.moveUp(entry)
	}
	return sys.At{}, err
}

// TakeDir renames the directory dir to a name in the staging directory, as renameat2(2) does with flags. Without
// privilege that takes the right to write to the directory itself, since its ".." changes, which removing it does not.
func (s *Stager) TakeDir(dir, to sys.At, flags uint) error {
	err := sys.Rename(dir, to, flags)
	if err != unix.EACCES {
		return err
	}
	st, errStat := sys.Stat(dir)
	if errStat != nil || sys.Chmod(dir, 0o700) != nil {
		return err
	}
	at := to
	if err = sys.Rename(dir, to, flags); err != nil {
		at = dir
	}
	_ = sys.Chmod(at, st.Mode&0o7777) // only who has it open can see
	return err
}

// moveUp moves a directory into the staging directory.
func (s *Stager) moveUp(dir sys.At) (sys.At, error) {
	for {
		to := s.Temp()
		err := s.TakeDir(dir, to, 0)
		switch err {
		case unix.EEXIST, unix.ENOTEMPTY, unix.ENOTDIR: // a leftover of an earlier mount has the name
			continue
		}
		return to, err
	}
}
