package posix

import (
	"strings"

	"golang.org/x/sys/unix"
)

// pathCall is a call that takes a path and follows no link at its end. Calls that make a name want it absent.
type pathCall struct {
	page  string
	makes bool // the path names what is to be made
	call  func(t *T, path string) error
}

var pathCalls = []pathCall{
	{"access(2)", false, func(_ *T, p string) error { return unix.Access(p, unix.F_OK) }},
	{"chmod(2)", false, func(_ *T, p string) error { return unix.Chmod(p, 0o600) }},
	{"chown(2)", false, func(_ *T, p string) error { return unix.Chown(p, -1, -1) }},
	{"lchown(2)", false, func(_ *T, p string) error { return unix.Lchown(p, -1, -1) }},
	{"getxattr(2)", false, func(_ *T, p string) error { _, err := unix.Getxattr(p, "user.a", nil); return err }},
	{"setxattr(2)", false, func(_ *T, p string) error { return unix.Setxattr(p, "user.a", nil, 0) }},
	{"listxattr(2)", false, func(_ *T, p string) error { _, err := unix.Listxattr(p, nil); return err }},
	{"removexattr(2)", false, func(_ *T, p string) error { return unix.Removexattr(p, "user.a") }},
	{"stat(2)", false, func(_ *T, p string) error { var st unix.Stat_t; return unix.Stat(p, &st) }},
	{"lstat(2)", false, func(_ *T, p string) error { var st unix.Stat_t; return unix.Lstat(p, &st) }},
	{"statx(2)", false, func(_ *T, p string) error {
		var st unix.Statx_t
		return unix.Statx(unix.AT_FDCWD, p, 0, unix.STATX_BASIC_STATS, &st)
	}},
	{"statfs(2)", false, func(_ *T, p string) error { var st unix.Statfs_t; return unix.Statfs(p, &st) }},
	{"open(2)", false, func(_ *T, p string) error { return tryOpen(p, unix.O_RDONLY) }},
	{"open(2), O_CREAT,", true, func(_ *T, p string) error { return tryOpen(p, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL) }},
	{"readlink(2)", false, func(_ *T, p string) error { _, err := unix.Readlink(p, make([]byte, 10)); return err }},
	{"truncate(2)", false, func(_ *T, p string) error { return unix.Truncate(p, 0) }},
	{"utimensat(2)", false, func(_ *T, p string) error { return unix.UtimesNanoAt(unix.AT_FDCWD, p, nil, 0) }},
	{"unlink(2)", false, func(_ *T, p string) error { return unix.Unlink(p) }},
	{"rmdir(2)", false, func(_ *T, p string) error { return unix.Rmdir(p) }},
	{"mkdir(2)", true, func(_ *T, p string) error { return unix.Mkdir(p, 0o755) }},
	{"mkfifo(3)", true, func(_ *T, p string) error { return unix.Mkfifo(p, 0o600) }},
	{"mknod(2)", true, func(_ *T, p string) error { return unix.Mknod(p, unix.S_IFREG|0o600, 0) }},
	{"symlink(2)", true, func(_ *T, p string) error { return unix.Symlink("x", p) }},
	{"link(2), the old name,", false, func(t *T, p string) error { return unix.Link(p, t.p("other/new")) }},
	{"link(2), the new name,", true, func(t *T, p string) error { return unix.Link(t.p("other/file"), p) }},
	{"rename(2), the old name,", false, func(t *T, p string) error { return unix.Rename(p, t.p("other/new")) }},
	{"rename(2), the new name,", true, func(t *T, p string) error { return unix.Rename(t.p("other/file"), p) }},
	{"chdir(2)", false, func(_ *T, p string) error { return unix.Chdir(p) }},
	{"inotify_add_watch(2)", false, func(t *T, p string) error {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		t.ok(err)
		t.keep(fd)
		_, err = unix.InotifyAddWatch(fd, p, unix.IN_MODIFY)
		return err
	}},
}

// pathErrorCases are the errors that path_resolution(7) promises of every call that takes a path.
func pathErrorCases() []Case {
	tree := func(more string) Tree {
		return Tree("dir other; mode other 0777; file other/file; mode other/file 0666; " + more)
	}
	var cases []Case
	for _, c := range pathCalls {
		add := func(clause, needs, more string, fn func(t *T)) {
			cases = append(cases, Case{c.page + ": " + clause, needs, tree(more), func(t *T) {
				fn(t)
				t.lists("other", "file")
			}})
		}
		if !c.makes {
			add("ENOENT if there is no such name", "", "dir d", func(t *T) {
				t.fails(c.call(t, t.p("d/none")), unix.ENOENT)
				t.fails(c.call(t, ""), unix.ENOENT)
			})
		}
		add("ENOENT if a directory on the way is absent or a dangling link", "", "symlink x nowhere", func(t *T) {
			t.fails(c.call(t, t.p("none/f")), unix.ENOENT)
			t.fails(c.call(t, t.p("x/f")), unix.ENOENT)
		})
		add("ENOTDIR if what is on the way is no directory", "", "file f; symlink l f; fifo p", func(t *T) {
			for _, n := range []string{"f/x", "l/x", "p/x"} {
				t.fails(c.call(t, t.p(n)), unix.ENOTDIR)
			}
		})
		add("ELOOP if the links on the way go in a circle", "", "symlink a b; symlink b a", func(t *T) {
			t.fails(c.call(t, t.p("a/x")), unix.ELOOP)
		})
		add("ENAMETOOLONG for a name above 255 bytes and a path above 4095", "", "dir d", func(t *T) {
			t.fails(c.call(t, t.p("d/"+strings.Repeat("n", 256))), unix.ENAMETOOLONG)
			t.fails(c.call(t, t.p("d/"+strings.Repeat("n", 256)+"/f")), unix.ENAMETOOLONG)
			t.fails(c.call(t, t.p(strings.Repeat("d/../", 900)+"f")), unix.ENAMETOOLONG)
			t.lists("d", "")
		})
		add("EACCES if a directory on the way may not be searched", "root",
			"dir d; file d/f; dir d/e; dir d/e/g; mode d 0666; dir x; dir x/y; owner x/y 2001:2001; mode x/y 0700", func(t *T) {
				t.bob(func() {
					t.fails(c.call(t, t.p("d/f")), unix.EACCES)
					t.fails(c.call(t, t.p("d/none")), unix.EACCES)
					t.fails(c.call(t, t.p("d/e/g")), unix.EACCES)
					t.fails(c.call(t, t.p("x/y/none")), unix.EACCES)
				})
				t.lists("d", "e f")
			})
		if c.makes {
			add("EACCES if the directory may not be written", "root", "dir d; file d/f; owner d 2001:2001; mode d 0755", func(t *T) {
				t.bob(func() { t.fails(c.call(t, t.p("d/new")), unix.EACCES) })
				t.lists("d", "f")
			})
		}
	}
	return cases
}

var permissionCases = []Case{
	{"unlink(2): EACCES if the directory may not be written, whatever the file's mode", "root",
		"dir d; file d/f; mode d/f 0777; owner d/f 2002:2002; dir d/e; owner d/e 2002:2002; file g; dir w; mode w 0777", func(t *T) {
			t.bob(func() {
				t.fails(unix.Unlink(t.p("d/f")), unix.EACCES)
				t.fails(unix.Rmdir(t.p("d/e")), unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("w/f")), unix.EACCES)
				t.fails(unix.Rename(t.p("d/f"), t.p("d/g")), unix.EACCES)
			})
			t.lists("d", "e f")
		}},
	{"unlink(2): another's file in a directory that may be written", "root", "dir d; mode d 0777; file d/f; mode d/f 0", func(t *T) {
		t.bob(func() { t.unlink("d/f") })
		t.lists("d", "")
	}},
	{"open(2): each class of user has its own bits, the owner's come first", "root",
		"file o; owner o 2001:3001; mode o 0077; file g; owner g 0:3001; mode g 0606; file w; mode w 0660", func(t *T) {
			t.alice(func() { t.fails(t.openErr("o", unix.O_RDONLY), unix.EACCES) })
			t.as(bob, staff, nil, func() {
				t.ok(t.openErr("o", unix.O_RDWR))
				t.fails(t.openErr("g", unix.O_RDONLY), unix.EACCES)
			})
			t.as(bob, bob, []int{staff}, func() { t.fails(t.openErr("g", unix.O_RDONLY), unix.EACCES) })
			t.bob(func() {
				t.ok(t.openErr("g", unix.O_RDWR))
				t.fails(t.openErr("w", unix.O_RDONLY), unix.EACCES)
			})
		}},
	{"open(2): reading and writing are permissions apart", "root", "file r; mode r 0644; file w; mode w 0622", func(t *T) {
		t.bob(func() {
			t.ok(t.openErr("r", unix.O_RDONLY))
			t.fails(t.openErr("r", unix.O_WRONLY), unix.EACCES)
			t.fails(t.openErr("r", unix.O_RDWR), unix.EACCES)
			t.ok(t.openErr("w", unix.O_WRONLY))
			t.fails(t.openErr("w", unix.O_RDONLY), unix.EACCES)
		})
	}},
	{"open(2): root may read and write anything, and a descriptor keeps what it was opened for", "root", "file f abc; owner f 2001:2001; mode f 0", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "X", 0)
		t.alice(func() {
			t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES)
			t.eq("content", t.pread(fd, 10, 0), "Xbc")
			t.pwrite(fd, "Y", 1)
		})
		t.is("f", "XYc")
	}},
	{"chmod(2): takes effect for the next open, grants and revokes", "root", "file f abc; mode f 0600; dir d; file d/f; mode d 0700", func(t *T) {
		for range 3 {
			t.bob(func() {
				t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES)
				t.fails(t.openErr("d/f", unix.O_RDONLY), unix.EACCES)
			})
			t.chmod("f", 0o644)
			t.chmod("d", 0o755)
			t.bob(func() {
				t.is("f", "abc")
				t.ok(t.openErr("d/f", unix.O_RDONLY))
			})
			t.chmod("f", 0o600)
			t.chmod("d", 0o700)
		}
	}},
	{"chown(2): takes effect for the next open", "root", "file f abc; mode f 0600", func(t *T) {
		t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES) })
		t.chown("f", bob, bob)
		t.bob(func() { t.is("f", "abc") })
		t.chown("f", alice, alice)
		t.bob(func() { t.fails(t.openErr("f", unix.O_RDONLY), unix.EACCES) })
	}},
	{"open(2): a user writes another's file that was there, and its owner stays", "root",
		"dir d; mode d 0777; file d/f abc; owner d/f 2001:3001; mode d/f 0666", func(t *T) {
			t.bob(func() { t.appendTo("d/f", "d") })
			t.owner("d/f", alice, staff)
			t.mode("d/f", 0o666)
			t.is("d/f", "abcd")
		}},
	{"open(2): a user makes, moves and removes files in a root's directory that all may write", "root",
		"dir d; mode d 0777; dir d/sub; mode d/sub 0777; file d/f", func(t *T) {
			t.bob(func() {
				t.write("d/sub/new", "n")
				t.rename("d/f", "d/sub/f")
				t.mkdir("d/sub/dir")
				t.rename("d/sub/dir", "d/dir")
				t.unlink("d/sub/f")
			})
			t.owner("d/sub/new", bob, bob)
			t.owner("d/dir", bob, bob)
			t.lists("d", "dir sub")
		}},
	{"rename(2): a user may not replace what he could not remove", "root",
		"dir a; mode a 0777; file a/f; dir b; file b/f", func(t *T) {
			t.bob(func() {
				t.fails(unix.Rename(t.p("a/f"), t.p("b/f")), unix.EACCES)
				t.fails(t.rename2("a/f", "b/f", exchange), unix.EACCES)
				t.fails(t.rename2("b/f", "a/f", exchange), unix.EACCES)
			})
			t.lists("a", "f")
			t.lists("b", "f")
		}},
}
