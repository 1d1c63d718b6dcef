package image

import (
	"bufio"
	"os"
	"strings"

	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// ownersMode is where owners of a layer's files can be kept: in inodes when this process's user namespace has ids to
// give them, else in attributes.
func ownersMode() layertar.OwnersMode {
	if singleID("/proc/self/uid_map") || singleID("/proc/self/gid_map") {
		return layertar.Xattr
	}
	return layertar.Real
}

// singleID reports whether a map (user_namespaces(7)) maps one id only.
func singleID(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	lines, one := 0, true
	for in := bufio.NewScanner(f); in.Scan(); lines++ {
		fields := strings.Fields(in.Text())
		one = one && len(fields) == 3 && fields[2] == "1"
	}
	return lines == 1 && one
}

// freeSpace is how much a layer may take unless something else is said, in bytes: nine tenths of what is free where
// the store is. An endless stream ends there, and the disk is not full.
func (s *Store) freeSpace() int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return 1 << 40
	}
	return int64(st.Bavail) * st.Bsize / 10 * 9
}
