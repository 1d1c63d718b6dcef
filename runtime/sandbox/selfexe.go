package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openSelf opens our executable in such a way that nobody who gets hold of it, as of /proc/PID/exe of a process that
// still executes it in a container, can ever write to it (CVE-2019-5736): as a read-only mount of its own, which
// belongs to no mount namespace, or as a sealed copy in memory where the kernel has no such thing.
func openSelf(path string) (int, error) {
	if path == "" {
		path = selfPath()
	}
	fd, err := cloneReadonly(path)
	if err == nil && !forAll(fd) {
		_ = unix.Close(fd) // the clone goes with its descriptor
		fd, err = -1, unix.EACCES
	}
	if err != nil {
		fd, err = copySealed(path)
	}
	if err != nil {
		return -1, fmt.Errorf("open the own executable: %w", err)
	}
	return fd, nil
}

// selfPath is the executable by name, which is in this mount namespace; /proc/self/exe may be in the one it was
// executed in.
func selfPath() string {
	path, err := os.Executable()
	if err != nil {
		return "/proc/self/exe"
	}
	var at, exe unix.Stat_t
	if unix.Stat(path, &at) != nil || unix.Stat("/proc/self/exe", &exe) != nil || at.Dev != exe.Dev || at.Ino != exe.Ino {
		return "/proc/self/exe"
	}
	return path
}

// forAll reports whether everybody may execute the file: root of a nested user namespace is not its owner. The copy
// in memory is everybody's.
func forAll(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&0o001 != 0
}

// cloneReadonly needs open_tree(2) (5.2) and mount_setattr(2) (5.12). While a program is executed a write is ETXTBSY
// anyway; the mount makes it EROFS for those who still hold it afterwards.
func cloneReadonly(path string) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID})
	if err != nil {
		_ = unix.Close(tree) // the clone goes with its descriptor
		return -1, err
	}
	return tree, nil
}

// copySealed makes the copy. A write, by whomever, is EPERM.
func copySealed(path string) (fd int, err error) {
	src, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer src.Close()
	fd, err = unix.MemfdCreate("lamina", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("lamina", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING) // before 6.3
	}
	if err != nil {
		return -1, err
	}
	mem := os.NewFile(uintptr(fd), "lamina")
	defer mem.Close()
	if _, err := io.Copy(mem, src); err != nil {
		return -1, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return -1, err
	}
	return unix.FcntlInt(mem.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}
