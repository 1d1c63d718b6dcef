package posix

import (
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// mmap maps the first n bytes of fd, until the end of the case.
func (t *T) mmap(fd, n, prot, flags int) []byte {
	m, err := unix.Mmap(fd, 0, n, prot, flags)
	t.ok(err)
	t.cleanup(func() { _ = unix.Munmap(m) })
	return m
}

const (
	readOnly  = unix.PROT_READ
	readWrite = unix.PROT_READ | unix.PROT_WRITE
)

// faults reports whether fn touched memory that is not there (SIGBUS or SIGSEGV).
func faults(fn func()) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	fn()
	return false
}

var mmapCases = []Case{
	{"mmap(2): a private mapping shows the file and keeps writes to itself", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDONLY), 6, readWrite, unix.MAP_PRIVATE)
		t.eq("mapped", string(m), "abcdef")
		copy(m, "XYZ")
		t.eq("mapped", string(m), "XYZdef")
		t.is("f", "abcdef")
	}},
	{"mmap(2): what is written to a shared mapping is read from the file", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDWR), 6, readWrite, unix.MAP_SHARED)
		r := t.open("f", unix.O_RDONLY)
		copy(m, "XYZ")
		t.eq("read(2)", t.pread(r, 10, 0), "XYZdef")
		t.ok(unix.Msync(m, unix.MS_SYNC))
		t.is("f", "XYZdef")
	}},
	{"mmap(2): two shared mappings of a file are one memory", "", "file f abcdef", func(t *T) {
		a := t.mmap(t.open("f", unix.O_RDWR), 6, readWrite, unix.MAP_SHARED)
		b := t.mmap(t.open("f", unix.O_RDONLY), 6, readOnly, unix.MAP_SHARED)
		t.eq("mapped", string(b), "abcdef")
		copy(a, "XYZ")
		t.eq("other mapping", string(b), "XYZdef")
	}},
	{"mmap(2): a shared mapping sees write(2)", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDONLY), 6, readOnly, unix.MAP_SHARED)
		t.eq("before", string(m), "abcdef")
		t.pwrite(t.open("f", unix.O_WRONLY), "XYZ", 0)
		t.eq("after", string(m), "XYZdef")
	}},
	{"mmap(2): a private mapping that was not written sees write(2) of its pages on Linux", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDONLY), 6, readOnly, unix.MAP_PRIVATE)
		t.eq("before", string(m), "abcdef")
		t.pwrite(t.open("f", unix.O_WRONLY), "XYZ", 0)
		t.eq("after", string(m), "XYZdef")
	}},
	{"mmap(2): the mapping outlives close and unlink", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		m := t.mmap(fd, 6, readWrite, unix.MAP_SHARED)
		t.link("f", "g")
		t.ok(unix.Close(fd))
		t.unlink("f")
		copy(m, "XYZ")
		t.ok(unix.Msync(m, unix.MS_SYNC))
		t.is("g", "XYZdef")
		t.unlink("g")
		copy(m, "123")
		t.eq("mapped", string(m), "123def")
		t.ok(unix.Msync(m, unix.MS_SYNC))
	}},
	{"mmap(2): a mapping of a file that was never read before it was unlinked", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		m := t.mmap(fd, 6, readOnly, unix.MAP_SHARED)
		t.ok(unix.Close(fd))
		t.unlink("f")
		t.eq("mapped", string(m), "abcdef")
	}},
	{"mmap(2): a mapping follows its file over rename", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDWR), 6, readWrite, unix.MAP_SHARED)
		t.rename("f", "g")
		copy(m, "XYZ")
		t.ok(unix.Msync(m, unix.MS_SYNC))
		t.is("g", "XYZdef")
	}},
	{"mmap(2): the rest of the last page is zero and not written back", "", "file f abc", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDWR), 4096, readWrite, unix.MAP_SHARED)
		t.eq("tail", string(m[3:4096]), strings.Repeat("\x00", 4093))
		copy(m[3:], "ZZZ")
		t.ok(unix.Msync(m, unix.MS_SYNC))
		t.is("f", "abc")
	}},
	{"mmap(2): SIGBUS beyond the page of the last byte", "", "file f abc", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDWR), 8192, readWrite, unix.MAP_SHARED)
		t.true(!faults(func() { m[0] = m[4095] }), "fault within the last page")
		t.true(faults(func() { m[0] = m[4096] }), "no fault beyond the last page")
	}},
	{"mmap(2): SIGBUS where the file was cut off, no more once it has grown again", "", "size f 8192", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		m := t.mmap(fd, 8192, readWrite, unix.MAP_SHARED)
		m[5000] = 'x'
		t.ok(unix.Ftruncate(fd, 100))
		t.true(faults(func() { m[0] = m[5000] }), "no fault beyond the cut")
		t.ok(unix.Ftruncate(fd, 8192))
		t.true(!faults(func() { m[0] = m[5000] }), "fault after the file grew")
		t.eq("what was cut off", m[5000], byte(0))
	}},
	{"mmap(2): a mapping beyond the end shows what is appended later", "", "file f abc", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDONLY), 8192, readOnly, unix.MAP_SHARED)
		t.eq("before", string(m[:3]), "abc")
		t.appendTo("f", pattern(8189))
		t.eq("after", string(m[3:]), pattern(8189))
	}},
	{"mmap(2): a write to a shared mapping moves mtime and ctime by the time msync returns", "", "file f abcdef", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDWR), 6, readWrite, unix.MAP_SHARED)
		t.touches(func() {
			m[0] = 'X'
			t.ok(unix.Msync(m, unix.MS_SYNC))
		}, "f mc")
	}},
	{"mmap(2): EACCES for a shared writable mapping of what is open for reading only", "", "file f abc", func(t *T) {
		_, err := unix.Mmap(t.open("f", unix.O_RDONLY), 0, 3, readWrite, unix.MAP_SHARED)
		t.fails(err, unix.EACCES)
	}},
	{"mmap(2): EACCES for what is open for writing only", "", "file f abc", func(t *T) {
		_, err := unix.Mmap(t.open("f", unix.O_WRONLY), 0, 3, readOnly, unix.MAP_PRIVATE)
		t.fails(err, unix.EACCES)
	}},
	{"mmap(2): ENODEV for a directory", "", "dir d", func(t *T) {
		_, err := unix.Mmap(t.open("d", unix.O_RDONLY), 0, 3, readOnly, unix.MAP_PRIVATE)
		t.fails(err, unix.ENODEV)
	}},
	{"mmap(2): EINVAL for a length of 0 and an offset that is no multiple of a page", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, 0, unix.PROT_READ, unix.MAP_PRIVATE, uintptr(fd), 0)
		t.fails(errno, unix.EINVAL)
		_, _, errno = unix.Syscall6(unix.SYS_MMAP, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE, uintptr(fd), 1)
		t.fails(errno, unix.EINVAL)
	}},
	{"mmap(2): PROT_EXEC maps a file", "", "file f abc; mode f 0755", func(t *T) {
		m := t.mmap(t.open("f", unix.O_RDONLY), 3, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		t.eq("mapped", string(m), "abc")
	}},
	{"mmap(2): a big shared mapping written all over", "", "size f 8388608", func(t *T) {
		const n = 8 << 20
		m := t.mmap(t.open("f", unix.O_RDWR), n, readWrite, unix.MAP_SHARED)
		want := pattern(n)
		copy(m, want)
		t.ok(unix.Msync(m, unix.MS_SYNC))
		t.true(t.read("f") == want, "content differs")
	}},
	{"munmap(2): what was written without msync is in the file", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		m, err := unix.Mmap(fd, 0, 6, readWrite, unix.MAP_SHARED)
		t.ok(err)
		copy(m, "XYZ")
		t.ok(unix.Munmap(m))
		t.ok(unix.Close(fd))
		t.is("f", "XYZdef")
	}},
}
