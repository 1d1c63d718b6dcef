package posix

import (
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned returns n bytes at an address that O_DIRECT accepts.
func aligned(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := page - int(uintptr(unsafe.Pointer(&b[0]))%page)
	return b[skip : skip+n]
}

func procFd(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

var openCases = []Case{
	{"open(2): O_CREAT makes a regular file of the given mode less the umask", "", "", func(t *T) {
		t.umask(0o027, func() { t.open("f", unix.O_CREAT|unix.O_WRONLY, 0o666) })
		t.kind("f", unix.S_IFREG)
		t.mode("f", 0o640)
		t.size("f", 0)
		t.nlink("f", 1)
		t.lists("", "f")
	}},
	{"open(2): O_CREAT hands through set-id and sticky bits", "root", "", func(t *T) {
		t.umask(0, func() { t.open("f", unix.O_CREAT|unix.O_WRONLY, 0o7755) })
		t.mode("f", 0o7755)
	}},
	{"open(2): a new file belongs to the fsuid and fsgid of its maker", "root", "dir d; mode d 0777", func(t *T) {
		t.alice(func() { t.open("d/f", unix.O_CREAT|unix.O_WRONLY) })
		t.owner("d/f", alice, alice)
	}},
	{"open(2): the mode binds later opens only, not the descriptor that O_CREAT returns", "root",
		"dir d; mode d 0777", func(t *T) {
			t.alice(func() {
				fd := t.open("d/f", unix.O_CREAT|unix.O_RDWR, 0)
				t.writeFd(fd, "abc")
				t.eq("content", t.pread(fd, 10, 0), "abc")
				t.fails(t.openErr("d/f", unix.O_RDONLY), unix.EACCES)
			})
		}},
	{"open(2): O_CREAT opens an existing file and keeps its mode and content", "", "file f abc; mode f 0600", func(t *T) {
		fd := t.open("f", unix.O_CREAT|unix.O_RDWR, 0o777)
		t.eq("content", t.pread(fd, 10, 0), "abc")
		t.mode("f", 0o600)
	}},
	{"open(2): O_CREAT|O_EXCL gives EEXIST for a file", "", "file f abc", func(t *T) {
		t.fails(t.openErr("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), unix.EEXIST)
		t.is("f", "abc")
	}},
	{"open(2): O_CREAT|O_EXCL gives EEXIST for a directory", "", "dir d", func(t *T) {
		t.fails(t.openErr("d", unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY), unix.EEXIST)
	}},
	{"open(2): O_CREAT|O_EXCL gives EEXIST for a symbolic link, dangling or not", "",
		"file f; symlink l f; symlink x nowhere", func(t *T) {
			t.fails(t.openErr("l", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), unix.EEXIST)
			t.fails(t.openErr("x", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), unix.EEXIST)
			t.gone("nowhere")
		}},
	{"open(2): O_CREAT through a dangling symbolic link makes its target", "", "dir d; symlink l d/new", func(t *T) {
		t.write("l", "abc")
		t.is("d/new", "abc")
		t.kind("l", unix.S_IFLNK)
	}},
	{"open(2): O_CREAT|O_EXCL succeeds for exactly one of many at once", "", "dir d", func(t *T) {
		for round := range 20 {
			var won atomic.Int32
			t.parallel(8, func(int) {
				if t.openErr(fmt.Sprint("d/f", round), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY) == nil {
					won.Add(1)
				}
			})
			t.eq("winners", won.Load(), int32(1))
		}
	}},
	{"open(2): a name can be created again after unlink", "", "file f abc", func(t *T) {
		t.unlink("f")
		fd := t.open("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)
		t.eq("content", t.pread(fd, 10, 0), "")
		t.lists("", "f")
	}},
	{"open(2): O_TRUNC empties the file and moves mtime and ctime", "", "file f abc; mode f 0640", func(t *T) {
		t.touches(func() { t.open("f", unix.O_WRONLY|unix.O_TRUNC) }, "f mc")
		t.size("f", 0)
		t.mode("f", 0o640)
	}},
	{"open(2): O_CREAT|O_TRUNC of an existing file leaves its directory's times", "", "dir d; file d/f abc", func(t *T) {
		t.touches(func() { t.open("d/f", unix.O_WRONLY|unix.O_TRUNC|unix.O_CREAT) }, "d -", "d/f mc")
	}},
	{"open(2): O_TRUNC is seen by a descriptor opened before", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.eq("content", t.pread(fd, 10, 0), "abcdef")
		t.write("f", "xy")
		t.eq("size", t.fstat(fd).Size, int64(2))
		t.eq("content", t.pread(fd, 10, 0), "xy")
	}},
	{"open(2): O_TRUNC needs write permission: EACCES", "root", "file f abc", func(t *T) {
		t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY|unix.O_TRUNC), unix.EACCES) })
		t.is("f", "abc")
	}},
	{"open(2): O_APPEND writes to the end whoever wrote last", "", "file f abc", func(t *T) {
		a := t.open("f", unix.O_WRONLY|unix.O_APPEND)
		b := t.open("f", unix.O_WRONLY|unix.O_APPEND)
		t.writeFd(a, "1")
		t.writeFd(b, "2")
		t.writeFd(a, "3")
		t.is("f", "abc123")
	}},
	{"open(2): O_APPEND moves the file offset to the end of what was written", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR|unix.O_APPEND)
		t.writeFd(fd, "de")
		off, err := unix.Seek(fd, 0, unix.SEEK_CUR)
		t.ok(err)
		t.eq("offset", off, int64(5))
	}},
	{"open(2): many appenders at once lose and tear nothing", "", "file f", func(t *T) {
		const writers, lines = 8, 40
		t.parallel(writers, func(i int) {
			fd, err := unix.Open(t.p("f"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
			for err == unix.EINTR { // overlayfs waits for a copy-up so that any signal ends the wait (ovl_copy_up_start)
				fd, err = unix.Open(t.p("f"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
			}
			t.ok(err)
			defer func() { _ = unix.Close(fd) }()
			for range lines {
				t.writeFd(fd, strings.Repeat(string(rune('a'+i)), 63)+"\n")
			}
		})
		got := t.read("f")
		t.eq("size", len(got), writers*lines*64)
		for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
			t.eq("line", line, strings.Repeat(line[:1], 63))
		}
	}},
	{"fcntl(2): F_SETFL can turn O_APPEND on", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
		t.ok(err)
		t.writeFd(fd, "d")
		t.is("f", "abcd")
	}},
	{"open(2): O_DIRECTORY gives ENOTDIR for what is not a directory", "", "file f; symlink l f; dir d; symlink m d", func(t *T) {
		t.fails(t.openErr("f", unix.O_RDONLY|unix.O_DIRECTORY), unix.ENOTDIR)
		t.fails(t.openErr("l", unix.O_RDONLY|unix.O_DIRECTORY), unix.ENOTDIR)
		t.ok(t.openErr("d", unix.O_RDONLY|unix.O_DIRECTORY))
		t.ok(t.openErr("m", unix.O_RDONLY|unix.O_DIRECTORY))
	}},
	{"open(2): O_NOFOLLOW gives ELOOP for a symbolic link at the end only", "",
		"dir d; file d/f abc; symlink l d; symlink d/m f", func(t *T) {
			t.fails(t.openErr("l", unix.O_RDONLY|unix.O_NOFOLLOW), unix.ELOOP)
			t.fails(t.openErr("l/m", unix.O_RDONLY|unix.O_NOFOLLOW), unix.ELOOP)
			t.ok(t.openErr("l/f", unix.O_RDONLY|unix.O_NOFOLLOW))
		}},
	{"open(2): O_PATH|O_NOFOLLOW opens a symbolic link itself", "", "symlink l target", func(t *T) {
		fd := t.open("l", unix.O_PATH|unix.O_NOFOLLOW)
		t.eq("type", t.fstat(fd).Mode&unix.S_IFMT, uint32(unix.S_IFLNK))
		b := make([]byte, 100)
		n, err := unix.Readlinkat(fd, "", b)
		t.ok(err)
		t.eq("target", string(b[:n]), "target")
	}},
	{"open(2): an O_PATH descriptor can be stat'ed but not read, written or changed: EBADF", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_PATH)
		t.eq("inode", t.fstat(fd).Ino, t.ino("f"))
		_, err := unix.Read(fd, make([]byte, 1))
		t.fails(err, unix.EBADF)
		_, err = unix.Write(fd, []byte("x"))
		t.fails(err, unix.EBADF)
		t.fails(unix.Fchmod(fd, 0o600), unix.EBADF)
		t.fails(unix.Ftruncate(fd, 0), unix.EBADF)
	}},
	{"open(2): O_PATH needs no permission on the object itself", "root", "file f; mode f 0", func(t *T) {
		t.bob(func() {
			fd := t.open("f", unix.O_PATH)
			t.eq("mode", t.fstat(fd).Mode&0o777, uint32(0))
			t.fails(t.openErr(procFd(fd), unix.O_RDONLY), unix.EACCES)
		})
	}},
	{"open(2): an O_PATH descriptor can be opened anew through /proc/self/fd", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_PATH)
		again := t.open(procFd(fd), unix.O_RDWR)
		t.pwrite(again, "X", 1)
		t.is("f", "aXc")
	}},
	{"open(2): EISDIR for a directory opened for writing", "", "dir d", func(t *T) {
		t.fails(t.openErr("d", unix.O_WRONLY), unix.EISDIR)
		t.fails(t.openErr("d", unix.O_RDWR), unix.EISDIR)
		t.fails(t.openErr("d", unix.O_RDONLY|unix.O_CREAT), unix.EISDIR)
		t.fails(t.openErr("d", unix.O_RDONLY|unix.O_TRUNC), unix.EISDIR)
	}},
	{"open(2): ENOENT without O_CREAT, for an empty path and for a dangling link", "", "symlink l nowhere", func(t *T) {
		t.fails(t.openErr("f", unix.O_RDWR), unix.ENOENT)
		t.fails(t.openErr("l", unix.O_RDWR), unix.ENOENT)
		_, err := unix.Open("", unix.O_RDONLY, 0)
		t.fails(err, unix.ENOENT)
	}},
	{"open(2): a trailing slash wants a directory: ENOTDIR, and EISDIR with O_CREAT", "", "file f; dir d", func(t *T) {
		t.fails(t.openErr("f/", unix.O_RDONLY), unix.ENOTDIR)
		t.fails(t.openErr("new/", unix.O_RDWR|unix.O_CREAT), unix.EISDIR)
		t.ok(t.openErr("d/", unix.O_RDONLY))
		t.gone("new")
	}},
	{"open(2): ENXIO for writing to a FIFO without a reader and O_NONBLOCK", "", "fifo p", func(t *T) {
		t.fails(t.openErr("p", unix.O_WRONLY|unix.O_NONBLOCK), unix.ENXIO)
		r := t.open("p", unix.O_RDONLY|unix.O_NONBLOCK)
		w := t.open("p", unix.O_WRONLY|unix.O_NONBLOCK)
		t.writeFd(w, "hi")
		b := make([]byte, 10)
		n, err := unix.Read(r, b)
		t.ok(err)
		t.eq("through the FIFO", string(b[:n]), "hi")
	}},
	{"open(2): ENXIO for a socket", "", "sock s", func(t *T) {
		t.fails(t.openErr("s", unix.O_RDWR), unix.ENXIO)
	}},
	{"open(2): ETXTBSY for writing to a program that is running", "", "", func(t *T) {
		stop := t.running("prog")
		t.fails(t.openErr("prog", unix.O_WRONLY), unix.ETXTBSY)
		stop()
		t.ok(t.openErr("prog", unix.O_WRONLY))
	}},
	{"open(2): O_TMPFILE makes a file without a name", "tmpfile", "dir d", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o640)
		t.writeFd(fd, "abc")
		t.eq("content", t.pread(fd, 10, 0), "abc")
		st := t.fstat(fd)
		t.eq("st_nlink", uint64(st.Nlink), uint64(0))
		t.eq("mode", st.Mode, uint32(unix.S_IFREG|0o640))
		t.lists("d", "")
	}},
	{"open(2): an O_TMPFILE file is given a name by linkat of /proc/self/fd", "tmpfile", "dir d", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
		t.writeFd(fd, "abc")
		t.ok(unix.Linkat(unix.AT_FDCWD, procFd(fd), unix.AT_FDCWD, t.p("d/f"), unix.AT_SYMLINK_FOLLOW))
		t.is("d/f", "abc")
		t.fnlink(fd, 1)
		t.nlink("d/f", 1)
		t.eq("inode", t.fstat(fd).Ino, t.ino("d/f"))
		t.pwrite(fd, "X", 0)
		t.is("d/f", "Xbc")
	}},
	{"open(2): an O_TMPFILE file is given a name by linkat with AT_EMPTY_PATH", "tmpfile root", "dir d", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
		t.ok(unix.Linkat(fd, "", unix.AT_FDCWD, t.p("d/f"), unix.AT_EMPTY_PATH))
		t.fnlink(fd, 1)
		t.lists("d", "f")
	}},
	{"open(2): O_TMPFILE|O_EXCL forbids linking: ENOENT", "tmpfile", "dir d", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
		t.fails(unix.Linkat(unix.AT_FDCWD, procFd(fd), unix.AT_FDCWD, t.p("d/f"), unix.AT_SYMLINK_FOLLOW), unix.ENOENT)
		t.lists("d", "")
	}},
	{"open(2): O_TMPFILE errors: EINVAL read-only, ENOTDIR for a file, ENOENT, EACCES", "tmpfile root", "dir d; file f", func(t *T) {
		t.fails(t.openErr("d", unix.O_TMPFILE|unix.O_RDONLY), unix.EINVAL)
		t.fails(t.openErr("f", unix.O_TMPFILE|unix.O_RDWR), unix.ENOTDIR)
		t.fails(t.openErr("x", unix.O_TMPFILE|unix.O_RDWR), unix.ENOENT)
		t.bob(func() { t.fails(t.openErr("d", unix.O_TMPFILE|unix.O_RDWR), unix.EACCES) })
	}},
	{"open(2): an O_TMPFILE file takes mode, owner, xattrs and size like any other", "tmpfile root userxattr", "dir d", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
		t.ok(unix.Fchmod(fd, 0o444))
		t.ok(unix.Fchown(fd, alice, staff))
		t.ok(unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		t.ok(unix.Ftruncate(fd, 1000))
		t.ok(unix.Linkat(unix.AT_FDCWD, procFd(fd), unix.AT_FDCWD, t.p("d/f"), unix.AT_SYMLINK_FOLLOW))
		t.mode("d/f", 0o444)
		t.owner("d/f", alice, staff)
		t.xattr("d/f", "user.a", "v")
		t.size("d/f", 1000)
	}},
	{"open(2): O_DIRECT reads and writes aligned blocks", "direct", "size f 65536", func(t *T) {
		fd := t.open("f", unix.O_RDWR|unix.O_DIRECT)
		out := aligned(8192)
		for i := range out {
			out[i] = byte(i % 251)
		}
		n, err := unix.Pwrite(fd, out, 4096)
		t.ok(err)
		t.eq("written", n, 8192)
		in := aligned(8192)
		n, err = unix.Pread(fd, in, 4096)
		t.ok(err)
		t.eq("read", n, 8192)
		t.eq("content", string(in), string(out))
		t.eq("content without O_DIRECT", t.read("f")[4096:12288], string(out))
		t.size("f", 65536)
	}},
	{"open(2): O_DIRECT sees what was written without it, and the reverse", "direct", "size f 8192", func(t *T) {
		plain := t.open("f", unix.O_RDWR)
		direct := t.open("f", unix.O_RDWR|unix.O_DIRECT)
		t.pwrite(plain, "plain", 0)
		b := aligned(4096)
		_, err := unix.Pread(direct, b, 0)
		t.ok(err)
		t.eq("read with O_DIRECT", string(b[:5]), "plain")
		copy(b, "direct")
		_, err = unix.Pwrite(direct, b, 0)
		t.ok(err)
		t.eq("read without", t.pread(plain, 6, 0), "direct")
	}},
	{"open(2): O_NOATIME does not move the access time", "", "file f abc; mtime f 1000000000", func(t *T) {
		before := t.stat("f").Atim
		fd := t.open("f", unix.O_RDONLY|unix.O_NOATIME)
		t.eq("content", t.pread(fd, 10, 0), "abc")
		t.eq("atime", t.stat("f").Atim, before)
	}},
	{"open(2): O_NOATIME is for the owner: EPERM", "root", "file f; owner f 2001:2001", func(t *T) {
		t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY|unix.O_NOATIME), unix.EPERM) })
		t.alice(func() { t.ok(t.openErr("f", unix.O_RDONLY|unix.O_NOATIME)) })
	}},
	{"open(2): O_SYNC and O_DSYNC write like others", "", "file f abc", func(t *T) {
		t.pwrite(t.open("f", unix.O_WRONLY|unix.O_SYNC), "X", 0)
		t.pwrite(t.open("f", unix.O_WRONLY|unix.O_DSYNC), "Y", 1)
		t.is("f", "XYc")
	}},
	{"open(2): a file opened again through /proc/self/fd may be opened for more", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		rw := t.open(procFd(fd), unix.O_RDWR)
		t.pwrite(rw, "X", 0)
		t.eq("content", t.pread(fd, 3, 0), "Xbc")
	}},
	{"open(2): an unlinked file can be opened again through /proc/self/fd", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.unlink("f")
		rw := t.open(procFd(fd), unix.O_RDWR)
		t.pwrite(rw, "X", 0)
		t.eq("content", t.pread(fd, 3, 0), "Xbc")
		t.gone("f")
	}},
	{"openat(2): a directory descriptor stays good after the directory is renamed", "", "dir d; file d/f abc", func(t *T) {
		d := t.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
		t.rename("d", "e")
		fd, err := unix.Openat(d, "f", unix.O_RDWR|unix.O_CLOEXEC, 0)
		t.ok(err)
		t.keep(fd)
		t.pwrite(fd, "X", 0)
		fd, err = unix.Openat(d, "new", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		t.ok(err)
		t.keep(fd)
		t.is("e/f", "Xbc")
		t.lists("e", "f new")
	}},
	{"openat(2): ENOENT for making a file in a removed directory", "", "dir d", func(t *T) {
		d := t.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
		t.rmdir("d")
		_, err := unix.Openat(d, "f", unix.O_RDWR|unix.O_CREAT, 0o644)
		t.fails(err, unix.ENOENT)
		t.fails(unix.Mkdirat(d, "e", 0o755), unix.ENOENT)
		t.fails(unix.Symlinkat("x", d, "l"), unix.ENOENT)
		t.eq("st_nlink", uint64(t.fstat(d).Nlink), uint64(0))
	}},
	{"openat(2): ENOTDIR if the descriptor is of a file", "", "file f", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		_, err := unix.Openat(fd, "x", unix.O_RDONLY, 0)
		t.fails(err, unix.ENOTDIR)
	}},
	{"openat2(2): RESOLVE_NO_SYMLINKS gives ELOOP, RESOLVE_BENEATH gives EXDEV", "", "dir d; file d/f; symlink l d; file g", func(t *T) {
		d := t.open("d", unix.O_PATH)
		top := t.open("", unix.O_PATH)
		_, err := unix.Openat2(top, "l/f", &unix.OpenHow{Resolve: unix.RESOLVE_NO_SYMLINKS})
		t.fails(err, unix.ELOOP)
		_, err = unix.Openat2(d, "../g", &unix.OpenHow{Resolve: unix.RESOLVE_BENEATH})
		t.fails(err, unix.EXDEV)
		fd, err := unix.Openat2(top, "d/../g", &unix.OpenHow{Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV})
		t.ok(err)
		t.keep(fd)
	}},
	{"creat(2): the times of a new file and of its directory", "", "dir d; mtime d 1000", func(t *T) {
		t.touches(func() { t.write("d/f", "") }, "d mc")
		st, d := t.stat("d/f"), t.stat("d")
		t.eq("directory's mtime and ctime", d.Mtim, d.Ctim)
		t.true(st.Mtim == st.Ctim && st.Atim == st.Mtim, "times of a new file differ: %v %v %v", st.Atim, st.Mtim, st.Ctim)
	}},
}

// running starts a copy of sleep(1) named name, and returns what ends it.
func (t *T) running(name string) (stop func()) {
	t.program(name, "sleep")
	cmd := exec.Command(t.p(name), "1000")
	t.ok(cmd.Start())
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed: an error
		}
	}
	t.cleanup(stop)
	return stop
}

// program copies a program of the host to name.
func (t *T) program(name, prog string) {
	path, err := exec.LookPath(prog)
	t.ok(err)
	t.write(name, t.read(path))
	t.chmod(name, 0o755)
}
