package bench

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A print is a short text that tells what somebody saw of a tree: how much, and a sum over all of it that does not depend
// on the order. It is compared within one process only.
type print struct {
	objects, bytes int64
	sum            uint64
}

// seed is that of all sums: maphash is several times faster than what is stable.
var seed = maphash.MakeSeed()

func (p *print) String() string {
	return fmt.Sprintf("%d objects, %d bytes, sum %016x", p.objects, p.bytes, p.sum)
}

// add takes in an object: its name and what else is looked at.
func (p *print) add(name string, bytes int64, more ...uint64) {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(name) // it never fails
	var b [8]byte
	for _, v := range append(more, uint64(bytes)) {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:])
	}
	p.objects++
	p.bytes += bytes
	p.sum += h.Sum64()
}

// plus joins what two saw.
func (p *print) plus(q print) {
	p.objects, p.bytes, p.sum = p.objects+q.objects, p.bytes+q.bytes, p.sum+q.sum
}

// contentSum reads a file and returns its size and a sum of its content.
//
// It calls the system itself, as cat(1) does. Package os has epoll(7) watch each file that it opens, which the files of FUSE
// let it, and no others: a program of Go takes some 6 us longer to open one.
func contentSum(path string, buf []byte) (n int64, sum uint64, err error) {
	fd, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: path}, unix.O_RDONLY, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer sys.Close(fd)
	var h maphash.Hash
	h.SetSeed(seed)
	for {
		k, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, 0, &os.PathError{Op: "read", Path: path, Err: err}
		case k == 0:
			return n, h.Sum64(), nil
		}
		_, _ = h.Write(buf[:k]) // it never fails
		n += int64(k)
	}
}

// everything looks at all of a tree, a line for each object: name, type, mode, owners, size, content, target of a link,
// and with times the modification time of what is no directory.
func everything(dir string, times bool) (lines []string, err error) {
	buf := make([]byte, 128<<10)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir { // that of a mount is its own
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		line := fmt.Sprintf("%s: mode %o, owner %d:%d", path[len(dir)+1:], st.Mode, st.Uid, st.Gid)
		switch {
		case d.Type().IsRegular():
			n, sum, err := contentSum(path, buf)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(", size %d, read %d, content %016x", st.Size, n, sum)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(", target %q", target)
		}
		if times && !d.IsDir() {
			line += fmt.Sprintf(", mtime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		lines = append(lines, line)
		return nil
	})
	return lines, err
}

// difference is the first of what was got that is not what was wanted, empty for none.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("nothing, want %q", want[i])
		case i >= len(want):
			return fmt.Sprintf("%q, want nothing more", got[i])
		case got[i] != want[i]:
			return fmt.Sprintf("%q, want %q", got[i], want[i])
		}
	}
	return ""
}
