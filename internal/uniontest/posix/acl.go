package posix

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// acl encodes a list as acl(5) writes it short ("u::rw,u:2001:r,g::r,m::r,o::r") the way the two attributes hold it:
// a 32-bit version, 2, then for each entry tag and permissions in 16 bits and an id in 32, little-endian.
func acl(text string) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for entry := range strings.SplitSeq(text, ",") {
		f := strings.Split(entry, ":")
		tag := map[string]uint16{"u": 1, "g": 4, "m": 0x10, "o": 0x20}[f[0]]
		id := ^uint32(0)
		if f[1] != "" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				panic(err) // a slip in a case
			}
			id = uint32(n)
			tag *= 2 // ACL_USER and ACL_GROUP
		}
		var perm uint16
		for _, c := range f[2] {
			perm |= map[rune]uint16{'r': 4, 'w': 2, 'x': 1}[c]
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

func (t *T) setacl(name, attr, text string) { t.setxattr(name, attr, acl(text)) }
func (t *T) isacl(name, attr, text string)  { t.xattr(name, attr, acl(text)) }

// The trees of these cases lay ACLs out by setxattr lines, which hold them in hexadecimal.
const (
	// u::rw,u:2001:rw,g::r,m::rw,o::-
	aclAliceWrites = "0x02000000" + "01000600ffffffff" + "02000600d1070000" + "04000400ffffffff" + "10000600ffffffff" + "20000000ffffffff"
	// u::rwx,u:2001:rwx,g::rx,m::rwx,o::-
	aclDefaultAlice = "0x02000000" + "01000700ffffffff" + "02000700d1070000" + "04000500ffffffff" + "10000700ffffffff" + "20000000ffffffff"
)

var aclCases = []Case{
	{"acl(5): a named user gets what his entry and the mask give, others what they had", "acl root", "file f abc; mode f 0600", func(t *T) {
		t.setacl("f", aclAccess, "u::rw,u:2001:r,g::-,m::r,o::-")
		t.mode("f", 0o640)
		t.isacl("f", aclAccess, "u::rw,u:2001:r,g::-,m::r,o::-")
		t.alice(func() {
			t.ok(t.openErr("f", unix.O_RDONLY))
			t.fails(t.openErr("f", unix.O_RDWR), unix.EACCES)
		})
		t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES) })
	}},
	{"acl(5): an ACL that was there is obeyed, shown and changed", "acl root",
		Tree("file f abc; xattr f system.posix_acl_access " + aclAliceWrites), func(t *T) {
			t.mode("f", 0o660)
			t.isacl("f", aclAccess, "u::rw,u:2001:rw,g::r,m::rw,o::")
			t.alice(func() { t.appendTo("f", "d") })
			t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES) })
			t.is("f", "abcd")
			t.isacl("f", aclAccess, "u::rw,u:2001:rw,g::r,m::rw,o::")
			t.mode("f", 0o660)
		}},
	{"acl(5): a named group gets what its entry gives", "acl root", "dir d; file d/f; mode d/f 0600", func(t *T) {
		t.setacl("d/f", aclAccess, "u::rw,g::-,g:3001:rw,m::rw,o::-")
		t.as(bob, bob, []int{staff}, func() { t.appendTo("d/f", "x") })
		t.bob(func() { t.fails(t.openErr("d/f", unix.O_WRONLY), unix.EACCES) })
	}},
	{"acl(5): an entry of a directory gives search and write", "acl root", "dir d; mode d 0700; file d/f abc", func(t *T) {
		t.setacl("d", aclAccess, "u::rwx,u:2001:rwx,g::-,m::rwx,o::-")
		t.alice(func() {
			t.is("d/f", "abc")
			t.write("d/g", "new")
			t.unlink("d/f")
		})
		t.bob(func() { t.fails(t.openErr("d/g", unix.O_RDONLY), unix.EACCES) })
		t.lists("d", "g")
	}},
	{"acl(5): a list of the three basic entries is the mode alone, and is not kept", "acl", "file f", func(t *T) {
		t.setacl("f", aclAccess, "u::rwx,g::rx,o::r")
		t.mode("f", 0o754)
		t.noxattr("f", aclAccess)
	}},
	{"acl(5): chmod changes the mask, not the group's entry", "acl root", "file f", func(t *T) {
		t.setacl("f", aclAccess, "u::rw,u:2001:rw,g::rw,m::rw,o::r")
		t.chmod("f", 0o600)
		t.isacl("f", aclAccess, "u::rw,u:2001:rw,g::rw,m::,o::")
		t.alice(func() { t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES) })
		t.chmod("f", 0o660)
		t.isacl("f", aclAccess, "u::rw,u:2001:rw,g::rw,m::rw,o::")
		t.alice(func() { t.ok(t.openErr("f", unix.O_RDWR)) })
	}},
	{"acl(5): removing the access ACL leaves the mode", "acl", "file f", func(t *T) {
		t.setacl("f", aclAccess, "u::rw,u:2001:rw,g::r,m::rw,o::r")
		t.ok(unix.Removexattr(t.p("f"), aclAccess))
		t.noxattr("f", aclAccess)
		t.mode("f", 0o664)
	}},
	{"acl(5): the attributes are listed", "acl", "dir d", func(t *T) {
		t.setacl("d", aclAccess, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::rx")
		t.setacl("d", aclDefault, "u::rwx,g::rx,o::rx")
		t.eq("list", strings.Join(t.xattrs("d", "system.posix_acl"), " "), aclAccess+" "+aclDefault)
	}},
	{"acl(5): a default ACL goes to new files, in place of the umask", "acl", "dir d", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::-")
		t.umask(0o077, func() { t.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o666) })
		t.mode("d/f", 0o660)
		t.isacl("d/f", aclAccess, "u::rw,u:2001:rwx,g::rx,m::rw,o::")
		t.noxattr("d/f", aclDefault)
	}},
	{"acl(5): a default ACL that was there goes to new files and directories", "acl",
		Tree("dir d; xattr d system.posix_acl_default " + aclDefaultAlice), func(t *T) {
			t.umask(0o077, func() {
				t.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o666)
				t.ok(unix.Mkdir(t.p("d/e"), 0o777))
			})
			t.mode("d/f", 0o660)
			t.mode("d/e", 0o770)
			t.isacl("d/f", aclAccess, "u::rw,u:2001:rwx,g::rx,m::rw,o::")
			t.isacl("d/e", aclDefault, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::")
		}},
	{"acl(5): a default ACL goes to new directories as access and as default ACL", "acl", "dir d", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::-")
		t.umask(0o077, func() { t.ok(unix.Mkdir(t.p("d/e"), 0o777)) })
		t.mode("d/e", 0o770)
		t.isacl("d/e", aclAccess, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::")
		t.isacl("d/e", aclDefault, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::")
		t.umask(0o077, func() { t.ok(unix.Mkfifo(t.p("d/e/p"), 0o666)) })
		t.mode("d/e/p", 0o660)
		t.symlink("x", "d/e/l")
		t.mode("d/e/l", 0o777)
	}},
	{"acl(5): a default ACL of basic entries is a umask of the directory's own", "acl", "dir d", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,g::rx,o::-")
		t.umask(0, func() { t.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o666) })
		t.mode("d/f", 0o640)
		t.noxattr("d/f", aclAccess)
		t.umask(0o777, func() { t.open("d/g", unix.O_CREAT|unix.O_WRONLY, 0o600) })
		t.mode("d/g", 0o600)
	}},
	{"acl(5): a default ACL changes nobody's access to the directory itself", "acl root", "dir d; mode d 0700", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,u:2001:rwx,g::rx,m::rwx,o::rx")
		t.mode("d", 0o700)
		t.alice(func() { t.fails(t.openErr("d/x", unix.O_RDONLY), unix.EACCES) })
	}},
	{"acl(5): a default ACL can be removed, and new files then obey the umask", "acl", "dir d", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,g::rx,o::-")
		t.ok(unix.Removexattr(t.p("d"), aclDefault))
		t.noxattr("d", aclDefault)
		t.umask(0o022, func() { t.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o666) })
		t.mode("d/f", 0o644)
	}},
	{"acl(5): O_TMPFILE takes the default ACL", "acl tmpfile", "dir d", func(t *T) {
		t.setacl("d", aclDefault, "u::rwx,g::rx,o::-")
		var fd int
		t.umask(0o077, func() { fd = t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o666) })
		t.eq("mode", t.fstat(fd).Mode&0o777, uint32(0o640))
	}},
	{"acl(5): EACCES for a default ACL on a file, EINVAL for a malformed list", "acl", "file f; dir d", func(t *T) {
		t.fails(unix.Setxattr(t.p("f"), aclDefault, []byte(acl("u::rwx,g::rx,o::-")), 0), unix.EACCES)
		for _, bad := range []string{"x", acl("u::rw"), acl("u::rw,u:2001:rw,g::r,o::r"), acl("o::r,g::r,u::rw")} {
			t.fails(unix.Setxattr(t.p("f"), aclAccess, []byte(bad), 0), unix.EINVAL, unix.EOPNOTSUPP)
		}
		t.mode("f", 0o644)
	}},
	{"acl(5): EPERM for one who is not the owner", "acl root", "file f; owner f 2001:2001; mode f 0666", func(t *T) {
		t.bob(func() {
			t.fails(unix.Setxattr(t.p("f"), aclAccess, []byte(acl("u::rw,u:2002:rw,g::r,m::rw,o::r")), 0), unix.EPERM)
		})
		t.alice(func() { t.setacl("f", aclAccess, "u::rw,u:2002:rw,g::r,m::rw,o::r") })
		t.isacl("f", aclAccess, "u::rw,u:2002:rw,g::r,m::rw,o::r")
	}},
	{"acl(5): setting an ACL outside the group drops set-gid", "acl root", "file f; owner f 2001:3001; mode f 02755", func(t *T) {
		t.alice(func() { t.setacl("f", aclAccess, "u::rwx,u:2002:rx,g::rx,m::rx,o::rx") })
		t.mode("f", 0o755)
	}},
	{"acl(5): ACLs survive write, rename and chown", "acl root", Tree("file f abc; xattr f system.posix_acl_access " + aclAliceWrites), func(t *T) {
		t.chown("f", bob, staff)
		t.appendTo("f", "d")
		t.rename("f", "g")
		t.isacl("g", aclAccess, "u::rw,u:2001:rw,g::r,m::rw,o::")
		t.mode("g", 0o660)
	}},
	{"setfacl(1): and getfacl(1) work", "acl root", "dir d; file d/f", func(t *T) {
		t.command("setfacl", "-m", "u:2001:rw,d:g:3001:rx", t.p("d"))
		out := t.command("getfacl", "-np", t.p("d"))
		for _, want := range []string{"user:2001:rw-", "default:group:3001:r-x", "default:mask::r-x"} {
			t.true(strings.Contains(out, want), "no %s in %s", want, out)
		}
		t.command("setfacl", "-b", t.p("d"))
		t.noxattr("d", aclAccess)
		t.noxattr("d", aclDefault)
	}},
}
