package posix

import (
	"golang.org/x/sys/unix"
)

// Open file description locks (fcntl(2)); x/sys/unix has these only for some architectures.
const (
	ofdGetlk  = 36
	ofdSetlk  = 37
	ofdSetlkw = 38
)

func (t *T) ofd(fd, cmd int, kind int16, start, n int64) (unix.Flock_t, error) {
	lk := unix.Flock_t{Type: kind, Start: start, Len: n}
	err := unix.FcntlFlock(uintptr(fd), cmd, &lk)
	return lk, err
}

var lockCases = []Case{
	{"flock(2): exclusive excludes, shared do not: EWOULDBLOCK", "", "file f", func(t *T) {
		a, b, c := t.open("f", unix.O_RDONLY), t.open("f", unix.O_RDWR), t.open("f", unix.O_RDONLY)
		t.ok(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB))
		t.ok(unix.Flock(c, unix.LOCK_SH|unix.LOCK_NB))
		t.fails(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		t.ok(unix.Flock(a, unix.LOCK_UN))
		t.ok(unix.Flock(c, unix.LOCK_UN))
		t.ok(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
		t.fails(unix.Flock(a, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	}},
	{"flock(2): a lock goes with the last descriptor of its open file", "", "file f", func(t *T) {
		a, b := t.open("f", unix.O_RDONLY), t.open("f", unix.O_RDONLY)
		dup, err := unix.Dup(a)
		t.ok(err)
		t.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
		t.ok(unix.Close(a))
		t.fails(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		t.ok(unix.Close(dup))
		t.ok(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
	}},
	{"flock(2): holds between descriptors opened before and after the first write", "", "file f abc", func(t *T) {
		a := t.open("f", unix.O_RDONLY)
		t.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
		b := t.open("f", unix.O_RDWR)
		t.pwrite(b, "X", 0)
		t.fails(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	}},
	{"flock(2): of a directory, a FIFO", "", "dir d; fifo p", func(t *T) {
		for _, n := range []string{"d", "p"} {
			a, b := t.open(n, unix.O_RDONLY|unix.O_NONBLOCK), t.open(n, unix.O_RDONLY|unix.O_NONBLOCK)
			t.ok(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
			t.fails(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		}
	}},
	{"flock(2): a waiter gets the lock when it is free", "", "file f", func(t *T) {
		a, b := t.open("f", unix.O_RDONLY), t.open("f", unix.O_RDONLY)
		t.ok(unix.Flock(a, unix.LOCK_EX))
		got := make(chan error, 1)
		go func() {
			err := unix.EINTR
			for err == unix.EINTR {
				err, _ = unix.Flock(b, unix.LOCK_EX).(unix.Errno)
			}
			if err == 0 {
				got <- nil
				return
			}
			got <- err
		}()
		t.ok(unix.Flock(a, unix.LOCK_UN))
		t.ok(<-got)
	}},
	{"flock(2): EINVAL for an unknown operation", "", "file f", func(t *T) {
		t.fails(unix.Flock(t.open("f", unix.O_RDONLY), 0x40), unix.EINVAL)
	}},
	{"fcntl(2): record locks of two open files exclude by range: EAGAIN", "", "file f abcdef", func(t *T) {
		a, b := t.open("f", unix.O_RDWR), t.open("f", unix.O_RDWR)
		_, err := t.ofd(a, ofdSetlk, unix.F_WRLCK, 0, 3)
		t.ok(err)
		_, err = t.ofd(b, ofdSetlk, unix.F_WRLCK, 2, 2)
		t.fails(err, unix.EAGAIN, unix.EACCES)
		_, err = t.ofd(b, ofdSetlk, unix.F_WRLCK, 3, 0)
		t.ok(err)
		_, err = t.ofd(a, ofdSetlk, unix.F_RDLCK, 100, 1)
		t.fails(err, unix.EAGAIN, unix.EACCES)
		lk, err := t.ofd(b, ofdGetlk, unix.F_WRLCK, 0, 1)
		t.ok(err)
		t.eq("lock in the way", []int64{int64(lk.Type), lk.Start, lk.Len}, []int64{unix.F_WRLCK, 0, 3})
		_, err = t.ofd(a, ofdSetlk, unix.F_UNLCK, 1, 1)
		t.ok(err)
		_, err = t.ofd(b, ofdSetlk, unix.F_WRLCK, 1, 1)
		t.ok(err)
	}},
	{"fcntl(2): read locks are shared, and need a descriptor open for reading: EBADF", "", "file f abc", func(t *T) {
		a, b := t.open("f", unix.O_RDONLY), t.open("f", unix.O_RDONLY)
		_, err := t.ofd(a, ofdSetlk, unix.F_RDLCK, 0, 0)
		t.ok(err)
		_, err = t.ofd(b, ofdSetlk, unix.F_RDLCK, 0, 0)
		t.ok(err)
		_, err = t.ofd(a, ofdSetlk, unix.F_WRLCK, 0, 0)
		t.fails(err, unix.EBADF)
		_, err = t.ofd(t.open("f", unix.O_WRONLY), ofdSetlk, unix.F_RDLCK, 0, 0)
		t.fails(err, unix.EBADF)
	}},
	{"fcntl(2): record locks of a process exclude another process, and F_GETLK names it", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		t.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk))
		// The program prints what it found: the type and holder of the lock in its way.
		out := t.command("perl", "-MFcntl=:DEFAULT", "-e", `
			open(my $f, "+<", $ARGV[0]) or die;
			my $l = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
			my $set = fcntl($f, F_SETLK, $l) ? "got it" : "refused";
			fcntl($f, F_GETLK, $l) or die;
			my ($type, $whence, $start, $len, $pid) = unpack("s s x4 q q i", $l);
			print "$set $type $pid";`, t.p("f"))
		t.eq("what the other process found", out, "refused 1 "+itoa(unix.Getpid()))
	}},
	{"fcntl(2): record locks of a process go when it closes any descriptor of the file", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		t.ok(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk))
		other := t.open("f", unix.O_RDWR)
		_, err := t.ofd(other, ofdSetlk, unix.F_WRLCK, 0, 0)
		t.fails(err, unix.EAGAIN, unix.EACCES)
		t.is("f", "abc") // opens and closes the file
		_, err = t.ofd(other, ofdSetlk, unix.F_WRLCK, 0, 0)
		t.ok(err)
	}},
	{"fcntl(2): F_OFD_SETLKW waits", "", "file f abc", func(t *T) {
		a, b := t.open("f", unix.O_RDWR), t.open("f", unix.O_RDWR)
		_, err := t.ofd(a, ofdSetlk, unix.F_WRLCK, 0, 0)
		t.ok(err)
		got := make(chan error, 1)
		go func() {
			for {
				_, err := t.ofd(b, ofdSetlkw, unix.F_WRLCK, 0, 0)
				if err != unix.EINTR {
					got <- err
					return
				}
			}
		}()
		_, err = t.ofd(a, ofdSetlk, unix.F_UNLCK, 0, 0)
		t.ok(err)
		t.ok(<-got)
	}},
	{"fcntl(2): a lock on an unlinked file says nothing of a new one of its name", "", "file f abc", func(t *T) {
		a := t.open("f", unix.O_RDWR)
		_, err := t.ofd(a, ofdSetlk, unix.F_WRLCK, 0, 0)
		t.ok(err)
		t.unlink("f")
		t.write("f", "new")
		_, err = t.ofd(t.open("f", unix.O_RDWR), ofdSetlk, unix.F_WRLCK, 0, 0)
		t.ok(err)
	}},
}

var syncCases = []Case{
	{"fsync(2): and fdatasync of a file that was written, and of one that was not", "", "file f abc; file g", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "X", 0)
		t.ok(unix.Fsync(fd))
		t.ok(unix.Fdatasync(fd))
		r := t.open("g", unix.O_RDONLY)
		t.ok(unix.Fsync(r))
		t.ok(unix.Fdatasync(r))
	}},
	{"fsync(2): of a directory", "", "dir d; file d/f", func(t *T) {
		d := t.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
		t.ok(unix.Fsync(d))
		t.write("d/g", "x")
		t.ok(unix.Fsync(d))
		t.ok(unix.Fdatasync(d))
	}},
	{"fsync(2): of an unlinked file, and of a removed directory", "", "file f; dir d", func(t *T) {
		fd, d := t.open("f", unix.O_RDWR), t.open("d", unix.O_RDONLY)
		t.unlink("f")
		t.rmdir("d")
		t.ok(unix.Fsync(fd))
		t.ok(unix.Fsync(d))
	}},
	{"fsync(2): EINVAL or EROFS for a FIFO", "", "fifo p", func(t *T) {
		t.fails(unix.Fsync(t.open("p", unix.O_RDWR)), unix.EINVAL, unix.EROFS)
	}},
	{"syncfs(2): and sync_file_range", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "X", 0)
		t.ok(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
		t.ok(unix.Syncfs(fd))
	}},
}

var statfsCases = []Case{
	{"statfs(2): tells names of 255 bytes and plausible sizes", "", "file f", func(t *T) {
		var st unix.Statfs_t
		t.ok(unix.Statfs(t.p("f"), &st))
		t.eq("f_namelen", st.Namelen, int64(255))
		t.true(st.Bsize > 0 && st.Blocks >= st.Bfree && st.Bfree >= st.Bavail, "sizes %+v", st)
		t.true(st.Blocks > 0 && st.Files >= st.Ffree, "sizes %+v", st)
	}},
	{"fstatfs(2): tells what statfs does", "", "file f; dir d", func(t *T) {
		var a, b, c unix.Statfs_t
		t.ok(unix.Statfs(t.p("d"), &a))
		t.ok(unix.Fstatfs(t.open("f", unix.O_RDONLY), &b))
		t.ok(unix.Fstatfs(t.open("d", unix.O_PATH), &c))
		t.eq("f_type", b.Type, a.Type)
		t.eq("f_blocks", b.Blocks, a.Blocks)
		t.eq("f_fsid", c.Fsid, a.Fsid)
	}},
}
