package transport

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckTarget sees that target can be mounted on and returns it as the kernel will show it: absolute, without symbolic
// links, the same for every process. A passed descriptor has an empty path.
//
// The kernel is asked for the path of what it finds. Below /proc/self names are neither directories nor links with a
// content: what they lead to may have no path, or one on which something else lies by now.
func CheckTarget(target string) (string, error) {
	if fd, ok := passedFd(target); ok {
		return "", checkFd(fd)
	}
	path, err := resolve(target)
	if err != nil {
		return "", fmt.Errorf("mountpoint %s: %w", target, err)
	}
	return path, nil
}

func resolve(target string) (string, error) {
	fd, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err.(*os.PathError).Err // /proc is not mounted
	}
	var found, named unix.Stat_t
	if err := unix.Fstat(fd, &found); err != nil {
		return "", err
	}
	if err := unix.Lstat(path, &named); err != nil || found.Dev != named.Dev || found.Ino != named.Ino {
		return "", fmt.Errorf("no path leads to it (%s): %w", path, unix.ENOENT)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err == nil && st.Type == unix.PROC_SUPER_MAGIC && ofProcess(path) {
		return "", errors.New("is a process' directory, and goes with it")
	}
	return path, nil
}

// ofProcess tells whether a path in /proc goes through the directory of a process, or of a thread.
func ofProcess(path string) bool {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && strings.Trim(name, "0123456789") == "" {
			return true
		}
	}
	return false
}
