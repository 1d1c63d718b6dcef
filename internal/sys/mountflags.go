package sys

import "golang.org/x/sys/unix"

// RemountFlags are the flags of mount(2) that give a mount the attributes (MOUNT_ATTR_*) in set and take those in clear: for kernels
// before Linux 5.12, which do not have mount_setattr(2). fd is open on the mount. What it has already is asked for again: a remount
// sets all, and a user namespace may not take off what came from outside.
//
// Errors: those of fstatfs(2).
func RemountFlags(fd int, set, clear uint64) (uintptr, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	for _, f := range []struct {
		st   int64
		attr uint64
		ms   uintptr
	}{
		{unix.ST_RDONLY, unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID},
		{unix.ST_NODEV, unix.MOUNT_ATTR_NODEV, unix.MS_NODEV}, {unix.ST_NOEXEC, unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME}, {unix.ST_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, 0, unix.MS_RELATIME},
	} {
		has := int64(st.Flags)&f.st != 0 && clear&f.attr == 0
		if has || set&f.attr != 0 {
			flags |= f.ms
		}
	}
	return flags, nil
}
