package unionfs

import (
	"errors"
	"sync/atomic"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// dir is one directory in one layer. Its descriptor is opened when needed, relative to its parent's, and may be
// closed again at any time; so a directory is reached at any depth, and the number of descriptors is bounded.
type dir struct {
	layer *layer
	fd    cachedFd

	// where is nil for the root of a layer. Only an upper directory ever moves; moves counts how often it began or
	// ended to, so that who opened it by its old name notices.
	where atomic.Pointer[place]
	moves atomic.Uint32

	// marked says that empty files in it may be whiteouts by their attribute (whiteout.Marks.Whiteouts).
	marked bool
}

type place struct {
	parent *dir
	name   string
}

func newDir(l *layer, parent *dir, name string) *dir {
	d := &dir{layer: l}
	d.where.Store(&place{parent, name})
	return d
}

// errSealed is returned when a directory of a layer is a mount point of something else, which is not part of the
// layer. It counts as empty.
var errSealed = errors.New("a mount point in a layer")

// openDir returns an O_PATH descriptor of d, for use until releaseDir.
func (fs *FS) openDir(d *dir) (int, error) {
	if d.where.Load() == nil {
		return d.layer.fd, nil
	}
	if fd, ok := fs.fds.acquire(&d.fd); ok {
		return fd, nil
	}
	fd, err := fs.openPlace(d, unix.O_PATH)
	if err != nil {
		if fd, ok := fs.fds.acquire(&d.fd); ok {
			return fd, nil // who is about to move it holds it open, and has moved it by now
		}
		return -1, err
	}
	return fs.fds.install(&d.fd, fd), nil
}

// openPlace opens d, which is not the root of a layer, where it is now.
func (fs *FS) openPlace(d *dir, flags int) (int, error) {
	for {
		moves := d.moves.Load()
		at := d.where.Load()
		pfd, err := fs.openDir(at.parent)
		if err != nil {
			return -1, err
		}
		fd, err := sys.OpenBeneath(pfd, at.name, flags|unix.O_DIRECTORY)
		fs.releaseDir(at.parent)
		if d.moves.Load() != moves {
			sys.Close(fd)
			continue
		}
		if err == unix.EXDEV {
			return -1, errSealed
		}
		return fd, err
	}
}

func (fs *FS) releaseDir(d *dir) {
	if d.where.Load() != nil {
		fs.fds.release(&d.fd)
	}
}

// moveDir tells that d, an upper directory whose descriptor the caller holds open, is called name in parent from
// now on. Holding it open keeps others from opening it by a name that is about to change.
func (d *dir) moveDir(parent *dir, name string) {
	d.moves.Add(1)
	d.where.Store(&place{parent, name})
	d.moves.Add(1)
}

// readDir calls fn for every entry of d, and leaves its access time alone.
func (fs *FS) readDir(d *dir, fn func(sys.Dirent)) error {
	l, err := fs.openList(d)
	if err == errSealed {
		return nil
	}
	if err != nil {
		return err
	}
	defer fs.closeList(l, false)
	return sys.ReadDirOn(l.fd, fn)
}

// openedList is a directory that was opened to be listed, at its beginning.
type openedList struct {
	d     *dir
	fd    int
	fresh bool // nobody had d open
}

// openList opens d to list it, for use until closeList. Its access time is left alone.
func (fs *FS) openList(d *dir) (l openedList, err error) {
	l.d = d
	fd := d.layer.fd
	if d.where.Load() != nil {
		var open bool
		if fd, open = fs.fds.acquire(&d.fd); !open {
			l.fresh = true
			l.fd, err = fs.openPlace(d, unix.O_RDONLY|unix.O_NOATIME)
			if err == unix.EPERM {
				l.fd, err = fs.openPlace(d, unix.O_RDONLY)
			}
			return l, err
		}
		defer fs.releaseDir(d)
	}
	l.fd, err = reopen(fd, unix.O_RDONLY|unix.O_NOATIME)
	return l, err
}

// closeList ends the use of l. keep says that what is in the directory will be looked at: then the descriptor serves for that.
func (fs *FS) closeList(l openedList, keep bool) {
	if l.fresh && keep {
		fs.fds.install(&l.d.fd, l.fd)
		fs.releaseDir(l.d)
		return
	}
	sys.Close(l.fd)
}

// reopen opens the directory that fd is open on a second time, since fd, mostly from O_PATH, can do less: neither list
// nor sync, nor stay open for itself. O_NOATIME is given up where it is not ours to ask for.
func reopen(fd, flags int) (int, error) {
	at := sys.At{Dirfd: fd, Name: "."}
	if flags&unix.O_NOATIME != 0 {
		return sys.OpenNoAtime(at, flags&^unix.O_NOATIME|unix.O_DIRECTORY)
	}
	return sys.Open(at, flags|unix.O_DIRECTORY, 0)
}

// reopenUpper is reopen, to list or to sync, of the upper of the directory n. It is -1 where that has none, or was
// removed.
func (fs *FS) reopenUpper(n *node) (int, error) {
	n.loc.RLock()
	defer n.loc.RUnlock()
	d := n.dir.upper
	if d == nil || n.dir.final != nil {
		return -1, nil
	}
	fd, err := fs.openDir(d)
	if err != nil {
		return -1, err
	}
	defer fs.releaseDir(d)
	return reopen(fd, unix.O_RDONLY)
}

// accessed moves the access time of an upper directory that is listed from memory, as the mount it is in wants that
// (relatime, say): by reading from it.
func (fs *FS) accessed(n *node) {
	if fs.cfg.NoAtime {
		return
	}
	list, err := fs.reopenUpper(n)
	if err != nil || list < 0 {
		return
	}
	defer sys.Close(list)
	var buf [4096]byte
	_, _ = unix.Getdents(list, buf[:]) // for its effect on the time, which is best effort
	n.changed()
}

// gone reports whether the directory was removed.
func (s *dirState) gone() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dead
}
