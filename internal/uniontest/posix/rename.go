package posix

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	noreplace = unix.RENAME_NOREPLACE
	exchange  = unix.RENAME_EXCHANGE
	whiteout  = unix.RENAME_WHITEOUT
)

var renameCases = []Case{
	{"rename(2): a file keeps inode, content, mode, owner, xattrs and mtime", "userxattr",
		"dir d; file f abc; mode f 0640; xattr f user.a v; mtime f 1000.5", func(t *T) {
			before := t.stat("f")
			t.rename("f", "d/g")
			after := t.stat("d/g")
			t.gone("f")
			t.is("d/g", "abc")
			t.xattr("d/g", "user.a", "v")
			t.eq("inode", after.Ino, before.Ino)
			t.eq("device", after.Dev, before.Dev)
			t.eq("mode", after.Mode, before.Mode)
			t.eq("mtime", after.Mtim, before.Mtim)
			t.eq("st_nlink", after.Nlink, before.Nlink)
		}},
	{"rename(2): moves ctime of the file and the times of both directories", "", "dir a; dir b; file a/f", func(t *T) {
		t.touches(func() { t.rename("a/f", "b/g") }, "a mc", "b mc", "a/f>b/g c")
	}},
	{"rename(2): within one directory", "", "dir d; file d/f abc; file d/x", func(t *T) {
		t.touches(func() { t.rename("d/f", "d/g") }, "d mc", "d/x -")
		t.lists("d", "g x")
		t.gone("d/f")
		t.is("d/g", "abc")
	}},
	{"rename(2): takes the place of a file, which is gone", "", "file f abc; file g def", func(t *T) {
		ino := t.ino("f")
		t.rename("f", "g")
		t.gone("f")
		t.is("g", "abc")
		t.eq("inode", t.ino("g"), ino)
		t.lists("", "g")
	}},
	{"rename(2): there is no moment at which the new name is absent", "", "file g 0", func(t *T) {
		var stop, absent atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !stop.Load() {
				if err := t.openErr("g", unix.O_RDONLY); err != nil {
					absent.Store(true)
				}
			}
		}()
		for i := range 100 {
			t.write("f", fmt.Sprint(i))
			t.rename("f", "g")
		}
		stop.Store(true)
		<-done
		t.true(!absent.Load(), "the new name was absent")
		t.is("g", "99")
	}},
	{"rename(2): of a name to itself, and of two names of one file, does nothing", "", "file f abc; link f g", func(t *T) {
		t.touches(func() { t.rename("f", "f"); t.rename("f", "g") }, "f -")
		t.lists("", "f g")
		t.nlink("f", 2)
	}},
	{"rename(2): a file that was there, then its old name made anew", "", "file f abc", func(t *T) {
		t.rename("f", "g")
		t.write("f", "new")
		t.rename("g", "h")
		t.is("f", "new")
		t.is("h", "abc")
		t.lists("", "f h")
	}},
	{"rename(2): there and back again", "", "file f abc; dir d; file d/x 1", func(t *T) {
		for range 3 {
			t.rename("f", "g")
			t.rename("d", "e")
			t.rename("g", "f")
			t.rename("e", "d")
		}
		t.is("f", "abc")
		t.is("d/x", "1")
		t.lists("", "d f")
		t.lists("d", "x")
	}},
	{"rename(2): a name chain, each to the next", "", "file a 1; file b 2; file c 3", func(t *T) {
		t.rename("c", "d")
		t.rename("b", "c")
		t.rename("a", "b")
		t.is("b", "1")
		t.is("c", "2")
		t.is("d", "3")
		t.lists("", "b c d")
	}},
	{"rename(2): a directory moves with all that is below it", "", "dir a; dir a/b; dir a/b/c; file a/b/c/f abc; file a/g 1; symlink a/l g; dir x", func(t *T) {
		ino, fino := t.ino("a"), t.ino("a/b/c/f")
		t.rename("a", "x/y")
		t.gone("a")
		t.eq("inode", t.ino("x/y"), ino)
		t.eq("inode below", t.ino("x/y/b/c/f"), fino)
		t.is("x/y/b/c/f", "abc")
		t.is("x/y/l", "1")
		t.lists("x/y", "b g l")
		t.write("x/y/b/new", "n")
		t.unlink("x/y/g")
		t.lists("x/y", "b l")
		t.lists("x/y/b", "c new")
	}},
	{"rename(2): a directory between parents moves the parents' link counts", "", "dir a; dir a/d; dir b", func(t *T) {
		a, b := t.stat("a").Nlink, t.stat("b").Nlink
		t.rename("a/d", "b/d")
		if a > 1 && b > 1 {
			t.nlink("a", uint64(a)-1)
			t.nlink("b", uint64(b)+1)
		}
		t.eq("..", t.ino("b/d/.."), t.ino("b"))
	}},
	{"rename(2): a directory takes the place of an empty one", "", "dir a; file a/f 1; dir b; file b/g", func(t *T) {
		t.fails(unix.Rename(t.p("a"), t.p("b")), unix.ENOTEMPTY, unix.EEXIST)
		t.unlink("b/g")
		ino := t.ino("a")
		t.rename("a", "b")
		t.eq("inode", t.ino("b"), ino)
		t.lists("b", "f")
		t.gone("b/g")
		t.fails(t.openErr("b/g", unix.O_RDONLY), unix.ENOENT)
		t.lists("", "b")
	}},
	{"rename(2): the old name of a directory made anew shows nothing of the old", "", "dir a; file a/f abc; dir a/s; file a/s/t", func(t *T) {
		t.rename("a", "b")
		t.mkdir("a")
		t.lists("a", "")
		t.fails(t.openErr("a/f", unix.O_RDONLY), unix.ENOENT)
		t.mkdir("a/s")
		t.lists("a/s", "")
		t.is("b/f", "abc")
		t.lists("b", "f s")
	}},
	{"rename(2): a directory moved into one that was itself moved", "", "dir a; file a/f 1; dir b; dir b/c; file b/c/g 2", func(t *T) {
		t.rename("b", "d")
		t.rename("a", "d/c/a")
		t.rename("d", "e")
		t.is("e/c/a/f", "1")
		t.is("e/c/g", "2")
		t.rename("e/c/a", "a")
		t.is("a/f", "1")
		t.lists("e/c", "g")
	}},
	{"rename(2): a directory that was changed before it moves", "", "dir a; file a/f 1; file a/g 2; dir a/s; file a/s/t 3", func(t *T) {
		t.unlink("a/f")
		t.write("a/n", "new")
		t.appendTo("a/g", "x")
		t.unlink("a/s/t")
		t.rename("a", "b")
		t.lists("b", "g n s")
		t.lists("b/s", "")
		t.is("b/g", "2x")
		t.is("b/n", "new")
	}},
	{"rename(2): EINVAL when new is inside old", "", "dir d; dir d/e; dir d/e/f", func(t *T) {
		t.fails(unix.Rename(t.p("d"), t.p("d/x")), unix.EINVAL)
		t.fails(unix.Rename(t.p("d"), t.p("d/e/f/x")), unix.EINVAL)
		t.lists("d/e", "f")
	}},
	{"rename(2): ENOTEMPTY when old is inside new", "", "dir d; dir d/e", func(t *T) {
		t.fails(unix.Rename(t.p("d/e"), t.p("d")), unix.ENOTEMPTY, unix.EEXIST)
	}},
	{"rename(2): EISDIR for a file onto a directory, ENOTDIR for a directory onto a file", "", "file f; dir d; symlink l d", func(t *T) {
		t.fails(unix.Rename(t.p("f"), t.p("d")), unix.EISDIR)
		t.fails(unix.Rename(t.p("d"), t.p("f")), unix.ENOTDIR)
		t.fails(unix.Rename(t.p("d"), t.p("l")), unix.ENOTDIR)
	}},
	{"rename(2): ENOENT if old is absent, a parent of new too", "", "file f", func(t *T) {
		t.fails(unix.Rename(t.p("x"), t.p("y")), unix.ENOENT)
		t.fails(unix.Rename(t.p("f"), t.p("no/y")), unix.ENOENT)
		t.fails(unix.Rename(t.p("x"), t.p("f")), unix.ENOENT)
	}},
	{"rename(2): ENOTDIR for a file with a trailing slash; a directory may have one", "", "file f; dir d", func(t *T) {
		t.fails(unix.Rename(t.p("f/"), t.p("g")), unix.ENOTDIR)
		t.fails(unix.Rename(t.p("f"), t.p("g/")), unix.ENOTDIR)
		t.ok(unix.Rename(t.p("d/"), t.p("e/")))
		t.lists("", "e f")
	}},
	{"rename(2): EBUSY or EINVAL for . and ..", "", "dir d", func(t *T) {
		t.fails(unix.Rename(t.p("d/."), t.p("e")), unix.EBUSY, unix.EINVAL)
		t.fails(unix.Rename(t.p("d/.."), t.p("e")), unix.EBUSY, unix.EINVAL)
	}},
	{"rename(2): of FIFOs, sockets and symbolic links over files and each other", "", "file f; fifo p; sock s; symlink l x", func(t *T) {
		t.rename("p", "f")
		t.kind("f", unix.S_IFIFO)
		t.rename("s", "f")
		t.kind("f", unix.S_IFSOCK)
		t.rename("l", "f")
		t.eq("target", t.readlink("f"), "x")
		t.lists("", "f")
	}},
	{"rename(2): ENAMETOOLONG for a new name of 256 bytes", "", "file f", func(t *T) {
		t.fails(unix.Rename(t.p("f"), t.p(strings.Repeat("x", 256))), unix.ENAMETOOLONG)
		t.lists("", "f")
	}},
	{"renameat2(2): RENAME_NOREPLACE gives EEXIST, else renames", "", "file f abc; file g; dir d; symlink l nowhere", func(t *T) {
		for _, to := range []string{"g", "d", "l"} {
			t.fails(t.rename2("f", to, noreplace), unix.EEXIST)
		}
		t.ok(t.rename2("f", "h", noreplace))
		t.is("h", "abc")
		t.gone("f")
		t.ok(t.rename2("d", "e", noreplace))
		t.lists("", "e g h l")
	}},
	{"renameat2(2): RENAME_EXCHANGE swaps two files", "", "file f 1; dir d; file d/g 2", func(t *T) {
		f, g := t.ino("f"), t.ino("d/g")
		t.ok(t.rename2("f", "d/g", exchange))
		t.is("f", "2")
		t.is("d/g", "1")
		t.eq("inode", t.ino("f"), g)
		t.eq("inode", t.ino("d/g"), f)
	}},
	{"renameat2(2): RENAME_EXCHANGE swaps two directories, full as they are", "", "dir a; file a/f 1; dir b; dir b/c; file b/c/g 2", func(t *T) {
		a, b := t.ino("a"), t.ino("b")
		t.ok(t.rename2("a", "b", exchange))
		t.lists("a", "c")
		t.lists("b", "f")
		t.is("a/c/g", "2")
		t.is("b/f", "1")
		t.gone("a/f")
		t.gone("b/c")
		t.eq("inode", t.ino("a"), b)
		t.eq("inode", t.ino("b"), a)
	}},
	{"renameat2(2): RENAME_EXCHANGE of a file and a directory, and of a symbolic link", "", "file f 1; dir d; file d/g 2; symlink l x", func(t *T) {
		t.ok(t.rename2("f", "d", exchange))
		t.is("d", "1")
		t.is("f/g", "2")
		t.ok(t.rename2("l", "f", exchange))
		t.eq("target", t.readlink("f"), "x")
		t.is("l/g", "2")
	}},
	{"renameat2(2): RENAME_EXCHANGE across parents moves their link counts", "", "dir a; dir a/d; dir b; file b/f", func(t *T) {
		a, b := t.stat("a").Nlink, t.stat("b").Nlink
		t.ok(t.rename2("a/d", "b/f", exchange))
		if a > 1 && b > 1 {
			t.nlink("a", uint64(a)-1)
			t.nlink("b", uint64(b)+1)
		}
		t.kind("b/f", unix.S_IFDIR)
		t.eq("..", t.ino("b/f/.."), t.ino("b"))
	}},
	{"renameat2(2): RENAME_EXCHANGE moves the times of both directories and ctime of both files", "", "dir a; dir b; file a/f; file b/g", func(t *T) {
		t.touches(func() { t.ok(t.rename2("a/f", "b/g", exchange)) }, "a mc", "b mc", "a/f>b/g c", "b/g>a/f c")
	}},
	{"renameat2(2): RENAME_EXCHANGE gives ENOENT if either is absent, EINVAL if one is inside the other", "", "file f; dir d; dir d/e", func(t *T) {
		t.fails(t.rename2("f", "x", exchange), unix.ENOENT)
		t.fails(t.rename2("x", "f", exchange), unix.ENOENT)
		t.fails(t.rename2("d", "d/e", exchange), unix.EINVAL)
		t.fails(t.rename2("d/e", "d", exchange), unix.EINVAL, unix.ENOTEMPTY)
	}},
	{"renameat2(2): EINVAL for flags that exclude each other or are unknown", "", "file f; file g", func(t *T) {
		t.fails(t.rename2("f", "g", exchange|noreplace), unix.EINVAL)
		t.fails(t.rename2("f", "g", exchange|whiteout), unix.EINVAL)
		t.fails(t.rename2("f", "g", 0x100), unix.EINVAL)
	}},
	{"renameat2(2): RENAME_WHITEOUT moves the file and leaves a device 0:0", "device", "file f abc", func(t *T) {
		err := t.rename2("f", "g", whiteout)
		if errors.Is(err, unix.EINVAL) {
			t.Skipf("RENAME_WHITEOUT: %v", err)
		}
		t.ok(err)
		t.is("g", "abc")
		t.kind("f", unix.S_IFCHR)
		t.eq("st_rdev", t.stat("f").Rdev, uint64(0))
	}},
	{"rename(2): the working directory moves along; getcwd(2) tells the new path", "", "dir d; dir d/e; file d/e/f abc", func(t *T) {
		t.in("d/e", func() {
			t.rename("d", "x")
			b := make([]byte, 4096)
			n, err := unix.Getcwd(b)
			t.ok(err)
			got := strings.TrimRight(string(b[:n]), "\x00")
			t.true(strings.HasSuffix(got, "/x/e"), "getcwd gives %q", got)
			fd, err := unix.Open("f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			t.ok(err)
			t.keep(fd)
			t.eq("content", t.pread(fd, 10, 0), "abc")
		})
	}},
	{"rename(2): an open directory goes on being read after it moved", "", "dir d; names d 300", func(t *T) {
		d, err := os.Open(t.p("d"))
		t.ok(err)
		t.cleanup(func() { _ = d.Close() })
		first, err := d.Readdirnames(10)
		t.ok(err)
		t.rename("d", "e")
		rest, err := d.Readdirnames(-1)
		t.ok(err)
		t.eq("names", len(first)+len(rest), 300)
	}},
	{"rename(2): EPERM or EACCES to move another's directory, whose .. would change", "root",
		"dir a; owner a 2001:2001; dir a/d; dir b; owner b 2001:2001", func(t *T) {
			t.alice(func() { t.fails(unix.Rename(t.p("a/d"), t.p("b/d")), unix.EACCES) })
			t.alice(func() { t.ok(unix.Rename(t.p("a/d"), t.p("a/e"))) })
		}},
	{"rename(2): many files by many at once", "", "dir a; names a 200; dir b", func(t *T) {
		t.parallel(8, func(i int) {
			for n := i; n < 200; n += 8 {
				t.ok(unix.Rename(t.p(fmt.Sprintf("a/%06d", n)), t.p(fmt.Sprintf("b/%06d", n))))
			}
		})
		t.lists("a", "")
		t.eq("names", len(t.names("b")), 200)
	}},
	{"rename(2): two directories moved into each other at once make no circle", "", "", func(t *T) {
		for range 20 {
			t.mkdir("a")
			t.mkdir("b")
			var won atomic.Int32
			t.parallel(2, func(i int) {
				from, to := "a", "b/a"
				if i == 1 {
					from, to = "b", "a/b"
				}
				if unix.Rename(t.p(from), t.p(to)) == nil {
					won.Add(1)
				}
			})
			t.eq("winners", won.Load(), int32(1))
			t.ok(os.RemoveAll(t.p("a")))
			t.ok(os.RemoveAll(t.p("b")))
		}
	}},
}
