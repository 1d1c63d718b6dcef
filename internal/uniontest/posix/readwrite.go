package posix

import (
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// pattern is n bytes in which every offset can be told from its neighbours.
func pattern(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	return string(b)
}

var readWriteCases = []Case{
	{"write(2): what is written is read, by any descriptor, at once", "", "file f abc", func(t *T) {
		r := t.open("f", unix.O_RDONLY)
		w := t.open("f", unix.O_RDWR)
		t.pwrite(w, "XYZW", 1)
		t.eq("other descriptor", t.pread(r, 10, 0), "aXYZW")
		t.eq("same descriptor", t.pread(w, 10, 0), "aXYZW")
		t.is("f", "aXYZW")
	}},
	{"write(2): megabytes, in one call, at odd offsets", "", "file f", func(t *T) {
		data := pattern(3<<20 + 12345)
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, data, 4097)
		t.size("f", int64(len(data))+4097)
		t.true(t.pread(fd, len(data), 4097) == data, "content differs")
		t.eq("hole before", t.pread(fd, 4097, 0), strings.Repeat("\x00", 4097))
	}},
	{"write(2): a small change in the middle of a big file leaves the rest", "", "size f 4194304", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "abc", 2000001)
		t.size("f", 4194304)
		t.eq("around", t.pread(fd, 7, 1999999), "\x00\x00abc\x00\x00")
		t.eq("end", t.pread(fd, 10, 4194300), "\x00\x00\x00\x00")
	}},
	{"write(2): moves mtime and ctime of the file, not of its directory", "", "dir d; file d/f abc", func(t *T) {
		t.touches(func() { t.appendTo("d/f", "d") }, "d -", "d/f mc")
	}},
	{"write(2): zero bytes change nothing", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_WRONLY)
		t.touches(func() {
			n, err := unix.Write(fd, nil)
			t.ok(err)
			t.eq("written", n, 0)
		}, "f -")
	}},
	{"write(2): past the end leaves a hole of zeros", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "Z", 10000)
		t.size("f", 10001)
		t.eq("content", t.pread(fd, 10001, 0), "abc"+strings.Repeat("\x00", 9997)+"Z")
	}},
	{"write(2): EBADF on a descriptor open for reading, and read(2) on one for writing", "", "file f abc", func(t *T) {
		_, err := unix.Write(t.open("f", unix.O_RDONLY), []byte("x"))
		t.fails(err, unix.EBADF)
		_, err = unix.Read(t.open("f", unix.O_WRONLY), make([]byte, 1))
		t.fails(err, unix.EBADF)
	}},
	{"write(2): EFBIG beyond RLIMIT_FSIZE", "", "file f", func(t *T) {
		cmd := exec.Command("/bin/sh", "-c", `trap '' XFSZ; ulimit -f 8; dd if=/dev/zero of="$0" bs=1024 count=16 2>&1`, t.p("f"))
		out, _ := cmd.CombinedOutput() // fails, as it should
		t.true(strings.Contains(string(out), "File too large"), "dd said %q", out)
		t.true(t.stat("f").Size <= 8*1024, "the file has %d bytes", t.stat("f").Size)
	}},
	{"pwrite(2): EINVAL for a negative offset, and pread(2) too", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, err := unix.Pwrite(fd, []byte("x"), -1)
		t.fails(err, unix.EINVAL)
		_, err = unix.Pread(fd, make([]byte, 1), -1)
		t.fails(err, unix.EINVAL)
	}},
	{"pwrite(2): the file offset does not move", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, err := unix.Seek(fd, 2, unix.SEEK_SET)
		t.ok(err)
		t.pwrite(fd, "XY", 4)
		t.eq("pread", t.pread(fd, 2, 4), "XY")
		b := make([]byte, 1)
		_, err = unix.Read(fd, b)
		t.ok(err)
		t.eq("read at the offset", string(b), "c")
	}},
	{"pwrite(2): with O_APPEND data goes to the end whatever the offset", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR|unix.O_APPEND)
		_, err := unix.Pwrite(fd, []byte("Z"), 0)
		t.ok(err)
		t.is("f", "abcZ")
	}},
	{"pwrite(2): EFBIG beyond the largest file", "", "file f", func(t *T) {
		_, err := unix.Pwrite(t.open("f", unix.O_RDWR), []byte("xx"), 1<<63-1)
		t.fails(err, unix.EFBIG, unix.EINVAL)
		t.size("f", 0)
	}},
	{"read(2): 0 at and beyond the end", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.eq("at the end", t.pread(fd, 10, 3), "")
		t.eq("beyond", t.pread(fd, 10, 1<<40), "")
		t.eq("across", t.pread(fd, 10, 2), "c")
	}},
	{"read(2): EISDIR for a directory", "", "dir d", func(t *T) {
		_, err := unix.Read(t.open("d", unix.O_RDONLY), make([]byte, 10))
		t.fails(err, unix.EISDIR)
	}},
	{"read(2): EFAULT for a buffer outside the address space", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		_, _, errno := unix.Syscall(unix.SYS_READ, uintptr(fd), 1, 3)
		t.fails(errno, unix.EFAULT)
	}},
	{"write(2): EFAULT for a buffer outside the address space", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), 1, 3)
		t.fails(errno, unix.EFAULT)
		t.is("f", "abc")
	}},
	{"read(2): two readers that share no descriptor have offsets of their own", "", "file f abcdef", func(t *T) {
		a, b := t.open("f", unix.O_RDONLY), t.open("f", unix.O_RDONLY)
		buf := make([]byte, 3)
		_, err := unix.Read(a, buf)
		t.ok(err)
		_, err = unix.Read(b, buf)
		t.ok(err)
		t.eq("second reader", string(buf), "abc")
	}},
	{"dup(2): descriptors share their offset", "", "file f abcdef", func(t *T) {
		a := t.open("f", unix.O_RDONLY)
		b, err := unix.Dup(a)
		t.ok(err)
		t.keep(b)
		buf := make([]byte, 3)
		_, err = unix.Read(a, buf)
		t.ok(err)
		_, err = unix.Read(b, buf)
		t.ok(err)
		t.eq("through the duplicate", string(buf), "def")
	}},
	{"readv(2): scatters and writev(2) gathers, in order", "", "file f", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		n, err := unix.Writev(fd, [][]byte{[]byte("ab"), []byte("cde"), []byte("f")})
		t.ok(err)
		t.eq("written", n, 6)
		x, y := make([]byte, 4), make([]byte, 4)
		n, err = unix.Preadv(fd, [][]byte{x, y}, 0)
		t.ok(err)
		t.eq("read", n, 6)
		t.eq("buffers", string(x)+"|"+string(y[:2]), "abcd|ef")
		n, err = unix.Pwritev(fd, [][]byte{[]byte("X"), []byte("Y")}, 1)
		t.ok(err)
		t.eq("written", n, 2)
		t.is("f", "aXYdef")
	}},
	{"pwritev2(2): RWF_APPEND writes to the end", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, err := unix.Pwritev2(fd, [][]byte{[]byte("Z")}, 0, unix.RWF_APPEND)
		t.ok(err)
		t.is("f", "abcZ")
	}},
	{"lseek(2): SEEK_SET, SEEK_CUR, SEEK_END, and EINVAL below 0", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		for _, c := range []struct {
			off    int64
			whence int
			want   int64
		}{{4, unix.SEEK_SET, 4}, {-1, unix.SEEK_CUR, 3}, {-2, unix.SEEK_END, 4}, {100, unix.SEEK_END, 106}} {
			got, err := unix.Seek(fd, c.off, c.whence)
			t.ok(err)
			t.eq("offset", got, c.want)
		}
		_, err := unix.Seek(fd, -1, unix.SEEK_SET)
		t.fails(err, unix.EINVAL)
		_, err = unix.Seek(fd, -107, unix.SEEK_CUR)
		t.fails(err, unix.EINVAL)
		_, err = unix.Seek(fd, 0, 99)
		t.fails(err, unix.EINVAL)
		t.size("f", 6)
	}},
	{"lseek(2): SEEK_END follows a file that grew by another descriptor", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.appendTo("f", "defg")
		off, err := unix.Seek(fd, 0, unix.SEEK_END)
		t.ok(err)
		t.eq("offset", off, int64(7))
	}},
	{"lseek(2): ESPIPE for a FIFO", "", "fifo p", func(t *T) {
		_, err := unix.Seek(t.open("p", unix.O_RDWR), 0, unix.SEEK_SET)
		t.fails(err, unix.ESPIPE)
	}},
	{"read(2): a descriptor opened before the first write sees what is written", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.eq("before", t.pread(fd, 10, 0), "abc")
		t.appendTo("f", "def")
		t.eq("after", t.pread(fd, 10, 0), "abcdef")
		t.eq("size", t.fstat(fd).Size, int64(6))
		t.eq("inode", t.fstat(fd).Ino, t.ino("f"))
	}},
	{"unlink(2): an open file stays readable and writable", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.unlink("f")
		t.pwrite(fd, "def", 3)
		t.eq("content", t.pread(fd, 10, 0), "abcdef")
		t.ok(unix.Ftruncate(fd, 2))
		t.eq("content", t.pread(fd, 10, 0), "ab")
		t.gone("f")
	}},
	{"unlink(2): an open file is apart from a new one of its name", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.unlink("f")
		t.write("f", "new")
		t.pwrite(fd, "OLD", 0)
		t.eq("unlinked", t.pread(fd, 10, 0), "OLD")
		t.is("f", "new")
	}},
	{"unlink(2): an open file takes chmod, xattrs and times after it", "userxattr", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.unlink("f")
		t.ok(unix.Fchmod(fd, 0o600))
		t.ok(unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		b := make([]byte, 10)
		n, err := unix.Fgetxattr(fd, "user.a", b)
		t.ok(err)
		t.eq("xattr", string(b[:n]), "v")
		t.ok(unix.UtimesNanoAt(unix.AT_FDCWD, procFd(fd), []unix.Timespec{{Sec: 5}, {Sec: 6}}, 0))
		st := t.fstat(fd)
		t.eq("mode", st.Mode&0o777, uint32(0o600))
		t.eq("mtime", st.Mtim.Sec, int64(6))
		t.gone("f")
	}},
	{"rename(2): an open file keeps its data when it is moved and when another takes its name", "", "file f abc; file g def", func(t *T) {
		f := t.open("f", unix.O_RDWR)
		g := t.open("g", unix.O_RDWR)
		t.rename("f", "g")
		t.pwrite(f, "F", 0)
		t.pwrite(g, "G", 0)
		t.is("g", "Fbc")
		t.eq("overwritten", t.pread(g, 10, 0), "Gef")
		t.gone("f")
	}},
	{"sendfile(2): from a file to a pipe, and between files", "", "file f abcdef; file g", func(t *T) {
		in := t.open("f", unix.O_RDONLY)
		out := t.open("g", unix.O_WRONLY)
		n, err := unix.Sendfile(out, in, nil, 100)
		t.ok(err)
		t.eq("sent", n, 6)
		t.is("g", "abcdef")
	}},
	{"splice(2): from a file through a pipe to another", "", "file f abcdef; file g", func(t *T) {
		r, w, err := os.Pipe()
		t.ok(err)
		t.cleanup(func() { _ = r.Close(); _ = w.Close() })
		n, err := unix.Splice(t.open("f", unix.O_RDONLY), nil, int(w.Fd()), nil, 100, 0)
		t.ok(err)
		t.eq("into the pipe", n, int64(6))
		n, err = unix.Splice(int(r.Fd()), nil, t.open("g", unix.O_WRONLY), nil, 6, 0)
		t.ok(err)
		t.eq("out of the pipe", n, int64(6))
		t.is("g", "abcdef")
	}},
	{"write(2): many writers of one file, each its own part", "", "file f", func(t *T) {
		const part = 100_000
		data := pattern(8 * part)
		fd := t.open("f", unix.O_RDWR)
		t.parallel(8, func(i int) {
			for off := i * part; off < (i+1)*part; off += 10_000 {
				t.pwrite(fd, data[off:off+10_000], int64(off))
			}
		})
		t.true(t.read("f") == data, "content differs")
	}},
	{"readahead(2): and posix_fadvise(2) are accepted", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.ok(unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED))
		t.ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
		_, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 4096)
		t.eq("readahead", errno, unix.Errno(0))
		t.eq("content", t.pread(fd, 10, 0), "abc")
	}},
}
