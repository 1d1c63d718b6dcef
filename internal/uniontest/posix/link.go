package posix

import (
	"net"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// readlink returns the target of the symbolic link.
func (t *T) readlink(name string) string {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlink(t.p(name), b)
	t.ok(err)
	return string(b[:n])
}

var linkCases = []Case{
	{"link(2): both names are one file", "", "file f abc; dir d", func(t *T) {
		t.link("f", "d/g")
		t.eq("inode", t.ino("d/g"), t.ino("f"))
		t.nlink("f", 2)
		t.nlink("d/g", 2)
		t.appendTo("d/g", "d")
		t.is("f", "abcd")
		t.chmod("f", 0o600)
		t.mode("d/g", 0o600)
		t.lists("d", "g")
	}},
	{"link(2): moves ctime of the file and the times of the new name's directory", "", "dir a; dir b; file a/f", func(t *T) {
		t.touches(func() { t.link("a/f", "b/g") }, "a/f c", "a -", "b mc")
	}},
	{"link(2): EEXIST if the new name exists, whatever it is", "", "file f abc; file g; dir d; symlink l nowhere", func(t *T) {
		for _, to := range []string{"g", "d", "l", "f"} {
			t.fails(unix.Link(t.p("f"), t.p(to)), unix.EEXIST)
		}
		t.nlink("f", 1)
	}},
	{"link(2): EPERM for a directory", "", "dir d", func(t *T) {
		t.fails(unix.Link(t.p("d"), t.p("e")), unix.EPERM)
		t.gone("e")
	}},
	{"link(2): of a symbolic link, a FIFO and a socket", "", "symlink l nowhere; fifo p; sock s", func(t *T) {
		for _, f := range []string{"l", "p", "s"} {
			t.link(f, f+"2")
			t.nlink(f, 2)
			t.eq("inode", t.ino(f), t.ino(f+"2"))
			t.kind(f+"2", t.stat(f).Mode&unix.S_IFMT)
		}
		t.eq("target", t.readlink("l2"), "nowhere")
	}},
	{"linkat(2): AT_SYMLINK_FOLLOW links the target", "", "file f abc; symlink l f", func(t *T) {
		t.ok(unix.Linkat(unix.AT_FDCWD, t.p("l"), unix.AT_FDCWD, t.p("g"), unix.AT_SYMLINK_FOLLOW))
		t.kind("g", unix.S_IFREG)
		t.eq("inode", t.ino("g"), t.ino("f"))
	}},
	{"linkat(2): through /proc/self/fd", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.ok(unix.Linkat(unix.AT_FDCWD, procFd(fd), unix.AT_FDCWD, t.p("g"), unix.AT_SYMLINK_FOLLOW))
		t.eq("inode", t.ino("g"), t.ino("f"))
		t.fnlink(fd, 2)
	}},
	{"linkat(2): ENOENT for an open file whose last name is gone", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.unlink("f")
		t.fails(unix.Linkat(unix.AT_FDCWD, procFd(fd), unix.AT_FDCWD, t.p("g"), unix.AT_SYMLINK_FOLLOW), unix.ENOENT)
		t.gone("g")
	}},
	{"linkat(2): EINVAL for unknown flags", "", "file f", func(t *T) {
		t.fails(unix.Linkat(unix.AT_FDCWD, t.p("f"), unix.AT_FDCWD, t.p("g"), 0x8000), unix.EINVAL)
	}},
	{"link(2): a trailing slash on the new name: ENOENT or ENOTDIR", "", "file f", func(t *T) {
		t.fails(unix.Link(t.p("f"), t.p("g/")), unix.ENOENT, unix.ENOTDIR)
	}},
	{"link(2): many links, and each unlink counts down", "", "file f abc; dir d", func(t *T) {
		const n = 300
		name := func(i int) string { return "d/" + strings.Repeat("x", i+1)[:i%200+1] + string(rune('a'+i/200)) }
		for i := range n {
			t.link("f", name(i))
		}
		t.nlink("f", n+1)
		for i := range n {
			t.unlink(name(i))
		}
		t.nlink("f", 1)
		t.is("f", "abc")
	}},
	{"link(2): a file found with two names is one, before and after a write to either", "", "dir d; file f abc; link f d/g", func(t *T) {
		t.eq("inode", t.ino("d/g"), t.ino("f"))
		t.nlink("f", 2)
		ino := t.ino("f")
		t.appendTo("f", "d")
		t.is("d/g", "abcd")
		t.eq("inode of f", t.ino("f"), ino)
		t.eq("inode of d/g", t.ino("d/g"), ino)
		t.nlink("d/g", 2)
		t.appendTo("d/g", "e")
		t.is("f", "abcde")
	}},
	{"link(2): a third name for a file found with two", "", "dir d; file f abc; link f d/g", func(t *T) {
		t.link("d/g", "h")
		for _, n := range []string{"f", "d/g", "h"} {
			t.nlink(n, 3)
			t.eq("inode", t.ino(n), t.ino("f"))
		}
		t.unlink("f")
		t.nlink("h", 2)
		t.appendTo("h", "d")
		t.is("d/g", "abcd")
	}},
	{"unlink(2): of one of two names found leaves the other and counts down", "", "dir d; file f abc; link f d/g", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.unlink("f")
		t.nlink("d/g", 1)
		t.fnlink(fd, 1)
		t.is("d/g", "abc")
		t.unlink("d/g")
		t.fnlink(fd, 0)
		t.eq("content", t.pread(fd, 10, 0), "abc")
	}},
	{"link(2): succeeds for exactly one of many at once", "", "file f abc; dir d", func(t *T) {
		var won atomic.Int32
		t.parallel(8, func(int) {
			if unix.Link(t.p("f"), t.p("d/g")) == nil {
				won.Add(1)
			}
		})
		t.eq("winners", won.Load(), int32(1))
		t.nlink("f", 2)
	}},
	{"link(2): EPERM for another's file under protected_hardlinks, or leave", "root", "file f; owner f 2001:2001; mode f 0600; dir d; mode d 0777", func(t *T) {
		t.bob(func() {
			if err := unix.Link(t.p("f"), t.p("d/g")); err != nil {
				t.fails(err, unix.EPERM)
			}
		})
	}},
}

var symlinkCases = []Case{
	{"symlink(2): keeps any target as it is given", "", "dir d", func(t *T) {
		for i, target := range []string{"x", "../..", "/absolute//path/", "nowhere/at/all", "with space\nand newline", "\xff\xfe\x01", strings.Repeat("y", 4000)} {
			name := "d/" + string(rune('a'+i))
			t.symlink(target, name)
			t.eq("target", t.readlink(name), target)
			t.eq("st_size", t.stat(name).Size, int64(len(target)))
			t.kind(name, unix.S_IFLNK)
			t.mode(name, 0o777)
		}
	}},
	{"symlink(2): a link that was there is read and followed", "", "dir d; file d/f abc; symlink l d/f; symlink m d", func(t *T) {
		t.eq("target", t.readlink("l"), "d/f")
		t.eq("st_size", t.stat("l").Size, int64(3))
		t.is("l", "abc")
		t.is("m/f", "abc")
		t.appendTo("l", "d")
		t.is("d/f", "abcd")
		t.kind("l", unix.S_IFLNK)
	}},
	{"symlink(2): EEXIST", "", "file f; symlink l nowhere; dir d", func(t *T) {
		for _, n := range []string{"f", "l", "d"} {
			t.fails(unix.Symlink("x", t.p(n)), unix.EEXIST)
		}
		t.eq("target", t.readlink("l"), "nowhere")
	}},
	{"symlink(2): ENOENT for an empty target", "", "", func(t *T) {
		t.fails(unix.Symlink("", t.p("l")), unix.ENOENT)
		t.gone("l")
	}},
	{"symlink(2): ENAMETOOLONG for a target of PATH_MAX bytes; PATH_MAX - 1 is the most asked for", "", "", func(t *T) {
		t.fails(unix.Symlink(strings.Repeat("x", 4096), t.p("l")), unix.ENAMETOOLONG)
		long := strings.Repeat("x", 4095)
		if err := unix.Symlink(long, t.p("l")); err != nil { // a block of the filesystem may be the limit
			t.fails(err, unix.ENAMETOOLONG)
			return
		}
		t.eq("target", t.readlink("l"), long)
	}},
	{"symlink(2): belongs to its maker, and moves its directory's times", "root", "dir d; mode d 0777", func(t *T) {
		t.touches(func() { t.alice(func() { t.symlink("x", "d/l") }) }, "d mc")
		t.owner("d/l", alice, alice)
	}},
	{"readlink(2): EINVAL for what is no link", "", "file f; dir d; fifo p", func(t *T) {
		for _, n := range []string{"f", "d", "p"} {
			_, err := unix.Readlink(t.p(n), make([]byte, 10))
			t.fails(err, unix.EINVAL)
		}
	}},
	{"readlink(2): cuts off silently at the buffer's end, and does not terminate", "", "symlink l abcdef", func(t *T) {
		b := []byte("......")
		n, err := unix.Readlink(t.p("l"), b[:3])
		t.ok(err)
		t.eq("length", n, 3)
		t.eq("buffer", string(b), "abc...")
	}},
	{"path_resolution(7): ELOOP for a circle, and for more than 40 links", "", "symlink a b; symlink b a; symlink s s; dir d", func(t *T) {
		for _, n := range []string{"a", "s"} {
			t.fails(t.openErr(n, unix.O_RDONLY), unix.ELOOP)
			t.fails(t.openErr(n+"/x", unix.O_RDONLY), unix.ELOOP)
		}
		t.symlink("d", "l0")
		for i := 1; i <= 41; i++ {
			t.symlink("l"+itoa(i-1), "l"+itoa(i))
		}
		t.ok(t.openErr("l38", unix.O_RDONLY))
		t.fails(t.openErr("l41", unix.O_RDONLY), unix.ELOOP)
	}},
	{"path_resolution(7): .. leads to the real parent, not back over the link", "", "dir a; dir b; dir b/c; file b/f abc; symlink a/l ../b/c", func(t *T) {
		t.is("a/l/../f", "abc")
	}},
	{"unlink(2): of a symbolic link leaves the target", "", "file f abc; symlink l f", func(t *T) {
		t.unlink("l")
		t.gone("l")
		t.is("f", "abc")
	}},
	{"rename(2): of a symbolic link moves the link", "", "file f abc; symlink l f", func(t *T) {
		ino := t.ino("l")
		t.rename("l", "m")
		t.eq("target", t.readlink("m"), "f")
		t.eq("inode", t.ino("m"), ino)
		t.gone("l")
		t.is("f", "abc")
	}},
}

func (t *T) mknod(name string, mode uint32, major, minor uint32) error {
	return unix.Mknod(t.p(name), mode, int(unix.Mkdev(major, minor)))
}

var mknodCases = []Case{
	{"mkfifo(3): makes a FIFO of the mode less the umask", "", "dir d", func(t *T) {
		t.touches(func() { t.umask(0o027, func() { t.ok(unix.Mkfifo(t.p("d/p"), 0o666)) }) }, "d mc")
		t.kind("d/p", unix.S_IFIFO)
		t.mode("d/p", 0o640)
		t.nlink("d/p", 1)
		t.size("d/p", 0)
	}},
	{"fifo(7): connects a reader and a writer; the FIFO may be renamed and unlinked between", "", "fifo p", func(t *T) {
		r := t.open("p", unix.O_RDONLY|unix.O_NONBLOCK)
		t.rename("p", "q")
		w := t.open("q", unix.O_WRONLY|unix.O_NONBLOCK)
		t.unlink("q")
		t.writeFd(w, "hi")
		b := make([]byte, 10)
		n, err := unix.Read(r, b)
		t.ok(err)
		t.eq("through the FIFO", string(b[:n]), "hi")
	}},
	{"fifo(7): after chmod it is the same FIFO", "", "fifo p", func(t *T) {
		r := t.open("p", unix.O_RDONLY|unix.O_NONBLOCK)
		t.chmod("p", 0o600)
		w := t.open("p", unix.O_WRONLY|unix.O_NONBLOCK)
		t.writeFd(w, "hi")
		b := make([]byte, 10)
		n, err := unix.Read(r, b)
		t.ok(err)
		t.eq("through the FIFO", string(b[:n]), "hi")
	}},
	{"mkfifo(3): EEXIST", "", "file f; fifo p; symlink l nowhere", func(t *T) {
		for _, n := range []string{"f", "p", "l"} {
			t.fails(unix.Mkfifo(t.p(n), 0o600), unix.EEXIST)
		}
	}},
	{"mknod(2): makes a regular file, empty", "", "", func(t *T) {
		t.ok(t.mknod("f", unix.S_IFREG|0o600, 0, 0))
		t.kind("f", unix.S_IFREG)
		t.mode("f", 0o600)
		t.write("f", "abc")
		t.is("f", "abc")
		t.ok(t.mknod("g", 0o600, 0, 0)) // type 0 is a regular file
		t.kind("g", unix.S_IFREG)
	}},
	{"mknod(2): makes a socket", "", "", func(t *T) {
		t.ok(t.mknod("s", unix.S_IFSOCK|0o600, 0, 0))
		t.kind("s", unix.S_IFSOCK)
	}},
	{"mknod(2): makes devices that work and show their numbers", "device", "", func(t *T) {
		t.ok(t.mknod("null", unix.S_IFCHR|0o666, 1, 3))
		t.ok(t.mknod("zero", unix.S_IFCHR|0o666, 1, 5))
		t.ok(t.mknod("blk", unix.S_IFBLK|0o600, 4000, 70000))
		t.eq("st_rdev", t.stat("null").Rdev, unix.Mkdev(1, 3))
		t.eq("st_rdev", t.stat("blk").Rdev, unix.Mkdev(4000, 70000))
		t.kind("blk", unix.S_IFBLK)
		t.writeFd(t.open("null", unix.O_WRONLY), "gone")
		t.eq("zeros", t.pread(t.open("zero", unix.O_RDONLY), 3, 0), "\x00\x00\x00")
		t.fails(t.openErr("blk", unix.O_RDONLY), unix.ENXIO, unix.ENODEV)
	}},
	{"mknod(2): a device keeps its numbers over chmod, rename and link", "device", "", func(t *T) {
		t.ok(t.mknod("null", unix.S_IFCHR|0o666, 1, 3))
		t.chmod("null", 0o600)
		t.rename("null", "n")
		t.link("n", "m")
		t.eq("st_rdev", t.stat("m").Rdev, unix.Mkdev(1, 3))
		t.writeFd(t.open("m", unix.O_WRONLY), "gone")
	}},
	{"mknod(2): EPERM for devices without privilege", "root", "dir d; mode d 0777", func(t *T) {
		t.bob(func() {
			t.fails(t.mknod("d/c", unix.S_IFCHR|0o600, 1, 3), unix.EPERM)
			t.fails(t.mknod("d/b", unix.S_IFBLK|0o600, 1, 3), unix.EPERM)
			t.ok(t.mknod("d/p", unix.S_IFIFO|0o600, 0, 0))
		})
		t.lists("d", "p")
	}},
	{"mknod(2): EPERM for a directory, EINVAL for a type that is none", "", "", func(t *T) {
		t.fails(t.mknod("d", unix.S_IFDIR|0o700, 0, 0), unix.EPERM)
		t.fails(t.mknod("l", unix.S_IFLNK|0o700, 0, 0), unix.EPERM, unix.EINVAL)
		t.fails(t.mknod("x", 0o170000|0o600, 0, 0), unix.EINVAL)
		t.lists("", "")
	}},
	{"mknod(2): EEXIST", "", "file f; dir d; symlink l nowhere", func(t *T) {
		for _, n := range []string{"f", "d", "l"} {
			t.fails(t.mknod(n, unix.S_IFREG|0o600, 0, 0), unix.EEXIST)
		}
		t.gone("nowhere")
	}},
}

// listen binds a socket to the path, which stays when the listener is closed.
func (t *T) listen(name string) net.Listener {
	l, err := net.Listen("unix", name)
	t.ok(err)
	t.cleanup(func() { _ = l.Close() })
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l
}

// viaDir is a path of name that is short enough for sun_path of unix(7), 108 bytes.
func (t *T) viaDir(name string) string {
	return procFd(t.open("", unix.O_PATH|unix.O_DIRECTORY)) + "/" + name
}

var socketCases = []Case{
	{"unix(7): bind makes a socket that connect finds", "", "", func(t *T) {
		l := t.listen(t.viaDir("s"))
		t.kind("s", unix.S_IFSOCK)
		t.lists("", "s")
		done := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, err = c.Write([]byte("hi"))
				_ = c.Close() // all was written
			}
			done <- err
		}()
		c, err := net.Dial("unix", t.viaDir("s"))
		t.ok(err)
		b := make([]byte, 10)
		n, err := c.Read(b)
		t.ok(err)
		t.eq("through the socket", string(b[:n]), "hi")
		t.ok(c.Close())
		t.ok(<-done)
	}},
	{"unix(7): a socket is found under its new name and after chmod", "", "dir d", func(t *T) {
		l := t.listen(t.viaDir("d/s"))
		t.chmod("d/s", 0o600)
		t.rename("d/s", "s")
		t.link("s", "s2")
		c, err := net.Dial("unix", t.viaDir("s2"))
		t.ok(err)
		t.ok(c.Close())
		t.ok(l.Close())
	}},
	{"bind(2): EADDRINUSE if the name exists", "", "file f; sock s", func(t *T) {
		for _, n := range []string{"f", "s"} {
			_, err := net.Listen("unix", t.viaDir(n))
			t.fails(err, unix.EADDRINUSE)
		}
	}},
	{"connect(2): ECONNREFUSED for a socket without a listener and for a file", "", "file f; sock s", func(t *T) {
		for _, n := range []string{"f", "s"} {
			_, err := net.Dial("unix", t.viaDir(n))
			t.fails(err, unix.ECONNREFUSED)
		}
	}},
	{"connect(2): EACCES without write permission on the socket", "root", "", func(t *T) {
		t.listen(t.viaDir("s"))
		t.chmod("s", 0o755)
		path := t.viaDir("s")
		t.bob(func() {
			_, err := net.Dial("unix", path)
			t.fails(err, unix.EACCES)
		})
	}},
	{"bind(2): the socket's mode is 0777 less the umask, and the owner its maker", "root", "dir d; mode d 0777", func(t *T) {
		t.as(alice, alice, nil, func() {
			unix.Umask(0o027)
			t.listen(t.viaDir("d/s"))
		})
		t.mode("d/s", 0o750)
		t.owner("d/s", alice, alice)
	}},
}
