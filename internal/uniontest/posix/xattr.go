package posix

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var xattrCases = []Case{
	{"setxattr(2): sets, replaces and removes; ctime alone moves", "userxattr", "dir d; file d/f abc", func(t *T) {
		t.touches(func() { t.setxattr("d/f", "user.a", "one") }, "d/f c", "d -")
		t.xattr("d/f", "user.a", "one")
		t.touches(func() { t.setxattr("d/f", "user.a", "other") }, "d/f c")
		t.xattr("d/f", "user.a", "other")
		t.touches(func() { t.ok(unix.Removexattr(t.p("d/f"), "user.a")) }, "d/f c")
		t.noxattr("d/f", "user.a")
		t.eq("list", len(t.xattrs("d/f", "user.")), 0)
	}},
	{"setxattr(2): attributes that were there are listed, read, changed and removed", "userxattr",
		"file f abc; xattr f user.a one; xattr f user.b two; dir d; xattr d user.c three", func(t *T) {
			t.xattr("f", "user.a", "one")
			t.xattr("d", "user.c", "three")
			t.eq("list", strings.Join(t.xattrs("f", "user."), " "), "user.a user.b")
			t.setxattr("f", "user.a", "new")
			t.ok(unix.Removexattr(t.p("f"), "user.b"))
			t.setxattr("d", "user.d", "four")
			t.xattr("f", "user.a", "new")
			t.noxattr("f", "user.b")
			t.eq("list", strings.Join(t.xattrs("d", "user."), " "), "user.c user.d")
			t.is("f", "abc")
		}},
	{"setxattr(2): values of any bytes, and empty ones", "userxattr", "file f", func(t *T) {
		value := "\x00\xff=\n\x00"
		t.setxattr("f", "user.a", value)
		t.xattr("f", "user.a", value)
		t.setxattr("f", "user.empty", "")
		t.xattr("f", "user.empty", "")
		t.eq("list", strings.Join(t.xattrs("f", "user."), " "), "user.a user.empty")
	}},
	{"setxattr(2): XATTR_CREATE gives EEXIST, XATTR_REPLACE ENODATA", "userxattr", "file f; xattr f user.a one", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), "user.a", []byte("x"), unix.XATTR_CREATE), unix.EEXIST)
		t.fails(unix.Setxattr(t.p("f"), "user.b", []byte("x"), unix.XATTR_REPLACE), unix.ENODATA)
		t.ok(unix.Setxattr(t.p("f"), "user.b", []byte("x"), unix.XATTR_CREATE))
		t.ok(unix.Setxattr(t.p("f"), "user.a", []byte("y"), unix.XATTR_REPLACE))
		t.xattr("f", "user.a", "y")
		t.xattr("f", "user.b", "x")
	}},
	{"setxattr(2): EINVAL for unknown flags", "userxattr", "file f", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), "user.a", []byte("x"), 4), unix.EINVAL)
	}},
	{"setxattr(2): ERANGE for an empty name and one above 255 bytes; 255 are fine", "userxattr", "file f", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), "", []byte("x"), 0), unix.ERANGE)
		t.fails(unix.Setxattr(t.p("f"), "user."+strings.Repeat("n", 251), []byte("x"), 0), unix.ERANGE)
		long := "user." + strings.Repeat("n", 250)
		t.setxattr("f", long, "v")
		t.xattr("f", long, "v")
		t.eq("list", strings.Join(t.xattrs("f", "user."), " "), long)
	}},
	{"setxattr(2): E2BIG for a value above 64 KiB", "userxattr", "file f", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), "user.a", make([]byte, 65537), 0), unix.E2BIG)
		t.noxattr("f", "user.a")
	}},
	{"setxattr(2): EOPNOTSUPP for a name without a namespace or in an unknown one", "", "file f", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), "plain", []byte("x"), 0), unix.EOPNOTSUPP)
		t.fails(unix.Setxattr(t.p("f"), "nosuch.a", []byte("x"), 0), unix.EOPNOTSUPP)
	}},
	{"getxattr(2): ENODATA, and ERANGE if the buffer is too small; size 0 asks for the size", "userxattr", "file f; xattr f user.a hello", func(t *T) {
		_, err := unix.Getxattr(t.p("f"), "user.none", make([]byte, 10))
		t.fails(err, unix.ENODATA)
		_, err = unix.Getxattr(t.p("f"), "user.a", make([]byte, 4))
		t.fails(err, unix.ERANGE)
		n, err := unix.Getxattr(t.p("f"), "user.a", nil)
		t.ok(err)
		t.eq("size", n, 5)
		b := make([]byte, 5)
		n, err = unix.Getxattr(t.p("f"), "user.a", b)
		t.ok(err)
		t.eq("value", string(b[:n]), "hello")
	}},
	{"listxattr(2): ERANGE if the buffer is too small; size 0 asks for the size", "userxattr", "file f; xattr f user.a 1; xattr f user.bcd 2", func(t *T) {
		n, err := unix.Listxattr(t.p("f"), nil)
		t.ok(err)
		t.true(n >= len("user.a.user.bcd."), "size %d", n)
		_, err = unix.Listxattr(t.p("f"), make([]byte, 3))
		t.fails(err, unix.ERANGE)
		got, err := unix.Listxattr(t.p("f"), make([]byte, n))
		t.ok(err)
		t.eq("size", got, n)
	}},
	{"removexattr(2): ENODATA", "userxattr", "file f; xattr f user.a 1", func(t *T) {
		t.fails(unix.Removexattr(t.p("f"), "user.b"), unix.ENODATA)
		t.ok(unix.Removexattr(t.p("f"), "user.a"))
		t.fails(unix.Removexattr(t.p("f"), "user.a"), unix.ENODATA)
	}},
	{"xattr(7): user attributes are for files and directories only: EPERM", "userxattr", "symlink l x; fifo p; sock s", func(t *T) {
		for _, n := range []string{"l", "p", "s"} {
			t.fails(unix.Lsetxattr(t.p(n), "user.a", []byte("x"), 0), unix.EPERM)
		}
	}},
	{"xattr(7): user attributes need the file's permissions: EACCES", "root userxattr",
		"file f; xattr f user.a v; mode f 0600; file g; xattr g user.a v", func(t *T) {
			t.bob(func() {
				_, err := getxattr(t.p("f"), "user.a")
				t.fails(err, unix.EACCES)
				got, err := getxattr(t.p("g"), "user.a")
				t.ok(err)
				t.eq("value", got, "v")
				t.fails(unix.Setxattr(t.p("g"), "user.a", []byte("x"), 0), unix.EACCES)
				t.fails(unix.Removexattr(t.p("g"), "user.a"), unix.EACCES)
			})
		}},
	{"xattr(7): user attributes of a sticky directory are for its owner: EPERM", "root userxattr", "dir d; mode d 01777", func(t *T) {
		t.bob(func() { t.fails(unix.Setxattr(t.p("d"), "user.a", []byte("x"), 0), unix.EPERM) })
	}},
	{"xattr(7): trusted attributes are for the administrator, and unseen by others", "trusted root", "file f", func(t *T) {
		t.setxattr("f", "trusted.a", "v")
		t.xattr("f", "trusted.a", "v")
		t.eq("list", strings.Join(t.xattrs("f", "trusted.a"), " "), "trusted.a")
		t.bob(func() {
			_, err := getxattr(t.p("f"), "trusted.a")
			t.fails(err, unix.ENODATA, unix.EPERM)
			t.fails(unix.Setxattr(t.p("f"), "trusted.b", []byte("x"), 0), unix.EPERM)
			t.eq("list", len(t.xattrs("f", "trusted.")), 0)
		})
		t.ok(unix.Removexattr(t.p("f"), "trusted.a"))
		t.noxattr("f", "trusted.a")
	}},
	{"xattr(7): trusted attributes go on symbolic links and FIFOs too", "trusted", "symlink l x; fifo p", func(t *T) {
		t.setxattr("l", "trusted.a", "v")
		t.setxattr("p", "trusted.a", "w")
		t.xattr("l", "trusted.a", "v")
		t.xattr("p", "trusted.a", "w")
		t.eq("target", t.readlink("l"), "x")
	}},
	{"xattr(7): security.capability is kept, and EPERM for those without CAP_SETFCAP", "root caps", "file f; owner f 2001:2001", func(t *T) {
		t.setxattr("f", "security.capability", someCapability)
		t.xattr("f", "security.capability", someCapability)
		t.alice(func() {
			t.fails(unix.Setxattr(t.p("f"), "security.capability", []byte(someCapability), 0), unix.EPERM)
		})
		t.fails(unix.Setxattr(t.p("f"), "security.capability", []byte("nonsense"), 0), unix.EINVAL)
	}},
	{"fsetxattr(2): through a descriptor open for reading; fgetxattr, flistxattr, fremovexattr", "userxattr", "file f", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.ok(unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		b := make([]byte, 100)
		n, err := unix.Fgetxattr(fd, "user.a", b)
		t.ok(err)
		t.eq("value", string(b[:n]), "v")
		n, err = unix.Flistxattr(fd, b)
		t.ok(err)
		t.true(strings.Contains(string(b[:n]), "user.a\x00"), "list %q", b[:n])
		t.ok(unix.Fremovexattr(fd, "user.a"))
		t.noxattr("f", "user.a")
	}},
	{"lgetxattr(2): of a symbolic link is not of its target", "userxattr", "file f; xattr f user.a v; symlink l f", func(t *T) {
		_, err := getxattr(t.p("l"), "user.a")
		t.fails(err, unix.ENODATA, unix.EPERM, unix.EOPNOTSUPP)
		b := make([]byte, 10)
		n, err := unix.Getxattr(t.p("l"), "user.a", b)
		t.ok(err)
		t.eq("value through the link", string(b[:n]), "v")
		t.ok(unix.Setxattr(t.p("l"), "user.b", []byte("w"), 0))
		t.xattr("f", "user.b", "w")
	}},
	{"setxattr(2): dozens of attributes on one file", "userxattr", "file f", func(t *T) {
		for i := range 40 {
			t.setxattr("f", fmt.Sprintf("user.attr%02d", i), strings.Repeat("v", i))
		}
		t.eq("attributes", len(t.xattrs("f", "user.attr")), 40)
		for i := range 40 {
			t.xattr("f", fmt.Sprintf("user.attr%02d", i), strings.Repeat("v", i))
		}
	}},
	{"setxattr(2): attributes survive write, chmod, rename and link", "userxattr", "file f abc; xattr f user.a v", func(t *T) {
		t.appendTo("f", "d")
		t.chmod("f", 0o600)
		t.rename("f", "g")
		t.link("g", "h")
		t.xattr("h", "user.a", "v")
		t.setxattr("h", "user.a", "w")
		t.xattr("g", "user.a", "w")
	}},
}
