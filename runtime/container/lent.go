package container

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An ordinary user's process in no user namespace of ours has his supplementary groups. In one it has not, and a container's
// monitor has not: what could be reached by such a group only would be found, or made, outside, and missed by the monitor.

// hasGroups tells whether this process is outside and has supplementary groups.
var hasGroups = sync.OnceValue(func() bool {
	groups, err := os.Getgroups()
	own := os.Getegid()
	return !entered() && (err != nil || slices.ContainsFunc(groups, func(g int) bool { return g != own }))
})

// lent refuses a path that may be out of reach without supplementary groups. want are the bits that are needed of the object
// itself, as of S_IRWXO; of one that is not there yet its directory is written to. What is wrong with a path besides is left to
// be told by who uses it.
//
// Errors: fs.ErrPermission.
func lent(path string, want uint32) error {
	if !hasGroups() {
		return nil
	}
	at, todo := "/", strings.Split(path, "/")
	for links := 0; links <= maxLinks; {
		var dir, st unix.Stat_t
		if unix.Stat(at, &dir) != nil {
			return nil
		}
		if len(todo) == 0 {
			return lentObject(at, &dir, want)
		}
		if err := lentObject(at, &dir, unix.S_IXOTH); err != nil {
			return err
		}
		next := filepath.Join(at, todo[0])
		switch err := unix.Lstat(next, &st); {
		case err == unix.ENOENT:
			return lentObject(at, &dir, unix.S_IWOTH|unix.S_IXOTH)
		case err != nil:
			return nil
		}
		todo = todo[1:]
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			return nil
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
		links++
	}
	return nil
}

// lentObject is lent of an object alone.
func lentObject(path string, st *unix.Stat_t, want uint32) error {
	has := st.Mode
	switch {
	case int(st.Uid) == os.Geteuid():
		has >>= 6
	case int(st.Gid) == os.Getegid():
		has >>= 3
	}
	if has&want == want {
		return nil
	}
	return fmt.Errorf("%s without supplementary groups: %w", path, fs.ErrPermission)
}
