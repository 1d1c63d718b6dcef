package network

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratchStem begins the names of scratch directories.
const scratchStem = "lamina-net-"

// scratch makes a directory for a socket or a pipe that is needed while a tool starts. It is locked for as long as it is in
// use; the ones that killed processes have left are not, and are removed.
func scratch() (dir string, remove func(), err error) {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), scratchStem+"*"))
	for _, old := range left {
		if f, err := lockDir(old); err == nil {
			_ = os.RemoveAll(old) // the next one that starts tries again
			_ = f.Close()         // read-only
		}
	}
	for {
		if dir, err = os.MkdirTemp("", scratchStem); err != nil {
			return "", nil, err
		}
		f, err := lockDir(dir)
		if err != nil {
			continue // somebody took it for a left one before it was locked
		}
		if _, err := os.Stat(dir); err != nil {
			_ = f.Close() // read-only
			continue      // likewise
		}
		return dir, func() {
			_ = os.RemoveAll(dir) // likewise
			_ = f.Close()         // read-only
		}, nil
	}
}

// lockDir opens and locks a directory of this user's. Others may have put anything under such a name: a pipe, of which the
// opening waits, a link, or a directory that takes long to remove.
func lockDir(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && int(st.Uid) != os.Geteuid() {
		err = unix.EPERM
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = f.Close() // read-only
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
