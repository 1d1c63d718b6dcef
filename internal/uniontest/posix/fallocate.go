package posix

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

const (
	keepSize = unix.FALLOC_FL_KEEP_SIZE
	punch    = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zero     = unix.FALLOC_FL_ZERO_RANGE
	collapse = unix.FALLOC_FL_COLLAPSE_RANGE
	insert   = unix.FALLOC_FL_INSERT_RANGE
)

// blocks makes f a file of n blocks of 64 KiB, which suits every filesystem's block size: "a", "b", "c" and on.
func (t *T) blocks(n int) (fd int, content string) {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(string(rune('a'+i)), 65536))
	}
	fd = t.open("f", unix.O_RDWR|unix.O_CREAT)
	t.pwrite(fd, b.String(), 0)
	return fd, b.String()
}

var zeros64k = strings.Repeat("\x00", 65536)

var fallocateCases = []Case{
	{"fallocate(2): mode 0 allocates and lengthens, with zeros", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.ok(sys.Fallocate(fd, 0, 0, 10000))
		t.size("f", 10000)
		t.true(t.stat("f").Blocks*512 >= 10000, "only %d blocks", t.stat("f").Blocks)
		t.is("f", "abc"+strings.Repeat("\x00", 9997))
	}},
	{"fallocate(2): mode 0 within the file changes no byte and no size", "", "file f abcdef", func(t *T) {
		t.ok(sys.Fallocate(t.open("f", unix.O_RDWR), 0, 1, 2))
		t.is("f", "abcdef")
	}},
	{"fallocate(2): FALLOC_FL_KEEP_SIZE allocates beyond the end and keeps the size", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.ok(sys.Fallocate(fd, keepSize, 0, 100000))
		t.is("f", "abc")
		t.true(t.stat("f").Blocks*512 >= 100000, "only %d blocks", t.stat("f").Blocks)
	}},
	{"fallocate(2): FALLOC_FL_PUNCH_HOLE makes zeros and frees blocks", "punch", "file f", func(t *T) {
		fd, all := t.blocks(4)
		before := t.stat("f").Blocks
		t.ok(sys.Fallocate(fd, punch, 65536, 131072))
		t.true(t.read("f") == all[:65536]+zeros64k+zeros64k+all[196608:], "content differs")
		t.ok(unix.Fsync(fd)) // delayed allocation has counted its blocks by now
		t.true(t.stat("f").Blocks < before || before == 0, "no block was freed")
	}},
	{"fallocate(2): FALLOC_FL_PUNCH_HOLE of parts of blocks", "punch", "file f abcdef", func(t *T) {
		t.ok(sys.Fallocate(t.open("f", unix.O_RDWR), punch, 1, 3))
		t.is("f", "a\x00\x00\x00ef")
	}},
	{"fallocate(2): FALLOC_FL_PUNCH_HOLE is seen through a mapping", "punch", "file f", func(t *T) {
		fd, _ := t.blocks(2)
		m := t.mmap(fd, 131072, readOnly, unix.MAP_SHARED)
		t.eq("before", m[0], byte('a'))
		t.ok(sys.Fallocate(fd, punch, 0, 65536))
		t.eq("after", m[0], byte(0))
		t.eq("rest", m[65536], byte('b'))
	}},
	{"fallocate(2): FALLOC_FL_ZERO_RANGE makes zeros, and lengthens unless told to keep the size", "zero", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.ok(sys.Fallocate(fd, zero, 1, 3))
		t.is("f", "a\x00\x00\x00ef")
		t.ok(sys.Fallocate(fd, zero|keepSize, 5, 10))
		t.is("f", "a\x00\x00\x00e\x00")
		t.ok(sys.Fallocate(fd, zero, 5, 5))
		t.is("f", "a\x00\x00\x00e\x00\x00\x00\x00\x00")
	}},
	{"fallocate(2): FALLOC_FL_COLLAPSE_RANGE removes a part", "collapse", "file f", func(t *T) {
		fd, all := t.blocks(3)
		t.ok(sys.Fallocate(fd, collapse, 65536, 65536))
		t.true(t.read("f") == all[:65536]+all[131072:], "content differs")
	}},
	{"fallocate(2): FALLOC_FL_INSERT_RANGE makes room", "insert", "file f", func(t *T) {
		fd, all := t.blocks(2)
		t.ok(sys.Fallocate(fd, insert, 65536, 65536))
		t.true(t.read("f") == all[:65536]+zeros64k+all[65536:], "content differs")
	}},
	{"fallocate(2): moves mtime and ctime", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.touches(func() { t.ok(sys.Fallocate(fd, 0, 0, 10000)) }, "f mc")
	}},
	{"fallocate(2): EBADF on a descriptor open for reading", "", "file f abc", func(t *T) {
		t.fails(sys.Fallocate(t.open("f", unix.O_RDONLY), 0, 0, 10), unix.EBADF)
	}},
	{"fallocate(2): EINVAL for a negative offset and a length that is not positive", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.fails(sys.Fallocate(fd, 0, -1, 10), unix.EINVAL)
		t.fails(sys.Fallocate(fd, 0, 0, 0), unix.EINVAL)
		t.fails(sys.Fallocate(fd, 0, 0, -1), unix.EINVAL)
		t.is("f", "abc")
	}},
	{"fallocate(2): EFBIG beyond the largest file", "", "file f abc", func(t *T) {
		t.fails(sys.Fallocate(t.open("f", unix.O_RDWR), 0, 1<<62, 1<<62), unix.EFBIG)
		t.is("f", "abc")
	}},
	{"fallocate(2): EOPNOTSUPP for a punch without FALLOC_FL_KEEP_SIZE", "", "file f abc", func(t *T) {
		t.fails(sys.Fallocate(t.open("f", unix.O_RDWR), unix.FALLOC_FL_PUNCH_HOLE, 0, 1), unix.EOPNOTSUPP, unix.EINVAL)
		t.is("f", "abc")
	}},
	{"fallocate(2): ESPIPE for a FIFO", "", "fifo p", func(t *T) {
		t.fails(sys.Fallocate(t.open("p", unix.O_RDWR), 0, 0, 1), unix.ESPIPE)
	}},
	{"posix_fallocate(3): of an unlinked file", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.unlink("f")
		t.ok(sys.Fallocate(fd, 0, 0, 8192))
		t.eq("size", t.fstat(fd).Size, int64(8192))
	}},
}

// seek wants the offset that lseek gives.
func (t *T) seek(fd int, off int64, whence int, want int64) {
	got, err := unix.Seek(fd, off, whence)
	t.ok(err)
	t.eq("offset", got, want)
}

var seekCases = []Case{
	{"lseek(2): SEEK_DATA and SEEK_HOLE find the parts of a sparse file", "punch", "size f 1048576", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, strings.Repeat("x", 65536), 262144)
		t.seek(fd, 0, unix.SEEK_HOLE, 0)
		t.seek(fd, 0, unix.SEEK_DATA, 262144)
		t.seek(fd, 262145, unix.SEEK_DATA, 262145)
		t.seek(fd, 262144, unix.SEEK_HOLE, 327680)
		_, err := unix.Seek(fd, 327680, unix.SEEK_DATA)
		t.fails(err, unix.ENXIO)
	}},
	{"lseek(2): SEEK_HOLE finds the hole at the end of any file", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.seek(fd, 0, unix.SEEK_HOLE, 6)
		t.seek(fd, 2, unix.SEEK_DATA, 2)
	}},
	{"lseek(2): SEEK_DATA and SEEK_HOLE beyond the end are ENXIO", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
			_, err := unix.Seek(fd, 3, whence)
			t.fails(err, unix.ENXIO)
			_, err = unix.Seek(fd, -1, whence)
			t.fails(err, unix.ENXIO)
		}
	}},
	{"lseek(2): SEEK_DATA in a file that is all hole is ENXIO", "punch", "size f 1048576", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		_, err := unix.Seek(fd, 0, unix.SEEK_DATA)
		t.fails(err, unix.ENXIO)
		t.seek(fd, 0, unix.SEEK_HOLE, 0)
	}},
	{"lseek(2): SEEK_DATA and SEEK_HOLE see what was just written and punched", "punch", "size f 1048576", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, strings.Repeat("x", 196608), 0)
		t.seek(fd, 0, unix.SEEK_HOLE, 196608)
		t.ok(sys.Fallocate(fd, punch, 65536, 65536))
		t.seek(fd, 0, unix.SEEK_HOLE, 65536)
		t.seek(fd, 65536, unix.SEEK_DATA, 131072)
	}},
	{"cp(1): --sparse=always of a sparse file gives the same bytes and few blocks", "punch", "size f 10485760", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, pattern(65536), 5<<20)
		t.command("cp", "--sparse=always", t.p("f"), t.p("g"))
		t.true(t.read("g") == t.read("f"), "content differs")
		t.true(t.stat("g").Blocks <= 1024, "%d blocks", t.stat("g").Blocks)
		t.command("cp", "--sparse=auto", t.p("g"), t.p("h"))
		t.true(t.read("h") == t.read("f"), "content differs")
		t.true(t.stat("h").Blocks <= 1024, "%d blocks", t.stat("h").Blocks)
	}},
}

var copyRangeCases = []Case{
	{"copy_file_range(2): copies from the descriptors' offsets and moves both", "", "file f abcdef; file g 123456789", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		t.seek(in, 1, unix.SEEK_SET, 1)
		t.seek(out, 2, unix.SEEK_SET, 2)
		n, err := unix.CopyFileRange(in, nil, out, nil, 3, 0)
		t.ok(err)
		t.eq("copied", n, 3)
		t.seek(in, 0, unix.SEEK_CUR, 4)
		t.seek(out, 0, unix.SEEK_CUR, 5)
		t.is("g", "12bcd6789")
	}},
	{"copy_file_range(2): with offsets given the descriptors' stay", "", "file f abcdef; file g 123456789", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		i, o := int64(2), int64(8)
		n, err := unix.CopyFileRange(in, &i, out, &o, 100, 0)
		t.ok(err)
		t.eq("copied", n, 4)
		t.eq("offsets", []int64{i, o}, []int64{6, 12})
		t.seek(in, 0, unix.SEEK_CUR, 0)
		t.seek(out, 0, unix.SEEK_CUR, 0)
		t.is("g", "12345678cdef")
	}},
	{"copy_file_range(2): 0 at the end of the source", "", "file f abc; file g", func(t *T) {
		i := int64(3)
		n, err := unix.CopyFileRange(t.open("f", unix.O_RDONLY), &i, t.open("g", unix.O_RDWR), nil, 100, 0)
		t.ok(err)
		t.eq("copied", n, 0)
	}},
	{"copy_file_range(2): megabytes", "", "file f; file g", func(t *T) {
		data := pattern(5<<20 + 77)
		t.write("f", data)
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		for left := len(data); left > 0; {
			n, err := unix.CopyFileRange(in, nil, out, nil, left, 0)
			t.ok(err)
			t.true(n > 0, "copied nothing with %d bytes left", left)
			left -= n
		}
		t.true(t.read("g") == data, "content differs")
	}},
	{"copy_file_range(2): sees what a mapping and a write have just changed", "", "file f abcdef; file g", func(t *T) {
		in, out := t.open("f", unix.O_RDWR), t.open("g", unix.O_RDWR)
		m := t.mmap(in, 6, readWrite, unix.MAP_SHARED)
		m[0] = 'X'
		t.pwrite(in, "Y", 1)
		_, err := unix.CopyFileRange(in, nil, out, nil, 6, 0)
		t.ok(err)
		t.is("g", "XYcdef")
	}},
	{"copy_file_range(2): a reader that has the old bytes cached sees the new", "", "file f abcdef; file g 123456", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		m := t.mmap(out, 6, readOnly, unix.MAP_SHARED)
		t.eq("before", string(m), "123456")
		_, err := unix.CopyFileRange(in, nil, out, nil, 6, 0)
		t.ok(err)
		t.eq("read", t.pread(out, 6, 0), "abcdef")
		t.eq("mapped", string(m), "abcdef")
	}},
	{"copy_file_range(2): within one file", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		i, o := int64(0), int64(3)
		n, err := unix.CopyFileRange(fd, &i, fd, &o, 3, 0)
		t.ok(err)
		t.eq("copied", n, 3)
		t.is("f", "abcabc")
	}},
	{"copy_file_range(2): EINVAL for overlapping ranges of one file", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		i, o := int64(0), int64(2)
		_, err := unix.CopyFileRange(fd, &i, fd, &o, 3, 0)
		t.fails(err, unix.EINVAL)
		t.is("f", "abcdef")
	}},
	{"copy_file_range(2): EINVAL for flags", "", "file f abc; file g", func(t *T) {
		_, err := unix.CopyFileRange(t.open("f", unix.O_RDONLY), nil, t.open("g", unix.O_RDWR), nil, 3, 1)
		t.fails(err, unix.EINVAL)
	}},
	{"copy_file_range(2): EBADF for the wrong direction and for O_APPEND", "", "file f abc; file g", func(t *T) {
		_, err := unix.CopyFileRange(t.open("f", unix.O_WRONLY), nil, t.open("g", unix.O_RDWR), nil, 3, 0)
		t.fails(err, unix.EBADF)
		_, err = unix.CopyFileRange(t.open("f", unix.O_RDONLY), nil, t.open("g", unix.O_RDONLY), nil, 3, 0)
		t.fails(err, unix.EBADF)
		_, err = unix.CopyFileRange(t.open("f", unix.O_RDONLY), nil, t.open("g", unix.O_WRONLY|unix.O_APPEND), nil, 3, 0)
		t.fails(err, unix.EBADF)
	}},
	{"copy_file_range(2): EISDIR for a directory", "", "dir d; file g", func(t *T) {
		_, err := unix.CopyFileRange(t.open("d", unix.O_RDONLY), nil, t.open("g", unix.O_RDWR), nil, 3, 0)
		t.fails(err, unix.EISDIR)
	}},
	{"copy_file_range(2): EINVAL for a FIFO", "", "fifo p; file g", func(t *T) {
		_, err := unix.CopyFileRange(t.open("p", unix.O_RDWR), nil, t.open("g", unix.O_RDWR), nil, 3, 0)
		t.fails(err, unix.EINVAL)
	}},
	{"copy_file_range(2): moves mtime and ctime of the target alone", "", "file f abc; file g", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		t.touches(func() {
			_, err := unix.CopyFileRange(in, nil, out, nil, 3, 0)
			t.ok(err)
		}, "f -", "g mc")
	}},
	{"copy_file_range(2): from a file that has lost its name", "", "file f abc; file g", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		t.unlink("f")
		_, err := unix.CopyFileRange(in, nil, out, nil, 3, 0)
		t.ok(err)
		t.is("g", "abc")
	}},
	{"ioctl_ficlone(2): clones, or says EOPNOTSUPP", "", "file f abcdef; file g 1", func(t *T) {
		in, out := t.open("f", unix.O_RDONLY), t.open("g", unix.O_RDWR)
		if err := unix.IoctlFileClone(out, in); err != nil {
			t.fails(err, unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL, unix.EXDEV)
			t.is("g", "1")
			return
		}
		t.is("g", "abcdef")
	}},
}
