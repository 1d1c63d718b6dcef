package sys

import (
	"bytes"
	"encoding/binary"
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
	bp := direntBufs.Get().(*[]byte)
	defer direntBufs.Put(bp)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Getdents(fd, *bp)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for buf := (*bp)[:n]; len(buf) >= direntHeader; {
			reclen := int(binary.NativeEndian.Uint16(buf[16:]))
			if reclen < direntHeader || reclen > len(buf) {
				return unix.EIO
			}
			name := buf[direntHeader:reclen]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				fn(Dirent{Ino: binary.NativeEndian.Uint64(buf), Type: buf[18], Name: s})
			}
			buf = buf[reclen:]
		}
	}
}
