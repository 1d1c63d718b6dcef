package posix

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// File flags of ioctl_iflags(2), as in linux/fs.h.
const (
	fsImmutable = 0x10
	fsAppend    = 0x20
	fsNodump    = 0x40
	fsNoatime   = 0x80
	fsVisible   = fsImmutable | fsAppend | fsNodump | fsNoatime
)

func getFlags(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	return n & fsVisible, err
}

// setFlags sets the four flags above and leaves the others, which the filesystem may not let go.
func setFlags(fd, flags int) error {
	n, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, n&^fsVisible|flags)
}

// flags runs fn while name has the flags.
func (t *T) flags(name string, flags int, fn func()) {
	fd := t.open(name, unix.O_RDONLY)
	if err := setFlags(fd, flags); err != nil {
		t.fails(err, unix.EPERM) // only CAP_LINUX_IMMUTABLE may
		t.Skipf("CAP_LINUX_IMMUTABLE")
	}
	t.cleanup(func() { t.ok(setFlags(fd, 0)) })
	fn()
	t.ok(setFlags(fd, 0))
}

var ioctlCases = []Case{
	{"ioctl_iflags(2): FS_NODUMP_FL is set and read back, on files and directories", "fileflags", "file f; dir d", func(t *T) {
		for _, n := range []string{"f", "d"} {
			fd := t.open(n, unix.O_RDONLY)
			got, err := getFlags(fd)
			t.ok(err)
			t.eq("flags", got, 0)
			t.ok(setFlags(fd, fsNodump))
			got, err = getFlags(fd)
			t.ok(err)
			t.eq("flags", got, fsNodump)
			got, err = getFlags(t.open(n, unix.O_RDONLY))
			t.ok(err)
			t.eq("flags by another descriptor", got, fsNodump)
			t.ok(setFlags(fd, 0))
		}
	}},
	{"ioctl_iflags(2): an immutable file takes no chmod, unlink, rename, link or truncate: EPERM", "fileflags root", "file f abc; file g", func(t *T) {
		t.flags("f", fsImmutable, func() {
			t.fails(unix.Chmod(t.p("f"), 0o600), unix.EPERM)
			t.fails(unix.Chown(t.p("f"), alice, -1), unix.EPERM)
			t.fails(unix.Unlink(t.p("f")), unix.EPERM)
			t.fails(unix.Rename(t.p("f"), t.p("h")), unix.EPERM)
			t.fails(unix.Rename(t.p("g"), t.p("f")), unix.EPERM)
			t.fails(unix.Link(t.p("f"), t.p("h")), unix.EPERM)
			t.fails(t.utimens("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 5}), unix.EPERM)
			t.fails(unix.Truncate(t.p("f"), 0), unix.EPERM)
			t.ok(t.openErr("f", unix.O_RDONLY))
		})
		t.is("f", "abc")
		t.unlink("f")
	}},
	{"ioctl_iflags(2): an immutable file is not opened for writing: EPERM", "fileflags root", "file f abc", func(t *T) {
		t.flags("f", fsImmutable, func() { t.fails(t.openErr("f", unix.O_WRONLY), unix.EPERM) })
	}},
	{"ioctl_iflags(2): an immutable directory takes no new names and loses none: EPERM", "fileflags root", "dir d; file d/f abc", func(t *T) {
		t.flags("d", fsImmutable, func() {
			t.fails(t.openErr("d/g", unix.O_CREAT|unix.O_WRONLY), unix.EPERM, unix.EACCES)
			t.fails(unix.Mkdir(t.p("d/g"), 0o755), unix.EPERM, unix.EACCES)
			t.fails(unix.Unlink(t.p("d/f")), unix.EPERM)
			t.fails(unix.Rename(t.p("d/f"), t.p("f")), unix.EPERM)
		})
		t.is("d/f", "abc")
		t.lists("d", "f")
	}},
	{"ioctl_iflags(2): a file in an immutable directory may be written", "fileflags root", "dir d; file d/f abc", func(t *T) {
		t.flags("d", fsImmutable, func() { t.appendTo("d/f", "d") })
		t.is("d/f", "abcd")
	}},
	{"ioctl_iflags(2): an append-only file is appended to, not truncated or removed: EPERM", "fileflags root", "file f abc", func(t *T) {
		t.flags("f", fsAppend, func() {
			t.appendTo("f", "d")
			t.fails(unix.Truncate(t.p("f"), 0), unix.EPERM)
			t.fails(unix.Unlink(t.p("f")), unix.EPERM)
		})
		t.is("f", "abcd")
	}},
	{"ioctl_iflags(2): an append-only file is opened for writing with O_APPEND only: EPERM", "fileflags root", "file f abc", func(t *T) {
		t.flags("f", fsAppend, func() {
			t.fails(t.openErr("f", unix.O_WRONLY), unix.EPERM)
			t.fails(t.openErr("f", unix.O_WRONLY|unix.O_APPEND|unix.O_TRUNC), unix.EPERM)
		})
		t.is("f", "abc")
	}},
	{"ioctl_iflags(2): EPERM or EACCES for one who is not the owner", "fileflags root", "file f", func(t *T) {
		t.bob(func() { t.fails(setFlags(t.open("f", unix.O_RDONLY), fsNodump), unix.EPERM, unix.EACCES) })
	}},
	{"ioctl(2): ENOTTY for a request that files do not know", "", "file f; dir d", func(t *T) {
		for _, n := range []string{"f", "d"} {
			_, err := unix.IoctlGetTermios(t.open(n, unix.O_RDONLY), unix.TCGETS)
			t.fails(err, unix.ENOTTY)
		}
	}},
	{"ioctl(2): FIONREAD of a file is what is left to read", "", "file f abcdef", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.seek(fd, 2, unix.SEEK_SET, 2)
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		t.ok(err)
		t.eq("left", n, 4)
	}},
}

// watch returns a function that runs fn and gives what inotify(7) tells of name meanwhile, as "MASK NAME" joined by
// commas, the mask of what matters here.
func (t *T) watch(name string) func(fn func()) string {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	t.ok(err)
	t.keep(fd)
	const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_ATTRIB |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_CLOSE_WRITE
	_, err = unix.InotifyAddWatch(fd, t.p(name), mask)
	t.ok(err)
	words := []struct {
		bit  uint32
		word string
	}{
		{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"},
		{unix.IN_MODIFY, "modify"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_DELETE_SELF, "gone"},
		{unix.IN_MOVE_SELF, "moved"}, {unix.IN_CLOSE_WRITE, "close"},
	}
	return func(fn func()) string {
		fn()
		var events []string
		b := make([]byte, 65536)
		for {
			n, err := unix.Read(fd, b)
			if err == unix.EAGAIN {
				return strings.Join(events, ",")
			}
			t.ok(err)
			for e := b[:n]; len(e) > 0; {
				bits, size := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[12:])
				for _, w := range words {
					if bits&w.bit != 0 {
						name := strings.TrimRight(string(e[16:16+size]), "\x00")
						events = append(events, strings.TrimSpace(w.word+" "+name))
					}
				}
				e = e[16+size:]
			}
		}
	}
}

var inotifyCases = []Case{
	{"inotify(7): a directory tells of names made, moved and taken away", "", "dir d; file d/old; file f", func(t *T) {
		during := t.watch("d")
		t.eq("creat", during(func() { t.write("d/a", "") }), "create a,close a")
		t.eq("mkdir", during(func() { t.mkdir("d/e") }), "create e")
		t.eq("symlink", during(func() { t.symlink("x", "d/l") }), "create l")
		t.eq("link", during(func() { t.link("f", "d/h") }), "create h")
		t.eq("rename within", during(func() { t.rename("d/a", "d/b") }), "from a,to b")
		t.eq("rename out", during(func() { t.rename("d/b", "b") }), "from b")
		t.eq("rename in", during(func() { t.rename("b", "d/c") }), "to c")
		t.eq("unlink", during(func() { t.unlink("d/old") }), "delete old")
		t.eq("rmdir", during(func() { t.rmdir("d/e") }), "delete e")
	}},
	{"inotify(7): a directory tells of changes to what is in it", "", "dir d; file d/f abc", func(t *T) {
		during := t.watch("d")
		t.eq("write", during(func() { t.appendTo("d/f", "d") }), "modify f,close f")
		t.eq("chmod", during(func() { t.chmod("d/f", 0o600) }), "attrib f")
		t.eq("utimens", during(func() { t.ok(t.utimens("d/f", now, unix.Timespec{Sec: 5})) }), "attrib f")
		t.eq("truncate", during(func() { t.ok(unix.Truncate(t.p("d/f"), 1)) }), "modify f")
	}},
	{"inotify(7): a file tells of writes, also the first, and of its end", "", "file f abc", func(t *T) {
		during := t.watch("f")
		t.eq("write", during(func() { t.appendTo("f", "d") }), "modify,close")
		t.eq("rename", during(func() { t.rename("f", "g") }), "moved")
		t.eq("write", during(func() { t.appendTo("g", "d") }), "modify,close")
		t.eq("unlink", during(func() { t.unlink("g") }), "attrib,gone")
	}},
	{"inotify(7): a directory that is removed says so", "", "dir d", func(t *T) {
		during := t.watch("d")
		t.eq("rmdir", during(func() { t.rmdir("d") }), "gone")
	}},
	{"inotify_add_watch(2): EACCES without read permission", "root", "file f; mode f 0600", func(t *T) {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		t.ok(err)
		t.keep(fd)
		t.bob(func() {
			_, err := unix.InotifyAddWatch(fd, t.p("f"), unix.IN_MODIFY)
			t.fails(err, unix.EACCES)
		})
	}},
}
