package unionfs

import (
	"strconv"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// Where an object that was copied up cannot bear its origin as an extended attribute, as symbolic links and special
// files cannot without privilege, or we could not read it there, as on a file without the right to read, the record is a
// symbolic link in the index: o-INO-BIRTH of the upper object, with the origin as its target.
const originPrefix = "o-"

type originRecord struct {
	name   string // in the index
	born   int64
	origin whiteout.Origin
}

func (h *hardlinks) loadOrigin(name, rest string) {
	inoText, bornText, ok := strings.Cut(rest, "-")
	ino, err1 := strconv.ParseUint(inoText, 10, 64)
	born, err2 := strconv.ParseInt(bornText, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return
	}
	v, err := sys.Readlink(sys.At{Dirfd: h.fs.work.index, Name: name})
	if err != nil {
		return
	}
	if o, err := whiteout.ParseOrigin(v); err == nil && o.Bearer == ino {
		h.origins[ino] = originRecord{name, born, o}
	}
}

// setOrigin records what the staged object at, with inode number ino, was copied up from. readable says whether we can
// read its attributes once it has its mode.
func (fs *FS) setOrigin(at sys.At, ino uint64, o whiteout.Origin, readable bool) error {
	o.Bearer = ino
	if readable {
		err := whiteout.SetOrigin(at, o)
		if err != unix.EPERM && err != unix.ENOTSUP && err != unix.EACCES {
			return err
		}
	}
	return fs.indexOrigin(at, o)
}

// readable reports whether we can read the user attributes of an upper object with that st_mode, which takes what
// reading its data takes (xattr(7)). It is our own where we are not root.
func (fs *FS) readable(mode uint32) bool { return fs.euid == 0 || mode&unix.S_IRUSR != 0 }

// indexOrigin records an origin in the index.
func (fs *FS) indexOrigin(at sys.At, o whiteout.Origin) error {
	rec := originRecord{born: birth(at), origin: o}
	rec.name = originPrefix + strconv.FormatUint(o.Bearer, 10) + "-" + strconv.FormatInt(rec.born, 10)
	to := sys.At{Dirfd: fs.work.index, Name: rec.name}
	if err := sys.Symlink(o.String(), to); err != nil {
		if err != unix.EEXIST {
			return err
		}
		if err := sys.Unlink(to); err != nil {
			return err
		}
		if err := sys.Symlink(o.String(), to); err != nil {
			return err
		}
	}
	fs.links.mu.Lock()
	fs.links.origins[o.Bearer] = rec
	fs.links.mu.Unlock()
	return nil
}

// keepOrigin sees that the origin of an upper object can be read also when nothing else of it can, as after chmod 0:
// then the index says it.
func (fs *FS) keepOrigin(at sys.At) error {
	if fs.euid == 0 {
		return nil
	}
	st, err := sys.Stat(at)
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return err
	}
	names, err := sys.XattrNames(at)
	if err != nil {
		return err
	}
	if o, ok := whiteout.ReadOrigin(at, st.Ino, names); ok {
		return fs.indexOrigin(at, o)
	}
	return nil // made here, or in the index already
}

// hasOrigins reports whether the index has any.
func (h *hardlinks) hasOrigins() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.origins) > 0
}

// originOf returns what the upper object at was copied up from, nil where it was made here. names are those of its
// extended attributes.
func (fs *FS) originOf(at sys.At, ino uint64, names []string) *whiteout.Origin {
	if o, ok := whiteout.ReadOrigin(at, ino, names); ok {
		return &o
	}
	fs.links.mu.Lock()
	rec, ok := fs.links.origins[ino]
	fs.links.mu.Unlock()
	if ok && rec.born == birth(at) {
		return &rec.origin
	}
	return nil
}

// dropOrigin removes the record of an upper object that is gone, so that the number may serve another.
func (fs *FS) dropOrigin(ino uint64) {
	fs.links.mu.Lock()
	rec, ok := fs.links.origins[ino]
	delete(fs.links.origins, ino)
	fs.links.mu.Unlock()
	if ok {
		_ = sys.Unlink(sys.At{Dirfd: fs.work.index, Name: rec.name}) // its birth time keeps it from harm
	}
}
