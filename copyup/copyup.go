// Package copyup makes the upper copy of a lower object: a file that appears complete or not at all.
//
// A copy is built in the staging directory, which lies in the workdir on the upper's filesystem:
//
//	lower/a ──> work/3: create, data, owner, xattrs, marks, ACL, mode, times, fsync ──> (caller) rename to upper/a
//
// The order is forced. A write moves mtime and drops set-id bits and file capabilities; chown drops both as well; a
// user attribute can be set only while the owner may write; the access ACL is part of the mode. So a crash or
// failure at any step leaves the upper as it was, and in the staging directory something that [Stager.Discard]
// or the next mount's [Stager.Clean] removes.
//
// Inode flags of the lower (immutable, append-only, no-copy-on-write; ioctl_iflags(2)) are not copied, as kernel
// overlayfs does not at first either: with them the copy could neither be changed, which is why it is made, nor be
// renamed.
//
// The package holds no lock over a system call. That an object is copied up once, and who waits for it, is the
// caller's concern.
package copyup

import (
	"fmt"

	"github.com/laminafs/lamina/internal/fault"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// ErrLowerChanged is returned when a lower object is not, or does not remain, what it was when it was looked up:
// someone changes a layer under the mount. It is EIO to the program.
var ErrLowerChanged = fmt.Errorf("lower object changed under the mount: %w", unix.EIO)

// The points at which a copy can be made to fail, each after the step it is named after.
var (
	afterCreate = fault.New("copyup.create")
	afterChunk  = fault.New("copyup.chunk") // after every write of data
	afterData   = fault.New("copyup.data")
	afterOwner  = fault.New("copyup.owner")
	afterXattr  = fault.New("copyup.xattr")
	afterMark   = fault.New("copyup.mark")
	afterMode   = fault.New("copyup.mode")
	afterTimes  = fault.New("copyup.times")
	afterSync   = fault.New("copyup.sync")
)

// Source is the lower object.
type Source struct {
	At   sys.At
	Stat unix.Stat_t // as found at lookup: device, inode and type must still be the same

	// Data is the object with the data of a regular file that holds none itself (metacopy); nil where At holds it.
	// It has the same size.
	Data *sys.At
}

// Meta is what the copy shall have.
type Meta struct {
	UID, GID     uint32        // as stored in the upper
	Mode         uint32        // full st_mode; without type bits the type is the source's
	Rdev         uint64        // of a device
	Atime, Mtime unix.Timespec // UTIME_NOW and UTIME_OMIT as in utimensat(2)
}

// MetaOf is the metadata of an object with attributes st.
func MetaOf(st *unix.Stat_t) Meta {
	return Meta{UID: st.Uid, GID: st.Gid, Mode: st.Mode, Rdev: st.Rdev, Atime: st.Atim, Mtime: st.Mtim}
}

// ObjectOptions says what of the source the copy gets.
type ObjectOptions struct {
	// Limit is how many bytes of a regular file are copied, from its beginning; the copy is not longer. -1 copies
	// all of it, 0 nothing, as suits O_TRUNC.
	Limit int64

	// KeepXattr says whether the attribute, by its name in the layer, is copied. Default: all but those that are
	// some union filesystem's own (whiteout.Owned).
	KeepXattr func(stored string) bool

	// SkipXattr copies no attribute at all.
	SkipXattr bool

	// KeepOpen leaves the descriptor through which a regular file was made open, for reading and writing: Copy.Fd.
	KeepOpen bool

	// Mark, if set, puts attributes of the caller on the copy. It is called when the copy has its owner and
	// attributes and not yet its mode: an owner without privilege cannot set a user attribute on a file that is
	// read-only. ino is the copy's inode number.
	Mark func(copy sys.At, ino uint64) error
}

// Copy is what was made.
type Copy struct {
	At    sys.At // where it is: a name in the staging directory, or the descriptor of an anonymous copy
	Ino   uint64 // its inode number
	Fd    int    // with KeepOpen, of a regular file: it belongs to the caller; else -1
	Bytes int64  // written; holes and reflinked data are not counted
}

// Object makes a copy of the source in the staging directory: of a regular file with its data, of a directory
// without its entries. The caller renames it into place, or discards it.
//
// Errors: ENOSPC, EDQUOT, EIO and so on of the step that failed, with the staging directory as it was;
// ErrLowerChanged; EPERM where the owner cannot be set, or a device not be made, for want of privilege; EINVAL for
// a Meta of another type than the source that the source's content cannot be turned into.
// Source: kernel overlayfs.rst, "Non-directories"; fs/overlayfs/copy_up.c, ovl_copy_up_metadata.
func (s *Stager) Object(src Source, m Meta, opt ObjectOptions) (c Copy, err error) {
	if m.Mode&unix.S_IFMT == 0 {
		m.Mode |= src.Stat.Mode & unix.S_IFMT
	}
	dst := s.Temp()
	defer func() {
		if err != nil {
			s.Discard(dst)
			c, err = Copy{}, fmt.Errorf("copy up: %w", err)
		}
	}()
	switch m.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return s.regular(dst, src, m, opt)
	case unix.S_IFDIR:
		return s.dir(dst, src, m, opt)
	case unix.S_IFLNK:
		return s.symlink(dst, src, m, opt)
	default:
		return s.special(dst, src, m, opt)
	}
}

// Anonymous makes a copy of a regular file that no longer has a name, and gives it none. fd is open for reading
// and writing, and the copy is gone once the last descriptor for it is closed.
//
// Errors: as Object.
func (s *Stager) Anonymous(src Source, m Meta, opt ObjectOptions) (fd int, c Copy, err error) {
	fd, err = s.createAnonymous()
	if err == nil {
		c, err = s.fillRegular(fd, src, m, opt)
	}
	if err != nil {
		sys.Close(fd)
		return -1, Copy{}, fmt.Errorf("copy up: %w", err)
	}
	c.At, c.Fd = sys.Fd(fd), -1
	return fd, c, nil
}

// step is the result of one step: an error of its own, or the one of the fault point after it.
func step(op string, err error, after fault.P) error {
	if err == nil {
		err = after.Hit()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}
