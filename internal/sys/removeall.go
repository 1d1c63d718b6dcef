package sys

import (
	"errors"
	"io/fs"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxOpenDepth is how deep RemoveAll descends with a descriptor per level. What lies deeper is moved up first: who runs in a
// container can nest directories without end.
const maxOpenDepth = 64

// RemoveAll removes the object and, when it is a directory, all below it, of any depth, without following links and without
// entering what is mounted there. What is not there is no error. Directories without permission bits are opened up first: they
// are our own.
//
// Errors: *fs.PathError, with the path from a's name on; EBUSY of a mount point.
func RemoveAll(a At) error {
	r := &remover{top: -1}
	if err := r.remove(a, unix.DT_UNKNOWN, 0); err != nil {
		return inside(a.Name, err)
	}
	return nil
}

// RemovePath is RemoveAll of a path, which may lead over mounts and links.
func RemovePath(path string) error { return RemoveAll(At{unix.AT_FDCWD, path}) }

// remover removes one tree.
type remover struct {
	top   int // the directory that all goes with; -1 before it is open
	moved int // the last number given to a directory moved up into top
}

// remove removes what is at a, depth levels below top.
func (r *remover) remove(a At, typ uint8, depth int) error {
	if typ != unix.DT_DIR {
		switch err := Unlink(a); err {
		case nil, unix.ENOENT:
			return nil
		case unix.EISDIR, unix.EPERM: // a directory after all
		default:
			return err
		}
	}
	if depth > maxOpenDepth {
		return r.moveUp(a)
	}
	fd, err := openOwn(a)
	switch {
	case err == unix.ENOENT:
		return nil
	case err == unix.EXDEV:
		return unix.EBUSY
	case err == unix.ENOTDIR || err == unix.ELOOP:
		return Unlink(a) // it is none: this says why it cannot be removed
	case err != nil:
		return err
	}
	if r.top < 0 {
		r.top = fd
		err = r.emptyTop()
	} else {
		err = r.empty(fd, depth)
	}
	Close(fd)
	if err != nil {
		return err
	}
	if err := Rmdir(a); err != unix.ENOENT {
		return err
	}
	return nil
}

// moveUp moves the directory a into top, under a name that nothing has there.
func (r *remover) moveUp(a At) error {
	for opened := false; ; {
		r.moved++
		switch err := Rename(a, At{r.top, ".deep" + strconv.Itoa(r.moved)}, 0); {
		case err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.ENOTDIR: // something has
		case err == unix.EACCES && !opened: // its ".." is written to
			opened = true
			if err := Chmod(a, 0o700); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// openOwn opens a directory that is on the mount of its parent, where a has one.
func openOwn(a At) (fd int, err error) {
	open := openUnmounted
	if a.Dirfd == unix.AT_FDCWD {
		open = Open // a path, which leads over mounts
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	if fd, err = open(a, flags, 0); err == unix.EACCES {
		if err = Chmod(a, 0o700); err == nil {
			fd, err = open(a, flags, 0)
		}
	}
	return fd, err
}

// openUnmounted is Open of what nothing is mounted on: EXDEV otherwise. A kernel before 5.6, or a seccomp profile, has no
// openat2(2); rmdir(2) of what is not empty is told of a mount first.
func openUnmounted(a At, flags int, mode uint32) (int, error) {
	fd, err := OpenBeneath(a.Dirfd, a.Name, flags)
	if err != unix.ENOSYS {
		return fd, err
	}
	switch err := Rmdir(a); err {
	case unix.ENOTEMPTY, unix.EEXIST:
		return Open(a, flags, mode)
	case nil:
		return -1, unix.ENOENT
	case unix.EBUSY:
		return -1, unix.EXDEV
	default:
		return -1, err
	}
}

// emptyTop removes all in top. What was moved up is in there too, and may have moved up more.
func (r *remover) emptyTop() error {
	for {
		before := r.moved
		if err := r.empty(r.top, 0); err != nil || r.moved == before {
			return err
		}
	}
}

// empty removes all in the directory open as fd, but for what it moves up to top.
func (r *remover) empty(fd, depth int) error {
	var entries []Dirent
	err := ReadDir(fd, func(e Dirent) { entries = append(entries, e) })
	if err != nil && err != unix.ENOENT { // the directory itself was removed: somebody else is at it too
		return err
	}
	if len(entries) > 0 {
		_ = Chmod(Fd(fd), 0o700) // without it the first removal says why not
	}
	for _, e := range entries {
		if err := r.remove(At{fd, e.Name}, e.Type, depth+1); err != nil {
			return inside(e.Name, err)
		}
	}
	return nil
}

// inside says where err was, below name.
func inside(name string, err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	at.Path = path.Join(name, at.Path)
	return at
}
