package image

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

func setxattr(path, name, value string) error { return unix.Setxattr(path, name, []byte(value), 0) }

// special are the set-id and sticky bits.
func special(mode int64) (m fs.FileMode) {
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// statOf is a directory's mode, owner, time and user.lamina.
func statOf(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	v, _ := sys.XattrValue(sys.At{Dirfd: unix.AT_FDCWD, Name: path}, "user.lamina")
	return fmt.Sprintf("%o %d:%d %d.%09d %q", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, v)
}

// makeDeep nests n directories.
func makeDeep(t *testing.T, path string, n int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		a := sys.At{Dirfd: fd, Name: "d"}
		if err := sys.Mkdir(a, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := sys.Open(a, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		sys.Close(fd)
		fd = next
	}
	sys.Close(fd)
}
