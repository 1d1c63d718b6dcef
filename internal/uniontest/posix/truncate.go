package posix

import (
	"strings"

	"golang.org/x/sys/unix"
)

var truncateCases = []Case{
	{"truncate(2): shortens", "", "file f abcdef", func(t *T) {
		t.ok(unix.Truncate(t.p("f"), 2))
		t.is("f", "ab")
	}},
	{"truncate(2): lengthens with zeros", "", "file f abc", func(t *T) {
		t.ok(unix.Truncate(t.p("f"), 6))
		t.is("f", "abc\x00\x00\x00")
	}},
	{"truncate(2): what was cut off is zero when the file grows again", "", "file f abcdef", func(t *T) {
		t.ok(unix.Truncate(t.p("f"), 2))
		t.ok(unix.Truncate(t.p("f"), 6))
		t.is("f", "ab\x00\x00\x00\x00")
	}},
	{"truncate(2): to 0, and a write at an offset after it", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.ok(unix.Truncate(t.p("f"), 0))
		t.pwrite(fd, "X", 4)
		t.is("f", "\x00\x00\x00\x00X")
	}},
	{"truncate(2): follows symbolic links", "", "file f abcdef; symlink l f", func(t *T) {
		t.ok(unix.Truncate(t.p("l"), 3))
		t.is("f", "abc")
	}},
	{"truncate(2): moves mtime and ctime if the size changes", "", "file f abcdef", func(t *T) {
		t.touches(func() { t.ok(unix.Truncate(t.p("f"), 3)) }, "f mc")
	}},
	{"ftruncate(2): moves mtime and ctime even if the size stays", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.touches(func() { t.ok(unix.Ftruncate(fd, 6)) }, "f mc")
	}},
	{"ftruncate(2): leaves the file offset", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, err := unix.Seek(fd, 4, unix.SEEK_SET)
		t.ok(err)
		t.ok(unix.Ftruncate(fd, 2))
		t.writeFd(fd, "Z")
		t.is("f", "ab\x00\x00Z")
	}},
	{"ftruncate(2): is seen by other descriptors", "", "file f abcdef", func(t *T) {
		r := t.open("f", unix.O_RDONLY)
		t.eq("before", t.pread(r, 10, 0), "abcdef")
		t.ok(unix.Ftruncate(t.open("f", unix.O_WRONLY), 3))
		t.eq("after", t.pread(r, 10, 0), "abc")
		t.eq("size", t.fstat(r).Size, int64(3))
	}},
	{"ftruncate(2): EINVAL or EBADF on a descriptor open for reading", "", "file f abc", func(t *T) {
		t.fails(unix.Ftruncate(t.open("f", unix.O_RDONLY), 0), unix.EINVAL, unix.EBADF)
		t.is("f", "abc")
	}},
	{"truncate(2): EINVAL for a negative length", "", "file f abc", func(t *T) {
		t.fails(unix.Truncate(t.p("f"), -1), unix.EINVAL)
		t.fails(unix.Ftruncate(t.open("f", unix.O_RDWR), -1), unix.EINVAL)
	}},
	{"truncate(2): EFBIG or EINVAL beyond the largest file", "", "file f abc", func(t *T) {
		err := unix.Truncate(t.p("f"), 1<<63-1)
		if err != nil { // tmpfs takes any length
			t.fails(err, unix.EFBIG, unix.EINVAL)
			t.is("f", "abc")
		}
	}},
	{"truncate(2): EISDIR for a directory, EINVAL for a FIFO", "", "dir d; fifo p", func(t *T) {
		t.fails(unix.Truncate(t.p("d"), 0), unix.EISDIR)
		t.fails(unix.Truncate(t.p("p"), 0), unix.EINVAL)
	}},
	{"truncate(2): EACCES without write permission; a writable descriptor needs none", "root",
		"file f abc; owner f 2001:2001; mode f 0644", func(t *T) {
			t.bob(func() { t.fails(unix.Truncate(t.p("f"), 0), unix.EACCES) })
			t.alice(func() {
				fd := t.open("f", unix.O_RDWR)
				t.ok(unix.Chmod(t.p("f"), 0o400))
				t.fails(unix.Truncate(t.p("f"), 0), unix.EACCES)
				t.ok(unix.Ftruncate(fd, 1))
			})
			t.is("f", "a")
		}},
	{"truncate(2): ETXTBSY for a program that is running", "", "", func(t *T) {
		stop := t.running("prog")
		t.fails(unix.Truncate(t.p("prog"), 0), unix.ETXTBSY)
		stop()
	}},
	{"truncate(2): to a terabyte and back costs no blocks", "", "file f abc", func(t *T) {
		t.ok(unix.Truncate(t.p("f"), 1<<40))
		st := t.stat("f")
		t.eq("size", st.Size, int64(1<<40))
		t.true(st.Blocks < 1000, "%d blocks", st.Blocks)
		fd := t.open("f", unix.O_RDONLY)
		t.eq("middle", t.pread(fd, 3, 1<<39), "\x00\x00\x00")
		t.ok(unix.Truncate(t.p("f"), 3))
		t.is("f", "abc")
	}},
	{"truncate(2): a big file cut to a few bytes keeps those", "", "size f 100000000", func(t *T) {
		t.ok(unix.Truncate(t.p("f"), 5))
		t.is("f", strings.Repeat("\x00", 5))
	}},
}
