package posix

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree says what a case wants to find in its directory, one object or property a line or separated by "; ":
//
//	dir d              a directory, 0755
//	file d/f content   a regular file, 0644; the content is the rest, with Go's escapes if it is quoted
//	size f 1048576     a file of so many bytes, all of them a hole
//	symlink l target   a symbolic link
//	link d/f h         another name, h, of a file above
//	fifo p; sock s     a FIFO, a socket that nobody listens on; both 0644
//	mode f 04755       permission bits
//	owner f 2001:2001  owner and group; before mode, where set-id bits matter
//	xattr f user.a v   an extended attribute; a value 0x... is in hexadecimal
//	mtime f 1000.5     modification and access time, in seconds
//	names d 1000       so many empty files in d, named 000000 and on
//
// Everything made has the mtime that comes of it, except what a mtime line says last.
type Tree string

// Populate lays the tree out in dir. The cases' own directory is dir too.
func (tree Tree) Populate(dir string) error {
	for line := range strings.SplitSeq(strings.ReplaceAll(string(tree), "\n", ";"), ";") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := populate(dir, line); err != nil {
			return fmt.Errorf("tree line %q: %w", line, err)
		}
	}
	return nil
}

func populate(dir, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	name, arg, _ := strings.Cut(rest, " ")
	path := filepath.Join(dir, name)
	switch verb {
	case "dir":
		return unix.Mkdir(path, 0o755)
	case "file":
		if strings.HasPrefix(arg, `"`) {
			s, err := strconv.Unquote(arg)
			if err != nil {
				return err
			}
			arg = s
		}
		return create(path, func(fd int) error {
			_, err := unix.Write(fd, []byte(arg))
			return err
		})
	case "size":
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return err
		}
		return create(path, func(fd int) error { return unix.Ftruncate(fd, n) })
	case "symlink":
		return unix.Symlink(arg, path)
	case "link":
		return unix.Link(path, filepath.Join(dir, arg))
	case "fifo":
		return unix.Mkfifo(path, 0o644)
	case "sock":
		return unix.Mknod(path, unix.S_IFSOCK|0o644, 0)
	case "mode":
		m, err := strconv.ParseUint(arg, 8, 32)
		if err != nil {
			return err
		}
		return unix.Chmod(path, uint32(m))
	case "owner":
		var uid, gid int
		if _, err := fmt.Sscanf(arg, "%d:%d", &uid, &gid); err != nil {
			return err
		}
		return unix.Lchown(path, uid, gid)
	case "xattr":
		attr, value, _ := strings.Cut(arg, " ")
		if h, ok := strings.CutPrefix(value, "0x"); ok {
			b, err := hex.DecodeString(h)
			if err != nil {
				return err
			}
			value = string(b)
		}
		return unix.Lsetxattr(path, attr, []byte(value), 0)
	case "mtime":
		s, err := strconv.ParseFloat(arg, 64)
		if err != nil {
			return err
		}
		ts := unix.NsecToTimespec(int64(s * 1e9))
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	case "names":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		for i := range n {
			if err := create(path+"/"+fmt.Sprintf("%06d", i), nil); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("no such kind of line")
}

func create(path string, fill func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	if fill != nil {
		err = fill(fd)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

func itoa(n int) string { return strconv.Itoa(n) }

func native16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func native64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
