// Package sys wraps the *at(2) system calls that the union works with.
//
// A layer's content is untrusted, so nothing here takes a path of several components: an object is an [At], a
// directory's descriptor and one name in it, and is never followed when it is a symbolic link. Every call retries
// EINTR, every descriptor is close-on-exec, and raw system call numbers and unsafe live in this package only.
package sys

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// At names one object: Name in the directory open as Dirfd, or, with an empty Name, the object that Dirfd itself
// is open on (Dirfd may then be an O_PATH descriptor).
type At struct {
	Dirfd int
	Name  string
}

// Fd is the object that fd is open on.
func Fd(fd int) At { return At{Dirfd: fd} }

// proc is a path that reaches the object itself through procfs, for the calls that have no *at form. The link
// /proc/self/fd/N leads to the very object the descriptor is open on, whatever its name is by now, and whether it
// is a symbolic link itself or not (proc_pid_fd(5)).
func (a At) proc() string {
	p := "/proc/self/fd/" + strconv.Itoa(a.Dirfd)
	if a.Name != "" {
		p += "/" + a.Name
	}
	return p
}

func (a At) emptyFlag() int {
	if a.Name == "" {
		return unix.AT_EMPTY_PATH
	}
	return 0
}

// valid reports whether name is one component: the kernel never sends another, a layer could.
func valid(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// ValidName reports whether name can be the name of a directory entry: one component, not "." or "..".
func ValidName(name string) bool { return valid(name) }

func retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// Stat returns the object's attributes; a symbolic link is not followed (fstatat(2)).
func Stat(a At) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error {
		return unix.Fstatat(a.Dirfd, a.Name, &st, unix.AT_SYMLINK_NOFOLLOW|a.emptyFlag())
	})
	return st, err
}

// Statx returns the object's extended attributes as in statx(2), birth time included where the filesystem has it.
func Statx(a At, mask int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(a.Dirfd, a.Name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_SYNC_AS_STAT|a.emptyFlag(), mask, &st)
	})
	return st, err
}

// Open opens the object. An At without a name is opened anew through procfs, so that flags may ask for more than
// the descriptor at hand has. O_NOFOLLOW and O_CLOEXEC are added.
func Open(a At, flags int, mode uint32) (int, error) {
	fd := -1
	err := retry(func() (err error) {
		if a.Name == "" {
			fd, err = unix.Open(a.proc(), flags|unix.O_CLOEXEC, mode)
		} else {
			fd, err = unix.Openat(a.Dirfd, a.Name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		}
		return err
	})
	return fd, err
}

// OpenNoAtime opens the object for reading and leaves its access time alone where we may ask for that: the owner
// or CAP_FOWNER only (open(2), O_NOATIME).
func OpenNoAtime(a At, flags int) (int, error) {
	fd, err := Open(a, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = Open(a, flags, 0)
	}
	return fd, err
}

// OpenBeneath opens name in dirfd with openat2(2) so that neither a symbolic link, nor "..", nor a mount point
// leads out of the directory's own filesystem. A mount point is EXDEV.
func OpenBeneath(dirfd int, name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat2(dirfd, name, &how)
		return err
	})
	return fd, err
}

// Close closes fd. The descriptor is gone whatever close(2) says, so there is nothing to retry.
func Close(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd) // EINTR and EIO leave nothing to be done: data that must be safe was fsynced
	}
}

// Readlink returns the target of the symbolic link.
func Readlink(a At) (string, error) {
	buf := make([]byte, 256)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Readlinkat(a.Dirfd, a.Name, buf)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// Chmod sets the permission bits (07777) of an object that is not a symbolic link. Before fchmodat2(2) (6.6) the
// way to not follow a link put there meanwhile goes through an O_PATH descriptor.
func Chmod(a At, mode uint32) error {
	err := retry(func() error {
		return unix.Fchmodat(a.Dirfd, a.Name, mode&0o7777, unix.AT_SYMLINK_NOFOLLOW|a.emptyFlag())
	})
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	if a.Name != "" {
		fd, err := Open(a, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer Close(fd)
		a = Fd(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(a.Dirfd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return retry(func() error { return unix.Chmod(a.proc(), mode&0o7777) })
}

// Chown sets owner and group; -1 leaves one as it is. A symbolic link is changed itself.
func Chown(a At, uid, gid int) error {
	return retry(func() error {
		return unix.Fchownat(a.Dirfd, a.Name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|a.emptyFlag())
	})
}

// Utimens sets access and modification time; UTIME_NOW and UTIME_OMIT as in utimensat(2).
func Utimens(a At, atime, mtime unix.Timespec) error {
	times := [...]unix.Timespec{atime, mtime}
	err := retry(func() error {
		return unix.UtimesNanoAt(a.Dirfd, a.Name, times[:], unix.AT_SYMLINK_NOFOLLOW|a.emptyFlag())
	})
	if err == unix.EINVAL && a.Name == "" { // utimensat(2) takes AT_EMPTY_PATH since 5.8 only
		return retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, a.proc(), times[:], 0) })
	}
	return err
}

// Mkdir makes the directory a with exactly the permission bits in mode where the parent has no default ACL: the
// process runs with umask 0.
func Mkdir(a At, mode uint32) error {
	return retry(func() error { return unix.Mkdirat(a.Dirfd, a.Name, mode&0o7777) })
}

// Mknod makes a node of the type and permission bits in mode.
func Mknod(a At, mode uint32, rdev uint64) error {
	return retry(func() error { return unix.Mknodat(a.Dirfd, a.Name, mode, int(rdev)) })
}

// Symlink makes a symbolic link to target.
func Symlink(target string, a At) error {
	return retry(func() error { return unix.Symlinkat(target, a.Dirfd, a.Name) })
}

// Link gives the object from the further name to. An object that is held by descriptor only (O_TMPFILE) is
// reached through procfs, which needs no CAP_DAC_READ_SEARCH as AT_EMPTY_PATH does (linkat(2)).
func Link(from, to At) error {
	return retry(func() error {
		if from.Name == "" {
			return unix.Linkat(unix.AT_FDCWD, from.proc(), to.Dirfd, to.Name, unix.AT_SYMLINK_FOLLOW)
		}
		return unix.Linkat(from.Dirfd, from.Name, to.Dirfd, to.Name, 0)
	})
}

// Rename moves from to to with the flags of renameat2(2).
func Rename(from, to At, flags uint) error {
	return retry(func() error { return unix.Renameat2(from.Dirfd, from.Name, to.Dirfd, to.Name, flags) })
}

// Unlink removes the name of something that is not a directory.
func Unlink(a At) error {
	return retry(func() error { return unix.Unlinkat(a.Dirfd, a.Name, 0) })
}

// Rmdir removes the empty directory.
func Rmdir(a At) error {
	return retry(func() error { return unix.Unlinkat(a.Dirfd, a.Name, unix.AT_REMOVEDIR) })
}
