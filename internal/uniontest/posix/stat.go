package posix

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func (t *T) statx(name string) unix.Statx_t {
	var st unix.Statx_t
	t.ok(unix.Statx(unix.AT_FDCWD, t.p(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
	return st
}

// subdirs wants the link count of a directory to count its subdirectories, or to be 1, which says "unknown" to
// find(1) and fts(3), as btrfs does.
func (t *T) subdirs(name string, n uint64) {
	if got := uint64(t.stat(name).Nlink); got != 1 && got != n+2 {
		t.Fatalf("st_nlink of %s: got %d, want %d or 1", name, got, n+2)
	}
}

var nlinkCases = []Case{
	{"inode(7): st_nlink of a directory is 2 and its subdirectories", "", "dir d; dir d/a; dir d/b; file d/f", func(t *T) {
		t.subdirs("d", 2)
		t.mkdir("d/c")
		t.subdirs("d", 3)
		t.rmdir("d/a")
		t.subdirs("d", 2)
		t.write("d/g", "")
		t.subdirs("d", 2)
		t.rename("d/b", "b")
		t.subdirs("d", 1)
		t.rename("b", "d/c")
		t.subdirs("d", 1)
	}},
	{"inode(7): st_nlink is 0 on the descriptor of an unlinked file", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.fnlink(fd, 1)
		t.unlink("f")
		t.fnlink(fd, 0)
	}},
	{"inode(7): st_nlink is 0 on the descriptor of a file that rename replaced", "", "file f abc; file g def", func(t *T) {
		fd := t.open("g", unix.O_RDONLY)
		t.rename("f", "g")
		t.fnlink(fd, 0)
		t.nlink("g", 1)
	}},
	{"inode(7): st_nlink counts down when rename replaces one of two names", "", "file f abc; file g def; link g h", func(t *T) {
		fd := t.open("g", unix.O_RDONLY)
		t.rename("f", "g")
		t.fnlink(fd, 1)
		t.nlink("h", 1)
		t.is("h", "def")
	}},
	{"inode(7): st_nlink is 0 on the descriptor of a removed directory, and of one that rename replaced", "", "dir d; dir e; dir f", func(t *T) {
		d, f := t.open("d", unix.O_RDONLY), t.open("f", unix.O_RDONLY)
		t.rmdir("d")
		t.fnlink(d, 0)
		t.rename("e", "f")
		t.fnlink(f, 0)
	}},
	{"inode(7): st_nlink of an O_PATH descriptor of a symbolic link that was removed is 0", "", "symlink l x", func(t *T) {
		fd := t.open("l", unix.O_PATH|unix.O_NOFOLLOW)
		t.unlink("l")
		t.fnlink(fd, 0)
	}},
	{"inode(7): st_nlink stays right over rename and exchange", "", "file f; link f g; file h", func(t *T) {
		t.rename("f", "f2")
		t.nlink("f2", 2)
		t.ok(t.rename2("f2", "h", exchange))
		t.nlink("h", 2)
		t.nlink("g", 2)
		t.nlink("f2", 1)
	}},
	{"inode(7): st_nlink is right after races of link, rename, exchange and unlink", "", "file f; dir d", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		for range 15 {
			t.write("x", "")
			t.parallel(4, func(i int) {
				name := t.p(fmt.Sprintf("d/%d", i))
				_ = unix.Link(t.p("f"), name) // each may lose to another
				switch i {
				case 0:
					_ = unix.Rename(name, t.p("d/r"))
				case 1:
					_ = unix.Unlink(name)
				case 2:
					_ = unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, t.p("x"), exchange)
				case 3:
					_ = unix.Rename(t.p("d/0"), t.p("d/r2"))
				}
			})
			ino, names := t.fstat(fd).Ino, 0
			for _, dir := range []string{"", "d/"} {
				for _, n := range t.names(dir) {
					if t.ino(dir+n) == ino {
						names++
					}
				}
			}
			t.fnlink(fd, uint64(names))
			t.nlink("f", uint64(names))
			for _, n := range t.names("d") {
				t.unlink("d/" + n)
			}
			t.unlink("x")
			t.fnlink(fd, 1)
		}
	}},
	{"inode(7): st_nlink of a replaced file is 0 whoever won the race", "", "", func(t *T) {
		for range 15 {
			t.write("a", "")
			t.write("b", "")
			t.write("c", "")
			fds := []int{t.open("a", unix.O_RDONLY), t.open("b", unix.O_RDONLY), t.open("c", unix.O_RDONLY)}
			t.parallel(2, func(i int) { _ = unix.Rename(t.p(string(rune('a'+i))), t.p("c")) })
			var alive int
			for _, fd := range fds {
				alive += int(t.fstat(fd).Nlink)
			}
			t.eq("files with a name", alive, 1)
			t.unlink("c")
		}
	}},
}

var setgidCases = []Case{
	{"inode(7): a set-gid directory hands its group to all that is made in it, and the bit to directories", "root",
		"dir d; owner d 0:3001; mode d 02777", func(t *T) {
			t.as(alice, alice, nil, func() {
				unix.Umask(0o022)
				t.write("d/f", "")
				t.mkdir("d/e")
				t.symlink("x", "d/l")
				t.ok(unix.Mkfifo(t.p("d/p"), 0o644))
				t.ok(t.mknod("d/s", unix.S_IFSOCK|0o644, 0, 0))
				t.mkdir("d/e/e")
			})
			for _, n := range []string{"f", "e", "l", "p", "s", "e/e"} {
				t.owner("d/"+n, alice, staff)
			}
			t.mode("d/e", 0o2755)
			t.mode("d/e/e", 0o2755)
			t.mode("d/f", 0o644)
		}},
	{"inode(7): a set-gid directory below hands them on in turn", "root", "dir d; dir d/e; owner d/e 0:3001; mode d/e 02755", func(t *T) {
		t.mkdir("d/e/g")
		t.write("d/e/g/f", "")
		t.mode("d/e/g", 0o2755)
		t.owner("d/e/g/f", 0, staff)
	}},
	{"open(2): set-gid falls on a new file in a set-gid directory made by one outside the group", "root",
		"dir d; owner d 0:3001; mode d 02777", func(t *T) {
			t.as(alice, alice, nil, func() {
				unix.Umask(0)
				t.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o2775)
			})
			t.owner("d/f", alice, staff)
			t.mode("d/f", 0o775)
			t.as(alice, alice, []int{staff}, func() {
				unix.Umask(0)
				t.open("d/g", unix.O_CREAT|unix.O_WRONLY, 0o2775)
			})
			t.mode("d/g", 0o2775)
		}},
	{"inode(7): O_TMPFILE and link(2) in a set-gid directory", "root tmpfile", "dir d; owner d 0:3001; mode d 02777; file f", func(t *T) {
		fd := t.open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
		t.eq("group", t.fstat(fd).Gid, uint32(staff))
		t.link("f", "d/f")
		t.owner("d/f", 0, 0)
		t.rename("f", "g")
	}},
	{"rename(2): into a set-gid directory changes no group", "root", "dir d; owner d 0:3001; mode d 02777; file f; dir e", func(t *T) {
		t.rename("f", "d/f")
		t.rename("e", "d/e")
		t.owner("d/f", 0, 0)
		t.owner("d/e", 0, 0)
		t.mode("d/e", 0o755)
	}},
}

var stickyCases = []Case{
	{"inode(7): in a sticky directory a name is for the owner of the file or of the directory to take", "root",
		"dir d; mode d 01777; file d/f; owner d/f 2001:2001; dir d/e; owner d/e 2001:2001", func(t *T) {
			t.bob(func() {
				t.fails(unix.Unlink(t.p("d/f")), unix.EPERM, unix.EACCES)
				t.fails(unix.Rmdir(t.p("d/e")), unix.EPERM, unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("d/g")), unix.EPERM, unix.EACCES)
				t.write("d/mine", "")
				t.fails(unix.Rename(t.p("d/mine"), t.p("d/f")), unix.EPERM, unix.EACCES)
				t.fails(t.rename2("d/mine", "d/f", exchange), unix.EPERM, unix.EACCES)
				t.unlink("d/mine")
			})
			t.alice(func() {
				t.rename("d/f", "d/g")
				t.unlink("d/g")
				t.rmdir("d/e")
			})
			t.lists("d", "")
		}},
	{"inode(7): the owner of a sticky directory may take any name in it", "root",
		"dir d; owner d 2002:2002; mode d 01777; file d/f; owner d/f 2001:2001", func(t *T) {
			t.bob(func() { t.unlink("d/f") })
			t.lists("d", "")
		}},
}

var statCases = []Case{
	{"stat(2): st_ino and st_dev stay over write, chmod, rename and link", "", "dir d; dir d/e; file d/e/f abc; symlink d/l x; fifo d/p", func(t *T) {
		names := []string{"e", "e/f", "l", "p"}
		before := map[string]unix.Stat_t{}
		for _, n := range names {
			before[n] = t.stat("d/" + n)
		}
		check := func(dir string) {
			for _, n := range names {
				st := t.stat(dir + "/" + n)
				t.eq("st_ino of "+n, st.Ino, before[n].Ino)
				t.eq("st_dev of "+n, st.Dev, before[n].Dev)
			}
		}
		t.appendTo("d/e/f", "d")
		check("d")
		t.chmod("d/e", 0o700)
		t.chmod("d/p", 0o600)
		check("d")
		t.rename("d", "g")
		check("g")
		t.link("g/l", "g/l2")
		t.link("g/p", "g/p2")
		check("g")
		t.eq("st_ino of a link", t.ino("g/l2"), before["l"].Ino)
	}},
	{"stat(2): st_ino is unlike for unlike objects", "", "dir d; names d 500; dir e; names e 500; symlink l x", func(t *T) {
		t.appendTo("d/000001", "x")
		t.write("e/new", "x")
		seen := map[uint64]string{}
		for _, dir := range []string{"", "d/", "e/"} {
			for _, n := range t.names(dir) {
				ino := t.ino(dir + n)
				if other, ok := seen[ino]; ok {
					t.Fatalf("%s and %s share inode %d", dir+n, other, ino)
				}
				seen[ino] = dir + n
			}
		}
	}},
	{"stat(2): st_dev is one for the whole filesystem", "", "dir d; file d/f; symlink l x; fifo p", func(t *T) {
		dev := t.stat("").Dev
		for _, n := range []string{"d", "d/f", "l", "p"} {
			t.eq("st_dev of "+n, t.stat(n).Dev, dev)
		}
	}},
	{"stat(2): an inode number is stable over an open descriptor, a write and a second name", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		ino := t.fstat(fd).Ino
		t.appendTo("f", "x")
		t.eq("fstat", t.fstat(fd).Ino, ino)
		t.eq("stat", t.ino("f"), ino)
		t.eq("device", t.fstat(fd).Dev, t.stat("f").Dev)
		t.unlink("f")
		t.eq("fstat", t.fstat(fd).Ino, ino)
	}},
	{"stat(2): st_size, st_blocks and st_blksize", "", "file f abcdef; dir d", func(t *T) {
		st := t.stat("f")
		t.eq("st_size", st.Size, int64(6))
		t.true(st.Blksize >= 512, "st_blksize %d", st.Blksize)
		t.write("g", pattern(100000))
		t.ok(unix.Fsync(t.open("g", unix.O_RDONLY)))
		t.true(t.stat("g").Blocks*512 >= 100000, "st_blocks %d", t.stat("g").Blocks)
	}},
	{"stat(2): follows symbolic links, lstat(2) does not", "", "file f abc; symlink l f; symlink x nowhere", func(t *T) {
		var st unix.Stat_t
		t.ok(unix.Stat(t.p("l"), &st))
		t.eq("inode", st.Ino, t.ino("f"))
		t.kind("l", unix.S_IFLNK)
		t.fails(unix.Stat(t.p("x"), &st), unix.ENOENT)
		t.kind("x", unix.S_IFLNK)
	}},
	{"statx(2): tells what stat does, and the birth time, which nothing moves", "", "", func(t *T) {
		from := time.Now()
		t.write("f", "abc")
		sx, st := t.statx("f"), t.stat("f")
		t.eq("stx_ino", sx.Ino, st.Ino)
		t.eq("stx_size", sx.Size, uint64(st.Size))
		t.eq("stx_mode", uint32(sx.Mode), st.Mode)
		t.eq("stx_nlink", uint64(sx.Nlink), uint64(st.Nlink))
		t.eq("device", unix.Mkdev(sx.Dev_major, sx.Dev_minor), st.Dev)
		if sx.Mask&unix.STATX_BTIME == 0 {
			t.Skipf("a birth time")
		}
		born := sx.Btime
		t.recent("birth time", unix.Timespec{Sec: born.Sec, Nsec: int64(born.Nsec)}, from)
		tick()
		t.appendTo("f", "d")
		t.chmod("f", 0o600)
		t.rename("f", "g")
		t.eq("birth time", t.statx("g").Btime, born)
	}},
	{"statx(2): AT_STATX_FORCE_SYNC and AT_STATX_DONT_SYNC, and only what is asked for", "", "file f abc", func(t *T) {
		var st unix.Statx_t
		t.ok(unix.Statx(unix.AT_FDCWD, t.p("f"), unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &st))
		t.true(st.Mask&unix.STATX_SIZE != 0 && st.Size == 3, "mask %#x, size %d", st.Mask, st.Size)
		t.ok(unix.Statx(unix.AT_FDCWD, t.p("f"), unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st))
		t.eq("size", st.Size, uint64(3))
		t.fails(unix.Statx(unix.AT_FDCWD, t.p("f"), 0, 0x80000000, &st), unix.EINVAL)
	}},
	{"stat(2): what one process changes another sees at once", "", "file f abc; dir d", func(t *T) {
		t.eq("stat(1)", t.command("stat", "-c", "%s %a", t.p("f")), "3 644\n")
		t.appendTo("f", "def")
		t.chmod("f", 0o600)
		t.eq("stat(1)", t.command("stat", "-c", "%s %a", t.p("f")), "6 600\n")
		t.command("sh", "-c", `echo more >"$0/f"; chmod 640 "$0/f"; touch "$0/d/new"; rmdir "$0/none" 2>/dev/null || true`, t.p(""))
		t.is("f", "more\n")
		t.mode("f", 0o640)
		t.lists("d", "new")
	}},
	{"lookup: a name is found by all as soon as one has made it, and lost as soon as it is gone", "", "dir d", func(t *T) {
		for i := range 20 {
			name := fmt.Sprint("d/", i)
			t.parallel(4, func(int) {
				var st unix.Stat_t
				_ = unix.Lstat(t.p(name), &st) // leaves "no such name" in the kernel's cache
			})
			t.write(name, "x")
			var found atomic.Int32
			t.parallel(4, func(int) {
				if t.exists(name) {
					found.Add(1)
				}
			})
			t.eq("processes that see it", found.Load(), int32(4))
			t.unlink(name)
			t.gone(name)
		}
	}},
}

var timeCases = []Case{
	{"mount(2): a read moves atime when it is not after mtime (relatime)", "", "file f abc", func(t *T) {
		tick()
		t.ok(t.utimens("f", unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 2000}))
		from := time.Now()
		t.is("f", "abc")
		t.recent("atime", t.stat("f").Atim, from)
		t.eq("mtime", t.stat("f").Mtim, unix.Timespec{Sec: 2000})
	}},
	{"mount(2): a read moves an atime that is older than a day (relatime)", "", "file f abc", func(t *T) {
		day := unix.Timespec{Sec: time.Now().Unix() - 100_000}
		t.ok(t.utimens("f", day, unix.Timespec{Sec: 1000}))
		tick()
		from := time.Now()
		t.is("f", "abc")
		t.recent("atime", t.stat("f").Atim, from)
	}},
	{"mount(2): a read leaves an atime of today that is after mtime and ctime (relatime)", "", "file f abc", func(t *T) {
		future := unix.Timespec{Sec: time.Now().Unix() + 1000}
		t.ok(t.utimens("f", future, unix.Timespec{Sec: 1000}))
		t.is("f", "abc")
		t.eq("atime", t.stat("f").Atim, future)
	}},
	{"mount(2): reading a directory moves atime too (relatime)", "", "dir d; file d/f", func(t *T) {
		t.ok(t.utimens("d", unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 2000}))
		from := time.Now()
		t.lists("d", "f")
		t.recent("atime", t.stat("d").Atim, from)
	}},
	{"mount(2): reading a symbolic link moves atime too (relatime)", "", "symlink l d", func(t *T) {
		t.ok(t.utimens("l", unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 2000}))
		from := time.Now()
		_ = t.readlink("l")
		t.recent("atime", t.stat("l").Atim, from)
	}},
	{"execve(2): and mmap(2) move atime (relatime)", "", "file f abcdef", func(t *T) {
		t.ok(t.utimens("f", unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 2000}))
		from := time.Now()
		m := t.mmap(t.open("f", unix.O_RDONLY), 6, readOnly, unix.MAP_PRIVATE)
		t.eq("mapped", string(m), "abcdef")
		t.recent("atime", t.stat("f").Atim, from)
	}},
	{"stat(2): stat, access, readlink and failed calls move nothing", "", "dir d; file d/f abc; mode d/f 0444; symlink d/l x", func(t *T) {
		t.touches(func() {
			_ = t.stat("d/f")
			_ = unix.Access(t.p("d/f"), unix.X_OK)
			_ = unix.Mkdir(t.p("d/f"), 0o755)
			_ = unix.Unlink(t.p("d/none"))
			_ = unix.Rmdir(t.p("d"))
			_ = unix.Link(t.p("d/f"), t.p("d/l"))
			_ = unix.Rename(t.p("d/none"), t.p("d/x"))
		}, "d -", "d/f -", "d/l -")
	}},
	{"stat(2): times never go back and end up later than before", "", "file f", func(t *T) {
		last := nano(t.stat("f").Ctim)
		for i := range 20 {
			t.chmod("f", uint32(0o600+i%2))
			c := nano(t.stat("f").Ctim)
			t.true(c >= last, "ctime went back")
			last = c
		}
	}},
	{"mkdir(2): symlink, mknod, mkfifo move the times of their directory", "", "dir d", func(t *T) {
		t.touches(func() { t.mkdir("d/a") }, "d mc")
		t.touches(func() { t.symlink("x", "d/b") }, "d mc")
		t.touches(func() { t.ok(unix.Mkfifo(t.p("d/c"), 0o600)) }, "d mc")
		t.touches(func() { t.ok(t.mknod("d/e", unix.S_IFREG|0o600, 0, 0)) }, "d mc")
		t.touches(func() { t.rename("d/e", "d/f") }, "d mc")
		t.touches(func() { t.unlink("d/f") }, "d mc")
		t.touches(func() { t.rmdir("d/a") }, "d mc")
	}},
	{"link(2): times that were there are shown as they were", "", "dir d; file d/f abc; symlink d/l x; mtime d/f 1000.123456789; mtime d/l 2000.5; mtime d 3000.25", func(t *T) {
		t.eq("mtime", t.stat("d/l").Mtim, unix.Timespec{Sec: 2000, Nsec: 500000000})
		t.eq("mtime", t.stat("d").Mtim, unix.Timespec{Sec: 3000, Nsec: 250000000})
		f := t.stat("d/f").Mtim
		t.chmod("d/f", 0o600)
		t.chmod("d", 0o700)
		t.eq("mtime of the file after chmod", t.stat("d/f").Mtim, f)
		t.eq("mtime of the directory after chmod", t.stat("d").Mtim, unix.Timespec{Sec: 3000, Nsec: 250000000})
		t.appendTo("d/f", "d")
		t.eq("mtime of the directory after a write", t.stat("d").Mtim, unix.Timespec{Sec: 3000, Nsec: 250000000})
	}},
}
