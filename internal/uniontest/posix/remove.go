package posix

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/meanwhile"
)

var mkdirCases = []Case{
	{"mkdir(2): makes an empty directory of the mode less the umask", "", "dir d", func(t *T) {
		t.touches(func() { t.umask(0o027, func() { t.ok(unix.Mkdir(t.p("d/e"), 0o777)) }) }, "d mc")
		t.kind("d/e", unix.S_IFDIR)
		t.mode("d/e", 0o750)
		t.lists("d/e", "")
		t.lists("d", "e")
	}},
	{"mkdir(2): hands through the sticky bit but not set-uid", "", "dir d", func(t *T) {
		t.umask(0, func() { t.ok(unix.Mkdir(t.p("d/e"), 0o5777)) })
		t.mode("d/e", 0o1777)
	}},
	{"mkdir(2): EEXIST whatever has the name", "", "file f; dir d; symlink l nowhere; fifo p", func(t *T) {
		for _, n := range []string{"f", "d", "l", "p", "."} {
			t.fails(unix.Mkdir(t.p(n), 0o755), unix.EEXIST)
		}
		t.gone("nowhere")
	}},
	{"mkdir(2): a trailing slash is welcome", "", "", func(t *T) {
		t.ok(unix.Mkdir(t.p("d/"), 0o755))
		t.lists("", "d")
	}},
	{"mkdir(2): succeeds for exactly one of many at once", "", "dir d", func(t *T) {
		for round := range 10 {
			var won atomic.Int32
			t.parallel(8, func(int) {
				if unix.Mkdir(t.p(fmt.Sprint("d/", round)), 0o755) == nil {
					won.Add(1)
				}
			})
			t.eq("winners", won.Load(), int32(1))
		}
	}},
	{"mkdir(2): of the name of a directory that was removed with all in it shows nothing of it", "", "dir d; file d/f abc; dir d/e; file d/e/g", func(t *T) {
		t.ok(os.RemoveAll(t.p("d")))
		t.gone("d")
		t.mkdir("d")
		t.lists("d", "")
		for _, n := range []string{"d/f", "d/e", "d/e/g"} {
			t.fails(t.openErr(n, unix.O_RDONLY), unix.ENOENT)
		}
		t.mkdir("d/e")
		t.lists("d/e", "")
		t.gone("d/e/g")
		t.fails(t.openErr("d/e/g", unix.O_RDONLY), unix.ENOENT)
	}},
	{"mkdir(2): of the name of a file that was removed", "", "file f abc", func(t *T) {
		t.unlink("f")
		t.mkdir("f")
		t.kind("f", unix.S_IFDIR)
		t.write("f/g", "x")
		t.lists("", "f")
	}},
	{"creat(2): of the name of a directory that was removed", "", "dir d; file d/f", func(t *T) {
		t.unlink("d/f")
		t.rmdir("d")
		t.write("d", "abc")
		t.is("d", "abc")
		t.fails(t.openErr("d/f", unix.O_RDONLY), unix.ENOTDIR)
	}},
}

var unlinkCases = []Case{
	{"unlink(2): takes the name away, and moves the directory's times", "", "dir d; file d/f; file d/g", func(t *T) {
		t.touches(func() { t.unlink("d/f") }, "d mc", "d/g -")
		t.gone("d/f")
		t.lists("d", "g")
	}},
	{"unlink(2): moves ctime of a file that has another name", "", "dir d; file f abc; link f d/g", func(t *T) {
		t.touches(func() { t.unlink("f") }, "d/g c", "d -")
		t.nlink("d/g", 1)
	}},
	{"unlink(2): of every type but directories", "", "file f; symlink l f; symlink x nowhere; fifo p; sock s", func(t *T) {
		for _, n := range []string{"l", "x", "p", "s", "f"} {
			t.unlink(n)
		}
		t.lists("", "")
	}},
	{"unlink(2): EISDIR for a directory", "", "dir d", func(t *T) {
		t.fails(unix.Unlink(t.p("d")), unix.EISDIR)
		t.kind("d", unix.S_IFDIR)
	}},
	{"unlink(2): ENOTDIR for a file with a trailing slash", "", "file f; symlink l f", func(t *T) {
		t.fails(unix.Unlink(t.p("f/")), unix.ENOTDIR)
		t.fails(unix.Unlink(t.p("l/")), unix.ENOTDIR)
	}},
	{"unlink(2): a second time is ENOENT", "", "file f", func(t *T) {
		t.unlink("f")
		t.fails(unix.Unlink(t.p("f")), unix.ENOENT)
	}},
	{"unlink(2): succeeds for exactly one of many at once", "", "dir d; names d 20", func(t *T) {
		for i := range 20 {
			var won atomic.Int32
			t.parallel(8, func(int) {
				if unix.Unlink(t.p(fmt.Sprintf("d/%06d", i))) == nil {
					won.Add(1)
				}
			})
			t.eq("winners", won.Load(), int32(1))
		}
		t.lists("d", "")
	}},
	{"unlink(2): of a program that is running", "", "", func(t *T) {
		stop := t.running("prog")
		t.unlink("prog")
		t.gone("prog")
		stop()
	}},
	{"unlinkat(2): AT_REMOVEDIR is rmdir, EINVAL for unknown flags", "", "dir d; file f", func(t *T) {
		t.fails(unix.Unlinkat(unix.AT_FDCWD, t.p("f"), unix.AT_REMOVEDIR), unix.ENOTDIR)
		t.fails(unix.Unlinkat(unix.AT_FDCWD, t.p("f"), 0x8000), unix.EINVAL)
		t.ok(unix.Unlinkat(unix.AT_FDCWD, t.p("d"), unix.AT_REMOVEDIR))
		t.lists("", "f")
	}},
	{"rm(1): -rf of a tree while another reads it", "", "dir d; dir d/a; names d/a 200; dir d/b; names d/b 200; dir d/b/c; names d/b/c 100", func(t *T) {
		end := meanwhile.Do(func() {
			_, _ = os.ReadDir(t.p("d/b")) // may be gone at any moment
			_, _ = os.ReadFile(t.p("d/a/000100"))
		})
		t.command("rm", "-rf", t.p("d"))
		end()
		t.gone("d")
	}},
}

var rmdirCases = []Case{
	{"rmdir(2): takes an empty directory away, and moves its parent's times", "", "dir d; dir d/e", func(t *T) {
		t.touches(func() { t.rmdir("d/e") }, "d mc")
		t.gone("d/e")
	}},
	{"rmdir(2): ENOTEMPTY while anything is in it", "", "dir d; file d/f; dir e; dir e/g; dir h; symlink h/l x", func(t *T) {
		for _, d := range []string{"d", "e", "h"} {
			t.fails(unix.Rmdir(t.p(d)), unix.ENOTEMPTY, unix.EEXIST)
		}
		t.unlink("d/f")
		t.rmdir("d")
		t.rmdir("e/g")
		t.rmdir("e")
		t.lists("", "h")
	}},
	{"rmdir(2): ENOTEMPTY for what was made in a directory that was there", "", "dir d; file d/f", func(t *T) {
		t.unlink("d/f")
		t.write("d/g", "")
		t.fails(unix.Rmdir(t.p("d")), unix.ENOTEMPTY, unix.EEXIST)
		t.rename("d/g", "g")
		t.rmdir("d")
		t.lists("", "g")
	}},
	{"rmdir(2): ENOTDIR for what is no directory", "", "file f; dir d; symlink l d; fifo p", func(t *T) {
		for _, n := range []string{"f", "l", "l/", "p"} {
			t.fails(unix.Rmdir(t.p(n)), unix.ENOTDIR)
		}
	}},
	{"rmdir(2): EINVAL for . at the end, ENOTEMPTY for ..", "", "dir d; dir d/e", func(t *T) {
		t.fails(unix.Rmdir(t.p("d/e/.")), unix.EINVAL)
		t.fails(unix.Rmdir(t.p("d/e/..")), unix.ENOTEMPTY, unix.EEXIST)
	}},
	{"rmdir(2): a removed directory that is open lists nothing and takes nothing", "", "dir d", func(t *T) {
		d, err := os.Open(t.p("d"))
		t.ok(err)
		t.cleanup(func() { _ = d.Close() })
		t.rmdir("d")
		names, err := d.Readdirnames(-1)
		if err != nil { // Linux allows either
			t.fails(err, unix.ENOENT)
		}
		t.eq("names", len(names), 0)
		t.fnlink(int(d.Fd()), 0)
		t.fails(unix.Mkdirat(int(d.Fd()), "e", 0o755), unix.ENOENT)
	}},
	{"rmdir(2): an open directory that was removed is apart from a new one of its name", "", "dir d; file d/f", func(t *T) {
		d := t.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
		t.unlink("d/f")
		t.rmdir("d")
		t.mkdir("d")
		t.write("d/g", "")
		var st unix.Stat_t
		t.fails(unix.Fstatat(d, "g", &st, 0), unix.ENOENT)
		t.ok(unix.Fchmod(d, 0o700))
		t.mode("d", 0o755)
	}},
	{"rmdir(2): of somebody's working directory; getcwd(2) is ENOENT then", "", "dir d", func(t *T) {
		t.in("d", func() {
			t.rmdir("d")
			_, err := unix.Getcwd(make([]byte, 4096))
			t.fails(err, unix.ENOENT)
			_, err = unix.Open("x", unix.O_CREAT|unix.O_RDWR, 0o644)
			t.fails(err, unix.ENOENT)
		})
	}},
	{"rmdir(2): EBUSY for a mount point", "device", "dir d", func(t *T) {
		if err := unix.Mount(t.p("d"), t.p("d"), "", unix.MS_BIND, ""); err != nil {
			t.Skipf("mount(2): %v", err)
		}
		defer func() { t.ok(unix.Unmount(t.p("d"), unix.MNT_DETACH)) }()
		t.fails(unix.Rmdir(t.p("d")), unix.EBUSY)
		t.fails(unix.Rename(t.p("d"), t.p("e")), unix.EBUSY)
	}},
	{"rmdir(2): succeeds for exactly one of many at once", "", "dir d", func(t *T) {
		var won atomic.Int32
		t.parallel(8, func(int) {
			if unix.Rmdir(t.p("d")) == nil {
				won.Add(1)
			}
		})
		t.eq("winners", won.Load(), int32(1))
	}},
	{"rmdir(2): against creat(2) in it: one of the two wins", "", "", func(t *T) {
		for range 30 {
			t.mkdir("d")
			var made, removed atomic.Bool
			t.parallel(2, func(i int) {
				if i == 0 {
					made.Store(t.openErr("d/f", unix.O_CREAT|unix.O_WRONLY) == nil)
				} else {
					removed.Store(unix.Rmdir(t.p("d")) == nil)
				}
			})
			t.true(made.Load() != removed.Load(), "made %v, removed %v", made.Load(), removed.Load())
			if made.Load() {
				t.unlink("d/f")
				t.rmdir("d")
			}
			t.gone("d")
		}
	}},
}
