package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A directory of the machine cannot be exchanged for a filled one, as one of the store can: others have it open, it may be a
// mount point, and what is above it is not ours. It is filled inside, in two steps, so that a process that is killed over
// it leaves either nothing that counts or all that is missing:
//
//	.lamina-filling/...    copied to. Found later: removed, and begun anew
//	.lamina-filled/...     complete. What is in it is moved up, name by name, and owner and mode are set; found later: likewise
//
// Several volumes, of several stores, may be the same directory: who fills it holds a lock on it (flock(2)).
const (
	filling = ".lamina-filling"
	filled  = ".lamina-filled"
)

// fillBind fills a directory of the machine, unless somebody has put something there or this user may not write there.
func fillBind(ctx context.Context, path string, src *os.File) (skipped []string, err error) {
	skipped, err = fillDir(ctx, path, src)
	if errors.Is(err, errNotOurs) {
		return nil, nil // it is used as it is
	}
	return skipped, err
}

// errNotOurs is what this user may not do to the directory.
var errNotOurs = errors.New("not allowed")

// allowed turns the error of a first step into errNotOurs, where that is what it says.
func allowed(err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		return errNotOurs
	}
	return err
}

func fillDir(ctx context.Context, path string, src *os.File) (skipped []string, err error) {
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, allowed(&os.PathError{Op: "open", Path: path, Err: err})
	}
	defer sys.Close(dir) // and unlock it
	has, err := lookInto(dir)
	if err == nil && has == (found{other: true}) {
		return nil, nil // the usual case: it is in use, and whoever uses it may have locked it
	}
	if err == nil {
		err = lockDir(ctx, dir)
	}
	if err == nil {
		has, err = lookInto(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, allowed(err))
	}
	if !has.filled {
		if has.filling {
			if err := sys.RemoveAll(sys.At{Dirfd: dir, Name: filling}); err != nil {
				return nil, allowed(err)
			}
		}
		if has.other {
			return nil, nil
		}
		if skipped, err = stageIn(ctx, dir, src); err != nil {
			return nil, err
		}
	}
	if err := moveUp(int(src.Fd()), dir); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", path, filled, err)
	}
	return skipped, nil
}

// found is what is in a directory.
type found struct{ filling, filled, other bool }

func lookInto(dir int) (has found, err error) {
	err = sys.ReadDir(dir, func(e sys.Dirent) {
		has.filling = has.filling || e.Name == filling
		has.filled = has.filled || e.Name == filled
		has.other = has.other || e.Name != filling && e.Name != filled
	})
	return has, err
}

// lockPatience is how long another one may take to fill a directory.
const lockPatience = time.Minute

// lockDir waits for its turn. A filesystem without locks has none.
func lockDir(ctx context.Context, dir int) error {
	for end := time.Now().Add(lockPatience); ; {
		switch err := unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB); {
		case err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("somebody has locked it (flock), for more than %v", lockPatience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stageIn makes the copy, in dir.
func stageIn(ctx context.Context, dir int, src *os.File) (skipped []string, err error) {
	at := sys.At{Dirfd: dir, Name: filling}
	if err := sys.Mkdir(at, 0o700); err != nil {
		return nil, wrap("mkdir", filling, allowed(err))
	}
	defer func() {
		if err != nil {
			_ = sys.RemoveAll(at) // the error at hand is the one to tell
		}
	}()
	if skipped, err = copyInto(ctx, at, src); err != nil {
		return nil, err
	}
	if err := sys.Chmod(at, 0o700); err != nil { // whatever the image's is: names are moved out of it
		return nil, wrap("chmod", filling, err)
	}
	return skipped, wrap("rename", filling, sys.Rename(at, sys.At{Dirfd: dir, Name: filled}, 0))
}

// moveUp takes everything out of the complete copy of src, and the copy away. What somebody has put there by now stays.
func moveUp(src, dir int) error {
	at := sys.At{Dirfd: dir, Name: filled}
	fd, err := sys.Open(at, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return allowed(err)
	}
	defer sys.Close(fd)
	var names []string
	if err := sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return err
	}
	for _, name := range names {
		err := renameNew(sys.At{Dirfd: fd, Name: name}, sys.At{Dirfd: dir, Name: name})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return wrap("rename", name, err)
		}
	}
	st, err := sys.Stat(sys.Fd(src))
	if err != nil {
		return err
	}
	own := func() error {
		err := attributes(sys.Fd(src), sys.Fd(dir), &st)
		if err == unix.EPERM {
			return nil // a directory of somebody else's keeps its mode
		}
		return err
	}
	// While the copy is there, it is known that they are missing; and once more for the times, which its removal changes.
	if err := own(); err != nil {
		return err
	}
	if err := sys.RemoveAll(at); err != nil {
		return err
	}
	return own()
}

// renameNew replaces nothing. Errors: EEXIST.
func renameNew(from, to sys.At) error {
	err := sys.Rename(from, to, unix.RENAME_NOREPLACE)
	if err != unix.EINVAL {
		return err
	}
	if _, err := sys.Stat(to); err == nil { // a filesystem that cannot look and rename at once, as NFS
		return unix.EEXIST
	}
	return sys.Rename(from, to, 0)
}
