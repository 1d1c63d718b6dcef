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
	moved int // directories moved up into top
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
		r.moved++
		return Rename(a, At{r.top, ".deep" + strconv.Itoa(r.moved)}, 0)
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

// openOwn opens a directory that is on the mount of its parent, where a has one.
func openOwn(a At) (fd int, err error) {
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV}
	if a.Dirfd == unix.AT_FDCWD {
		how.Resolve = 0 // a path, which leads over mounts
	}
	open := func() error { fd, err = unix.Openat2(a.Dirfd, a.Name, how); return err }
	if err = retry(open); err == unix.EACCES {
		if err = Chmod(a, 0o700); err == nil {
			err = retry(open)
		}
	}
	return fd, err
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
	if err := ReadDir(fd, func(e Dirent) { entries = append(entries, e) }); err != nil {
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
