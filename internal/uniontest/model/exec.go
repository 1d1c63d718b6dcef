package model

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// Exec does operations on a real tree. It is used by one goroutine at a time.
type Exec struct {
	path    string
	root    int // directory descriptor
	handles map[int]int
	maps    map[int]realMapping
	buf     []byte // see buffer
}

type realMapping struct {
	mapping
	fd  int // of its own, to ask for the size
	mem []byte
}

// NewExec opens the tree below the directory path. Close it before the filesystem is unmounted.
func NewExec(path string) (*Exec, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &Exec{path: path, root: fd, handles: map[int]int{}, maps: map[int]realMapping{}}, nil
}

// Close closes and unmaps all there is.
func (e *Exec) Close() {
	for _, m := range e.maps {
		_ = unix.Munmap(m.mem) // a mapping we made
		_ = unix.Close(m.fd)
	}
	for _, fd := range e.handles {
		_ = unix.Close(fd) // what it wrote is compared after it
	}
	if e.root >= 0 {
		_ = unix.Close(e.root) // a directory
	}
	if e.buf != nil {
		_ = unix.Munmap(e.buf) // a mapping we made
		e.buf = nil
	}
	e.root, e.handles, e.maps = -1, map[int]int{}, map[int]realMapping{}
}

// Do executes op.
func (e *Exec) Do(op Op) (r Result) {
	debug.SetPanicOnFault(true) // a mapping that cannot be read is a result, not the end of the test
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault {
				panic(p)
			}
			r = Result{Errno: unix.EFAULT}
		}
	}()
	err := e.do(op, &r)
	if err != nil {
		errno, ok := err.(unix.Errno)
		if !ok {
			panic(err)
		}
		return Result{Errno: errno}
	}
	return r
}

// fd is the descriptor of a handle, or -1, which every system call answers with EBADF.
func (e *Exec) fd(h int) int {
	if h == 0 {
		return e.root
	}
	if fd, ok := e.handles[h]; ok {
		return fd
	}
	return -1
}

// proc is a path for calls that have no *at form. It leads to the object itself where there is no path.
func (e *Exec) proc(op Op) (string, error) {
	fd := e.fd(op.At)
	if op.Path == "" {
		fd = e.fd(op.H)
	}
	if fd < 0 {
		return "", unix.EBADF
	}
	p := fmt.Sprintf("/proc/self/fd/%d", fd)
	if op.Path != "" {
		p += "/" + op.Path
	}
	return p, nil
}

func (e *Exec) do(op Op, r *Result) (err error) {
	at, at2, nofollow := e.fd(op.At), e.fd(op.At2), 0
	if op.has("nofollow") {
		nofollow = unix.AT_SYMLINK_NOFOLLOW
	}
	switch op.Kind {
	case "open":
		// O_NONBLOCK: a FIFO must not wait for its other end.
		fd, err := unix.Openat(at, op.Path, op.flags(openFlags)|unix.O_NONBLOCK|unix.O_CLOEXEC, op.Mode)
		if err == nil {
			e.handles[op.H] = fd
		}
		return err
	case "close":
		fd := e.fd(op.H)
		delete(e.handles, op.H)
		return unix.Close(fd)
	case "mkdir":
		return unix.Mkdirat(at, op.Path, op.Mode)
	case "mknod":
		dev := uint64(0)
		if op.Mode&unix.S_IFMT == unix.S_IFCHR {
			dev = unix.Mkdev(1, 3)
		}
		return unix.Mknodat(at, op.Path, op.Mode, int(dev))
	case "symlink":
		return unix.Symlinkat(op.To, at, op.Path)
	case "link":
		return unix.Linkat(at, op.Path, at2, op.To, 0)
	case "linkfd":
		p, err := e.proc(Op{H: op.H})
		if err != nil || op.H == 0 {
			return unix.EBADF
		}
		return unix.Linkat(unix.AT_FDCWD, p, at2, op.To, unix.AT_SYMLINK_FOLLOW)
	case "unlink":
		return unix.Unlinkat(at, op.Path, 0)
	case "rmdir":
		return unix.Unlinkat(at, op.Path, unix.AT_REMOVEDIR)
	case "rename":
		return unix.Renameat2(at, op.Path, at2, op.To, uint(op.flags(renameFlags)))
	case "stat":
		var st unix.Stat_t
		if op.Path == "" {
			err = unix.Fstat(e.fd(op.H), &st)
		} else {
			err = unix.Fstatat(at, op.Path, &st, nofollow)
		}
		r.Stat = statOf(&st)
		return err
	case "readlink":
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(at, op.Path, buf)
		r.Data = buf[:max(n, 0)]
		return err
	case "truncate":
		if op.Path == "" {
			return unix.Ftruncate(e.fd(op.H), op.Len)
		}
		p, err := e.proc(op)
		if err != nil {
			return err
		}
		return unix.Truncate(p, op.Len)
	case "chmod":
		if op.Path == "" {
			return unix.Fchmod(e.fd(op.H), op.Mode)
		}
		return unix.Fchmodat(at, op.Path, op.Mode, 0)
	case "chown":
		if op.Path == "" {
			return unix.Fchown(e.fd(op.H), op.UID, op.GID)
		}
		return unix.Fchownat(at, op.Path, op.UID, op.GID, nofollow)
	case "utimens":
		return e.utimens(op, nofollow)
	case "setxattr", "getxattr", "listxattr", "removexattr":
		return e.xattr(op, r)
	case "readdir", "getdents", "rewind":
		return e.list(op, r)
	case "mmap", "mread", "mwrite", "munmap":
		return e.mmap(op, r)
	}
	return e.io(op, r)
}

func (e *Exec) io(op Op, r *Result) (err error) {
	fd, n := e.fd(op.H), 0
	switch op.Kind {
	case "read", "pread":
		buf := e.buffer(op.Len)
		if op.Kind == "read" {
			n, err = unix.Read(fd, buf)
		} else {
			n, err = unix.Pread(fd, buf, op.Off)
		}
		r.Data = slices.Clone(buf[:max(n, 0)])
	case "write", "pwrite":
		// What is written depends on where it goes: with O_APPEND and for write(2) only the file knows.
		off := op.Off
		if op.Kind == "write" {
			off, _ = unix.Seek(fd, 0, unix.SEEK_CUR) // -1 for a bad descriptor, as write(2) will say
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_APPEND != 0 {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			off = st.Size
		}
		buf := e.buffer(op.Len)
		copy(buf, pattern(op.Seed, off, op.Len))
		if op.Kind == "write" {
			n, err = unix.Write(fd, buf)
		} else {
			n, err = unix.Pwrite(fd, buf, op.Off)
		}
	case "seek":
		r.N, err = unix.Seek(fd, op.Off, unix.SEEK_SET)
		return err
	case "seekdata":
		return e.seek(op, fd, unix.SEEK_DATA, r)
	case "seekhole":
		return e.seek(op, fd, unix.SEEK_HOLE, r)
	case "fallocate":
		return sys.Fallocate(fd, uint32(op.flags(fallocateFlags)), op.Off, op.Len)
	case "fsync":
		return unix.Fsync(fd)
	case "copy":
		// The call may copy less than it could. What is there to be copied is known before the first one: within
		// one file, a copy may bring forth more.
		from, to, total := op.Off, op.Off2, op.Len
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			total = max(0, min(total, st.Size-from))
		}
		for {
			n, err = unix.CopyFileRange(fd, &from, e.fd(op.H2), &to, int(total-r.N), 0)
			if err != nil || n == 0 {
				return err
			}
			if r.N += int64(n); r.N == total {
				return nil
			}
		}
	default:
		panic("model: no operation " + op.Kind)
	}
	r.N = int64(max(n, 0))
	return err
}

// seek asks for data or a hole and leaves the file position as it was. ENXIO within the file says that there is
// only a hole up to its end.
func (e *Exec) seek(op Op, fd, whence int, r *Result) error {
	pos, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	if err != nil {
		return err
	}
	r.N, err = unix.Seek(fd, op.Off, whence)
	if err == unix.ENXIO {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && op.Off < st.Size {
			r.N, err = st.Size, nil
		}
	}
	if _, err := unix.Seek(fd, pos, unix.SEEK_SET); err != nil {
		return err
	}
	return err
}

// buffer returns n bytes as O_DIRECT takes them: at the beginning of a page. The next call may return the same.
func (e *Exec) buffer(n int64) []byte {
	if n > int64(len(e.buf)) {
		if e.buf != nil {
			_ = unix.Munmap(e.buf) // a mapping we made
		}
		buf, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			panic(fmt.Sprintf("model: no memory for %d bytes: %v", n, err))
		}
		e.buf = buf
	}
	return e.buf[:n]
}

func (e *Exec) utimens(op Op, nofollow int) error {
	ts := []unix.Timespec{{Sec: op.Off}, {Sec: op.Off, Nsec: op.Off2}}
	switch {
	case op.has("omit"):
		ts[1] = unix.Timespec{Nsec: unix.UTIME_OMIT}
	case op.has("now"):
		ts[1] = unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	if op.Path != "" {
		return unix.UtimesNanoAt(e.fd(op.At), op.Path, ts, nofollow)
	}
	p, err := e.proc(op)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, 0)
}

func (e *Exec) xattr(op Op, r *Result) error {
	p, err := e.proc(op)
	if err != nil {
		return err
	}
	// The object of a handle is reached by following the link in /proc.
	follow := op.Path == "" || !op.has("nofollow")
	switch op.Kind {
	case "setxattr":
		set := unix.Lsetxattr
		if follow {
			set = unix.Setxattr
		}
		return set(p, op.Name, []byte(op.Value), op.flags(xattrFlags))
	case "removexattr":
		remove := unix.Lremovexattr
		if follow {
			remove = unix.Removexattr
		}
		return remove(p, op.Name)
	case "getxattr":
		get := unix.Lgetxattr
		if follow {
			get = unix.Getxattr
		}
		buf := make([]byte, 64<<10)
		switch {
		case op.has("size"):
			buf = nil
		case op.has("short"):
			buf = buf[:1]
		}
		n, err := get(p, op.Name, buf)
		r.N = int64(max(n, 0))
		if buf != nil {
			r.Data = buf[:max(n, 0)]
		}
		return err
	}
	names, err := listxattr(p, follow)
	for _, name := range names {
		r.Names = append(r.Names, Name{Name: name})
	}
	return err
}

// listxattr returns the attributes that the model knows of. Others are the system's, such as security.selinux.
func listxattr(path string, follow bool) ([]string, error) {
	list := unix.Llistxattr
	if follow {
		list = unix.Listxattr
	}
	buf := make([]byte, 64<<10)
	n, err := list(path, buf)
	if err != nil {
		return nil, err
	}
	names := strings.Split(string(buf[:n]), "\x00")
	return slices.DeleteFunc(names, func(s string) bool {
		return !strings.HasPrefix(s, "user.") && !strings.HasPrefix(s, "trusted.") && !strings.HasPrefix(s, "security.lamina")
	}), nil
}

func (e *Exec) list(op Op, r *Result) (err error) {
	fd := e.fd(op.H)
	if fd < 0 {
		return unix.EBADF
	}
	switch op.Kind {
	case "rewind":
		if err := isDir(fd); err != nil {
			return err
		}
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		return err
	case "readdir":
		r.Names, err = readNames(fd)
		return err
	}
	// So small a buffer that a directory takes several turns. A turn of "." and ".." alone is not the end.
	for len(r.Names) == 0 {
		var n int
		buf := make([]byte, 512)
		if n, err = unix.Getdents(fd, buf); n <= 0 {
			return err
		}
		r.Names = parseNames(buf[:n])
	}
	return nil
}

func isDir(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return nil
}

// readNames lists the directory open as fd from its beginning, "." and ".." left out.
func readNames(fd int) (names []Name, err error) {
	if err := isDir(fd); err != nil {
		return nil, err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if n <= 0 {
			return names, err
		}
		names = append(names, parseNames(buf[:n])...)
	}
}

// parseNames reads struct linux_dirent64: d_ino 8 bytes, d_off 8, d_reclen 2, d_type 1, d_name.
func parseNames(buf []byte) (names []Name) {
	for len(buf) > 19 {
		reclen := binary.NativeEndian.Uint16(buf[16:])
		name, _, _ := bytes.Cut(buf[19:reclen], []byte{0})
		if s := string(name); s != "." && s != ".." {
			names = append(names, Name{s, buf[18], binary.NativeEndian.Uint64(buf)})
		}
		buf = buf[reclen:]
	}
	return names
}

func (e *Exec) mmap(op Op, r *Result) error {
	if op.Kind == "mmap" {
		prot, fd := unix.PROT_READ, e.fd(op.H)
		if op.has("write") {
			prot |= unix.PROT_WRITE
		}
		mem, err := unix.Mmap(fd, op.Off, int(op.Len), prot, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			_ = unix.Munmap(mem) // a mapping we made
			return err
		}
		e.maps[op.Map] = realMapping{mapping{off: op.Off, len: op.Len, writable: op.has("write")}, own, mem}
		return nil
	}
	m, ok := e.maps[op.Map]
	if !ok {
		return unix.EBADF
	}
	if op.Kind == "munmap" {
		delete(e.maps, op.Map)
		_ = unix.Close(m.fd) // only ever asked for the size
		return unix.Munmap(m.mem)
	}
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		return err
	}
	off, n := m.clamp(op, st.Size)
	r.N = n
	if n == 0 {
		r.Data = []byte{}
		if op.Kind == "mwrite" && !m.writable {
			return unix.EACCES
		}
		return nil
	}
	mem := m.mem[op.Off : op.Off+n]
	if op.Kind == "mread" {
		r.Data = slices.Clone(mem)
		return nil
	}
	if !m.writable {
		return unix.EACCES
	}
	copy(mem, pattern(op.Seed, off, n))
	if op.has("sync") {
		return unix.Msync(m.mem, unix.MS_SYNC)
	}
	return nil
}
