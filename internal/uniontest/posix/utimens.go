package posix

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// utimens is utimensat(2) of a name, not following.
func (t *T) utimens(name string, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, t.p(name), []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// futimens is utimensat(2) without a path, which the library has no call for.
func futimens(fd int, ts [2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

var (
	omit = unix.Timespec{Nsec: unix.UTIME_OMIT}
	now  = unix.Timespec{Nsec: unix.UTIME_NOW}
)

// times wants atime and mtime of name.
func (t *T) times(name string, atime, mtime unix.Timespec) {
	st := t.stat(name)
	t.eq("atime of "+name, st.Atim, atime)
	t.eq("mtime of "+name, st.Mtim, mtime)
}

// recent wants ts to lie between from and now, give or take a second: the coarse clock of the kernel is behind by as much as the processor
// that moves it is held up, in a virtual machine.
func (t *T) recent(what string, ts unix.Timespec, from time.Time) {
	got := time.Unix(ts.Unix())
	t.true(!got.Before(from.Add(-time.Second)) && !got.After(time.Now().Add(time.Second)),
		"%s is %v, not between %v and now", what, got, from)
}

var utimensCases = []Case{
	{"utimensat(2): sets both times to the nanosecond and moves ctime", "", "file f", func(t *T) {
		a, m := unix.Timespec{Sec: 1234567890, Nsec: 123456789}, unix.Timespec{Sec: 987654321, Nsec: 1}
		from := time.Now()
		t.ok(t.utimens("f", a, m))
		t.times("f", a, m)
		t.recent("ctime", t.stat("f").Ctim, from)
	}},
	{"utimensat(2): times before 1970 and after 2038", "", "file f", func(t *T) {
		a, m := unix.Timespec{Sec: -86400, Nsec: 5}, unix.Timespec{Sec: 5_000_000_000, Nsec: 999999999}
		t.ok(t.utimens("f", a, m))
		t.times("f", a, m)
	}},
	{"utimensat(2): UTIME_OMIT leaves a time", "", "file f; mtime f 1000", func(t *T) {
		t.ok(t.utimens("f", unix.Timespec{Sec: 5}, omit))
		t.times("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 1000})
		t.ok(t.utimens("f", omit, unix.Timespec{Sec: 7}))
		t.times("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 7})
	}},
	{"utimensat(2): UTIME_OMIT for both changes nothing, not even ctime", "", "file f; mtime f 1000", func(t *T) {
		t.touches(func() { t.ok(t.utimens("f", omit, omit)) }, "f -")
		t.times("f", unix.Timespec{Sec: 1000}, unix.Timespec{Sec: 1000})
	}},
	{"utimensat(2): UTIME_NOW sets the present time", "", "file f; mtime f 1000", func(t *T) {
		from := time.Now()
		t.ok(t.utimens("f", omit, now))
		t.recent("mtime", t.stat("f").Mtim, from)
		t.eq("atime", t.stat("f").Atim, unix.Timespec{Sec: 1000})
		t.ok(t.utimens("f", now, omit))
		t.recent("atime", t.stat("f").Atim, from)
	}},
	{"utimensat(2): no times at all mean now", "", "file f; mtime f 1000", func(t *T) {
		from := time.Now()
		t.ok(unix.UtimesNanoAt(unix.AT_FDCWD, t.p("f"), nil, 0))
		t.recent("mtime", t.stat("f").Mtim, from)
		t.recent("atime", t.stat("f").Atim, from)
	}},
	{"utimensat(2): of a directory, a FIFO and a socket", "", "dir d; file d/f; fifo p; sock s", func(t *T) {
		for _, f := range []string{"d", "p", "s"} {
			t.ok(t.utimens(f, unix.Timespec{Sec: 5, Nsec: 6}, unix.Timespec{Sec: 7, Nsec: 8}))
			t.times(f, unix.Timespec{Sec: 5, Nsec: 6}, unix.Timespec{Sec: 7, Nsec: 8})
		}
	}},
	{"utimensat(2): AT_SYMLINK_NOFOLLOW sets those of the link, else of the target", "", "file f; mtime f 1000; symlink l f", func(t *T) {
		t.ok(t.utimens("l", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}))
		t.eq("mtime of the link", t.stat("l").Mtim, unix.Timespec{Sec: 6})
		t.eq("mtime of the target", t.stat("f").Mtim, unix.Timespec{Sec: 1000})
		t.ok(unix.UtimesNanoAt(unix.AT_FDCWD, t.p("l"), []unix.Timespec{{Sec: 8}, {Sec: 9}}, 0))
		t.times("f", unix.Timespec{Sec: 8}, unix.Timespec{Sec: 9})
		t.eq("mtime of the link", t.stat("l").Mtim, unix.Timespec{Sec: 6})
	}},
	{"futimens(3): through a descriptor open for reading, after unlink too", "", "file f", func(t *T) {
		fd := t.open("f", unix.O_RDONLY)
		t.ok(futimens(fd, [2]unix.Timespec{{Sec: 1}, {Sec: 2}}))
		t.times("f", unix.Timespec{Sec: 1}, unix.Timespec{Sec: 2})
		t.unlink("f")
		t.ok(futimens(fd, [2]unix.Timespec{{Sec: 3}, {Sec: 4}}))
		t.eq("mtime", t.fstat(fd).Mtim.Sec, int64(4))
	}},
	{"utimensat(2): EINVAL for nanoseconds out of range", "", "file f", func(t *T) {
		t.fails(t.utimens("f", unix.Timespec{Nsec: 1e9}, unix.Timespec{}), unix.EINVAL)
		t.fails(t.utimens("f", unix.Timespec{}, unix.Timespec{Nsec: -1}), unix.EINVAL)
	}},
	{"utimensat(2): one who may write may set now: else EACCES", "root", "file f; file g; mode f 0666", func(t *T) {
		t.bob(func() {
			t.ok(t.utimens("f", now, now))
			t.ok(unix.UtimesNanoAt(unix.AT_FDCWD, t.p("f"), nil, 0))
			t.fails(t.utimens("g", now, now), unix.EACCES)
			t.fails(unix.UtimesNanoAt(unix.AT_FDCWD, t.p("g"), nil, 0), unix.EACCES)
		})
	}},
	{"utimensat(2): one who may write but is not the owner may not set a time: EPERM", "root", "file f; mode f 0666", func(t *T) {
		t.bob(func() {
			t.fails(t.utimens("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 5}), unix.EPERM)
			t.fails(t.utimens("f", now, omit), unix.EPERM, unix.EACCES)
			t.fails(t.utimens("f", omit, unix.Timespec{Sec: 5}), unix.EPERM)
			t.ok(t.utimens("f", omit, omit))
		})
	}},
	{"utimensat(2): the owner may set any time of a file he may not write", "root", "file f; owner f 2001:2001; mode f 0", func(t *T) {
		t.alice(func() {
			t.ok(t.utimens("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}))
			t.ok(t.utimens("f", now, omit))
			t.ok(t.utimens("f", now, now))
		})
	}},
	{"utimensat(2): keeps content and mode, and a later write moves mtime on", "", "file f abc; mode f 0640", func(t *T) {
		t.ok(t.utimens("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}))
		t.is("f", "abc")
		t.mode("f", 0o640)
		from := time.Now()
		t.appendTo("f", "d")
		t.recent("mtime", t.stat("f").Mtim, from)
	}},
	{"utimensat(2): a time set while a writer has the file open stays after its close", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "X", 0)
		t.ok(t.utimens("f", unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6}))
		t.ok(unix.Close(fd))
		t.eq("mtime", t.stat("f").Mtim, unix.Timespec{Sec: 6})
	}},
}
