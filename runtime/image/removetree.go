package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// maxOpenDepth is how deep removeTree descends with a descriptor per level. What lies deeper is moved up first: a
// container can nest directories without end.
const maxOpenDepth = 64

// removeTree removes the folder path and all below it, following no link. What is not there is no error.
func removeTree(path string) error {
	top, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: path}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	defer sys.Close(top)
	r := remover{top: top}
	if err := r.empty(top, 0); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	// What was moved up is in top, and may have moved up more.
	for again := true; again; {
		before := r.moved
		if err := r.empty(top, 0); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		again = r.moved != before
	}
	if err := os.Remove(path); err != nil && !isNotExist(err) {
		return fmt.Errorf("remove %s: %w", filepath.Base(path), err)
	}
	return nil
}

type remover struct {
	top   int // the folder that all goes with
	moved int // directories moved up into top
}

// empty removes all in the directory open as fd, but for what it moved up to top.
func (r *remover) empty(fd, depth int) error {
	var entries []sys.Dirent
	if err := sys.ReadDir(fd, func(e sys.Dirent) { entries = append(entries, e) }); err != nil {
		return err
	}
	if len(entries) > 0 {
		_ = sys.Chmod(sys.Fd(fd), 0o700) // without it the first removal says why not
	}
	for _, e := range entries {
		if err := r.remove(sys.At{Dirfd: fd, Name: e.Name}, e.Type, depth); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func (r *remover) remove(a sys.At, typ uint8, depth int) error {
	if typ != unix.DT_DIR {
		switch err := sys.Unlink(a); err {
		case nil, unix.ENOENT:
			return nil
		case unix.EISDIR, unix.EPERM: // a directory after all
		default:
			return err
		}
	}
	if depth == maxOpenDepth {
		r.moved++
		return sys.Rename(a, sys.At{Dirfd: r.top, Name: ".deep" + strconv.Itoa(r.moved)}, 0)
	}
	fd, err := sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES {
		if err = sys.Chmod(a, 0o700); err == nil {
			fd, err = sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	err = r.empty(fd, depth+1)
	sys.Close(fd)
	if err != nil {
		return err
	}
	if err := sys.Rmdir(a); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
