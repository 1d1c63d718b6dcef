package posix

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

var chmodCases = []Case{
	{"chmod(2): sets all twelve bits and moves ctime alone", "", "dir d; file d/f", func(t *T) {
		for _, m := range []uint32{0, 0o777, 0o4755, 0o2755, 0o1777, 0o7000, 0o644} {
			t.touches(func() { t.chmod("d/f", m) }, "d/f c", "d -")
			t.mode("d/f", m)
		}
	}},
	{"chmod(2): of a directory", "", "dir d; file d/f", func(t *T) {
		t.touches(func() { t.chmod("d", 0o1770) }, "d c", "d/f -")
		t.mode("d", 0o1770)
		t.kind("d", unix.S_IFDIR)
		t.lists("d", "f")
	}},
	{"chmod(2): of a FIFO and a socket", "", "fifo p; sock s", func(t *T) {
		t.chmod("p", 0o600)
		t.chmod("s", 0o622)
		t.mode("p", 0o600)
		t.mode("s", 0o622)
		t.kind("p", unix.S_IFIFO)
		t.kind("s", unix.S_IFSOCK)
	}},
	{"chmod(2): follows symbolic links", "", "file f; symlink l f", func(t *T) {
		t.chmod("l", 0o600)
		t.mode("f", 0o600)
		t.mode("l", 0o777)
	}},
	{"chmod(2): keeps content, times and xattrs", "userxattr", "file f abc; xattr f user.a v; mtime f 1000000000.25", func(t *T) {
		t.chmod("f", 0o600)
		t.is("f", "abc")
		t.xattr("f", "user.a", "v")
		t.eq("mtime", t.stat("f").Mtim, unix.Timespec{Sec: 1000000000, Nsec: 250000000})
	}},
	{"chmod(2): is seen by all names and descriptors of a file", "", "file f; link f g", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.chmod("g", 0o600)
		t.mode("f", 0o600)
		t.eq("fstat", t.fstat(fd).Mode&0o7777, uint32(0o600))
	}},
	{"fchmod(2): through a descriptor open for reading", "", "file f; dir d", func(t *T) {
		t.ok(unix.Fchmod(t.open("f", unix.O_RDONLY), 0o640))
		t.ok(unix.Fchmod(t.open("d", unix.O_RDONLY), 0o750))
		t.mode("f", 0o640)
		t.mode("d", 0o750)
	}},
	{"fchmodat2(2): of a symbolic link is EOPNOTSUPP", "", "file f; symlink l f", func(t *T) {
		t.fails(unix.Fchmodat(unix.AT_FDCWD, t.p("l"), 0o600, unix.AT_SYMLINK_NOFOLLOW), unix.EOPNOTSUPP)
		t.mode("f", 0o644)
	}},
	{"chmod(2): the owner may lock himself out and in again", "", "file f abc; dir d; file d/g", func(t *T) {
		for range 2 {
			t.chmod("f", 0)
			t.mode("f", 0)
			t.chmod("d", 0)
			t.mode("d", 0)
			t.chmod("d", 0o755)
			t.chmod("f", 0o644)
		}
		t.is("f", "abc")
		t.lists("d", "g")
	}},
	{"stat(2): what nobody may read is shown, listed and removed by its owner", "", "dir d; file d/f abc; mode d/f 0; dir d/e; mode d/e 0; fifo d/p; mode d/p 0", func(t *T) {
		t.lists("d", "e f p")
		t.size("d/f", 3)
		t.mode("d/f", 0)
		t.mode("d/e", 0)
		t.kind("d/p", unix.S_IFIFO)
		t.unlink("d/f")
		t.unlink("d/p")
		t.rmdir("d/e")
		t.lists("d", "")
	}},
	{"chmod(2): of what nobody may read and was there gives it back to its owner", "", "file f abc; mode f 0; dir d; file d/g; mode d 0", func(t *T) {
		t.chmod("f", 0o600)
		t.chmod("d", 0o700)
		t.is("f", "abc")
		t.lists("d", "g")
	}},
	{"rename(2): of what nobody may read", "", "file f abc; mode f 0", func(t *T) {
		t.rename("f", "g")
		t.gone("f")
		t.mode("g", 0)
		t.size("g", 3)
	}},
	{"chmod(2): EPERM for one who is not the owner, even in its group", "root",
		"file f; owner f 2001:3001; mode f 0777; dir d; owner d 2001:3001; mode d 0777", func(t *T) {
			t.as(bob, staff, nil, func() {
				t.fails(unix.Chmod(t.p("f"), 0o600), unix.EPERM)
				t.fails(unix.Chmod(t.p("d"), 0o600), unix.EPERM)
				t.fails(unix.Fchmod(t.open("f", unix.O_RDWR), 0o600), unix.EPERM)
			})
			t.mode("f", 0o777)
			t.alice(func() { t.ok(unix.Chmod(t.p("f"), 0o600)) })
			t.mode("f", 0o600)
		}},
	{"chmod(2): set-gid falls when an owner outside the file's group changes the mode", "root",
		"file f; owner f 2001:3001; dir d; owner d 2001:3001", func(t *T) {
			t.alice(func() {
				t.chmod("f", 0o2755)
				t.chmod("d", 0o2755)
			})
			t.mode("f", 0o755)
			t.mode("d", 0o755)
			t.as(alice, alice, []int{staff}, func() {
				t.chmod("f", 0o2755)
				t.chmod("d", 0o2755)
			})
			t.mode("f", 0o2755)
			t.mode("d", 0o2755)
		}},
	{"chmod(2): the owner may set set-uid; root may set all for anyone", "root", "file f; owner f 2001:3001", func(t *T) {
		t.alice(func() { t.chmod("f", 0o4711) })
		t.mode("f", 0o4711)
		t.chmod("f", 0o6755)
		t.mode("f", 0o6755)
	}},
	{"write(2): set-uid and set-gid fall when another than root writes", "root", "file f abc; mode f 06777", func(t *T) {
		t.bob(func() { t.pwrite(t.open("f", unix.O_RDWR), "X", 0) })
		t.mode("f", 0o777)
		t.is("f", "Xbc")
	}},
	{"write(2): set-uid and set-gid fall when the owner writes, and stay when root does", "root",
		"file f abc; owner f 2001:2001; mode f 06755; file g abc; owner g 2001:2001; mode g 06755", func(t *T) {
			t.alice(func() { t.pwrite(t.open("f", unix.O_RDWR), "X", 0) })
			t.mode("f", 0o755)
			t.pwrite(t.open("g", unix.O_RDWR), "X", 0)
			t.mode("g", 0o6755)
		}},
	{"write(2): set-gid without group execution is mandatory locking of old, and stays for the group", "root",
		"file f abc; owner f 2001:2001; mode f 02666", func(t *T) {
			t.alice(func() { t.pwrite(t.open("f", unix.O_RDWR), "X", 0) })
			t.mode("f", 0o2666)
		}},
	{"truncate(2): set-uid and set-gid fall when another than root truncates", "root", "file f abc; mode f 06777", func(t *T) {
		t.bob(func() { t.ok(unix.Truncate(t.p("f"), 1)) })
		t.mode("f", 0o777)
	}},
	{"open(2): set-uid and set-gid fall with O_TRUNC by another than root", "root", "file f abc; mode f 06777", func(t *T) {
		t.bob(func() { t.open("f", unix.O_WRONLY|unix.O_TRUNC) })
		t.mode("f", 0o777)
	}},
	{"fallocate(2): set-uid and set-gid fall when another than root allocates", "root", "file f abc; mode f 06777", func(t *T) {
		t.bob(func() { t.ok(sys.Fallocate(t.open("f", unix.O_RDWR), 0, 0, 8192)) })
		t.mode("f", 0o777)
	}},
	{"capabilities(7): a write drops the file's capabilities", "root caps", "file f abc", func(t *T) {
		t.setxattr("f", "security.capability", someCapability)
		t.pwrite(t.open("f", unix.O_RDWR), "X", 0)
		t.noxattr("f", "security.capability")
	}},
	{"capabilities(7): truncate drops the file's capabilities", "root caps", "file f abc", func(t *T) {
		t.setxattr("f", "security.capability", someCapability)
		t.ok(unix.Truncate(t.p("f"), 1))
		t.noxattr("f", "security.capability")
	}},
	{"capabilities(7): chmod keeps the file's capabilities", "root caps", "file f abc", func(t *T) {
		t.setxattr("f", "security.capability", someCapability)
		t.chmod("f", 0o700)
		t.xattr("f", "security.capability", someCapability)
	}},
}

// someCapability is CAP_NET_RAW, permitted and effective, as struct vfs_cap_data of revision 2 (capabilities(7)).
const someCapability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var chownCases = []Case{
	{"chown(2): sets owner and group and moves ctime alone", "root", "dir d; file d/f abc", func(t *T) {
		t.touches(func() { t.chown("d/f", alice, staff) }, "d/f c", "d -")
		t.owner("d/f", alice, staff)
		t.is("d/f", "abc")
	}},
	{"chown(2): -1 leaves owner or group", "root", "file f; owner f 2001:2001", func(t *T) {
		t.chown("f", -1, staff)
		t.owner("f", alice, staff)
		t.chown("f", bob, -1)
		t.owner("f", bob, staff)
		t.chown("f", -1, -1)
		t.owner("f", bob, staff)
	}},
	{"chown(2): of a directory, a FIFO, a socket", "root", "dir d; fifo p; sock s", func(t *T) {
		for _, f := range []string{"d", "p", "s"} {
			t.chown(f, alice, staff)
			t.owner(f, alice, staff)
		}
	}},
	{"lchown(2): changes the symbolic link, chown(2) what it points to", "root", "file f; symlink l f", func(t *T) {
		t.chown("l", alice, staff)
		t.owner("l", alice, staff)
		t.owner("f", 0, 0)
		t.ok(unix.Chown(t.p("l"), bob, bob))
		t.owner("f", bob, bob)
		t.owner("l", alice, staff)
		target := make([]byte, 10)
		n, err := unix.Readlink(t.p("l"), target)
		t.ok(err)
		t.eq("target", string(target[:n]), "f")
	}},
	{"fchown(2): through a descriptor open for reading, and fchownat with AT_EMPTY_PATH", "root", "file f", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.ok(unix.Fchown(fd, alice, staff))
		t.owner("f", alice, staff)
		t.ok(unix.Fchownat(fd, "", bob, -1, unix.AT_EMPTY_PATH))
		t.owner("f", bob, staff)
	}},
	{"chown(2): drops set-uid and set-gid of a program, for root too", "root", "file f; mode f 06755", func(t *T) {
		t.chown("f", alice, staff)
		t.mode("f", 0o755)
	}},
	{"chown(2): keeps set-gid of a file that its group may not execute", "root", "file f; mode f 06745", func(t *T) {
		t.chown("f", alice, staff)
		t.mode("f", 0o2745)
	}},
	{"chown(2): keeps the bits of a directory", "root", "dir d; mode d 06755", func(t *T) {
		t.chown("d", alice, staff)
		t.mode("d", 0o6755)
	}},
	{"chown(2): drops the set-id bits when a user gives the file to another group", "root",
		"file f; owner f 2001:2001; mode f 06755", func(t *T) {
			t.as(alice, alice, []int{staff}, func() { t.ok(unix.Chown(t.p("f"), -1, staff)) })
			t.owner("f", alice, staff)
			t.mode("f", 0o755)
		}},
	{"chown(2): of -1, -1 by the owner drops set-uid and set-gid", "root", "file f; owner f 2001:2001; mode f 06755", func(t *T) {
		t.alice(func() { t.ok(unix.Chown(t.p("f"), -1, -1)) })
		t.mode("f", 0o755)
	}},
	{"chown(2): drops the file's capabilities", "root caps", "file f", func(t *T) {
		t.setxattr("f", "security.capability", someCapability)
		t.chown("f", alice, staff)
		t.noxattr("f", "security.capability")
	}},
	{"chown(2): EPERM for a user who gives a file away", "root", "file f; owner f 2001:2001", func(t *T) {
		t.alice(func() {
			t.fails(unix.Chown(t.p("f"), bob, -1), unix.EPERM)
			t.fails(unix.Chown(t.p("f"), bob, bob), unix.EPERM)
		})
		t.owner("f", alice, alice)
	}},
	{"chown(2): the owner may give the file to a group that he is in, no other: EPERM", "root", "file f; owner f 2001:2001", func(t *T) {
		t.as(alice, alice, []int{staff}, func() {
			t.fails(unix.Chown(t.p("f"), -1, bob), unix.EPERM)
			t.ok(unix.Chown(t.p("f"), -1, staff))
		})
		t.owner("f", alice, staff)
	}},
	{"chown(2): EPERM for one who is not the owner", "root", "file f; owner f 2001:3001; mode f 0777", func(t *T) {
		t.as(bob, bob, []int{staff}, func() {
			t.fails(unix.Chown(t.p("f"), bob, -1), unix.EPERM)
			t.fails(unix.Chown(t.p("f"), -1, staff), unix.EPERM)
			t.fails(unix.Fchown(t.open("f", unix.O_RDWR), -1, bob), unix.EPERM)
		})
		t.owner("f", alice, staff)
	}},
	{"chown(2): is seen by all names of a file", "root", "file f; link f g", func(t *T) {
		t.chown("f", alice, staff)
		t.owner("g", alice, staff)
	}},
	{"chown(2): keeps content, mode, times and xattrs", "root userxattr", "file f abc; mode f 0640; xattr f user.a v; mtime f 1000", func(t *T) {
		t.chown("f", alice, staff)
		t.is("f", "abc")
		t.mode("f", 0o640)
		t.xattr("f", "user.a", "v")
		t.eq("mtime", t.stat("f").Mtim, unix.Timespec{Sec: 1000})
	}},
	{"chown(2): ids beyond 16 bits", "root", "file f", func(t *T) {
		err := unix.Chown(t.p("f"), 4000000000, 3000000000)
		if err == unix.EINVAL {
			t.Skipf("ids beyond the user namespace's map")
		}
		t.ok(err)
		t.owner("f", 4000000000, 3000000000)
	}},
}
