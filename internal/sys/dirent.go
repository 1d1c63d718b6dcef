package sys

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Dirent is one entry as getdents64(2) gives it.
type Dirent struct {
	Ino  uint64
	Type uint8 // DT_*; DT_UNKNOWN where the filesystem does not say
	Name string
}

const direntHeader = 19 // d_ino 8, d_off 8, d_reclen 2, d_type 1: struct linux_dirent64

var direntBufs = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// ReadDir calls fn for every entry of the directory open as fd, "." and ".." left out, from its beginning.
func ReadDir(fd int, fn func(Dirent)) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	return ReadDirOn(fd, fn)
}

// ReadDirOn is ReadDir from where fd is: of a directory just opened, all of it.
func ReadDirOn(fd int, fn func(Dirent)) error {
	return getdents(fd, func(raw []byte) error { return parse(string(raw), fn) })
}

// getdents calls fn with what the kernel gives, until the end of the directory.
func getdents(fd int, fn func(raw []byte) error) error {
	bp := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(bp)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(fd, *bp)
			return err
		})
		if err == nil && n > 0 {
			err = fn((*bp)[:n])
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// parse calls fn for every entry in raw. The names are parts of it.
func parse(raw string, fn func(Dirent)) error {
	for len(raw) >= direntHeader {
		reclen := int(binary.NativeEndian.Uint16([]byte(raw[16:18])))
		if reclen < direntHeader || reclen > len(raw) {
			return unix.EIO
		}
		name := raw[direntHeader:reclen]
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if name != "." && name != ".." {
			fn(Dirent{Ino: binary.NativeEndian.Uint64([]byte(raw[:8])), Type: raw[18], Name: name})
		}
		raw = raw[reclen:]
	}
	return nil
}

// Dirents are the entries of a directory, as the kernel gave them: in few pieces of memory, however many they are.
type Dirents struct{ raw []string }

// ErrManyDirents is returned when a directory has more entries than asked for.
var ErrManyDirents = errors.New("the directory is large")

// ListDir is ReadDirOn all at once. With a limit greater than 0 it gives up a directory whose entries take more than
// so many bytes: the name and 20 to 27 more for each. Errors: ErrManyDirents.
func ListDir(fd, limit int) (d Dirents, err error) {
	size := 0
	err = getdents(fd, func(raw []byte) error {
		if size += len(raw); limit > 0 && size > limit {
			return ErrManyDirents
		}
		d.raw = append(d.raw, string(raw))
		return nil
	})
	return d, err
}

// Size is how many bytes they take.
func (d *Dirents) Size() (n int) {
	for _, raw := range d.raw {
		n += len(raw)
	}
	return n
}

// Count is how many there are, "." and ".." left out.
func (d *Dirents) Count() (n int, err error) {
	err = d.Each(func(Dirent) { n++ })
	return n, err
}

// Each calls fn for every entry, "." and ".." left out. Their names keep all of them in memory.
func (d *Dirents) Each(fn func(Dirent)) error {
	for _, raw := range d.raw {
		if err := parse(raw, fn); err != nil {
			return err
		}
	}
	return nil
}
