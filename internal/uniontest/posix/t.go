package posix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// T is what a case runs with: the directory that is its own, and assertions on what is in it.
//
// Names given to its methods are relative to the directory, absolute ones are taken as they are. A failed assertion
// ends the case. T is not a testing.T, because a failure may be what is expected of a system (see [Known]).
type T struct {
	dir string

	mu       sync.Mutex
	failures []string
	skipped  string
	cleanups []func()
}

// run calls fn with a T for dir, and returns the T once fn and its cleanups are through.
func run(dir string, fn func(*T)) *T {
	t := &T{dir: dir}
	t.inside(func() { fn(t) })
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		c := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		t.inside(c)
	}
	return t
}

// inside runs fn in a goroutine of its own, which a failed assertion ends.
func (t *T) inside(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		debug.SetPanicOnFault(true) // SIGBUS in a mapping is the case's failure, not the end of all
		defer func() {
			if p := recover(); p != nil {
				t.record(fmt.Sprintf("panic: %v", p))
			}
		}()
		fn()
	}()
	<-done
}

func (t *T) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0 || t.skipped != ""
}

func (t *T) record(msg string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, msg)
}

// Fatalf fails the case at the line of the case that is being run, and ends it.
func (t *T) Fatalf(format string, args ...any) {
	t.record(where() + fmt.Sprintf(format, args...))
	goruntime.Goexit()
}

// Skipf ends the case as one that cannot be run here; the text names the missing ability.
func (t *T) Skipf(format string, args ...any) {
	t.mu.Lock()
	t.skipped = fmt.Sprintf(format, args...)
	t.mu.Unlock()
	goruntime.Goexit()
}

// where is the innermost line that is not one of this file: that of the case.
func where() string {
	var pcs [32]uintptr
	frames := goruntime.CallersFrames(pcs[:goruntime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if base := filepath.Base(f.File); base != "t.go" && base != "as.go" {
			return fmt.Sprintf("%s:%d: ", base, f.Line)
		}
		if !more {
			return ""
		}
	}
}

// cleanup has fn run at the end of the case, last in first out.
func (t *T) cleanup(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, fn)
}

// p is the path of name.
func (t *T) p(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return t.dir + "/" + name
}

// ok wants err to be nil.
func (t *T) ok(err error) {
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// fails wants err to be one of want.
func (t *T) fails(err error, want ...unix.Errno) {
	for _, w := range want {
		if errors.Is(err, w) {
			return
		}
	}
	var names []string
	for _, w := range want {
		names = append(names, unix.ErrnoName(w))
	}
	got := "success"
	if err != nil {
		got = err.Error()
		if e := unix.Errno(0); errors.As(err, &e) {
			got = unix.ErrnoName(e)
		}
	}
	t.Fatalf("want %s, got %s", strings.Join(names, " or "), got)
}

// eq wants got to be want; what names the thing compared.
func (t *T) eq(what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: got %#v, want %#v", what, short(got), short(want))
	}
}

func short(v any) any {
	if s, ok := v.(string); ok && len(s) > 100 {
		return fmt.Sprintf("%s... (%d bytes)", s[:100], len(s))
	}
	return v
}

// true wants cond to hold.
func (t *T) true(cond bool, format string, args ...any) {
	if !cond {
		t.Fatalf(format, args...)
	}
}

// open returns a descriptor that is closed at the end of the case.
func (t *T) open(name string, flags int, mode ...uint32) int {
	m := uint32(0o644)
	if len(mode) > 0 {
		m = mode[0]
	}
	fd, err := unix.Open(t.p(name), flags|unix.O_CLOEXEC, m)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	t.keep(fd)
	return fd
}

// keep closes fd at the end of the case.
func (t *T) keep(fd int) { t.cleanup(func() { _ = unix.Close(fd) }) } // may have been closed by the case

// openErr is the error of an open that should fail.
func (t *T) openErr(name string, flags int) error { return tryOpen(t.p(name), flags) }

func tryOpen(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// write makes name a file that holds data, with the mode 0644 if it is new.
func (t *T) write(name, data string) {
	fd := t.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	t.writeFd(fd, data)
	t.ok(unix.Close(fd))
}

func (t *T) writeFd(fd int, data string) {
	for data != "" {
		n, err := unix.Write(fd, []byte(data))
		t.ok(err)
		data = data[n:]
	}
}

func (t *T) pwrite(fd int, data string, off int64) {
	n, err := unix.Pwrite(fd, []byte(data), off)
	t.ok(err)
	t.eq("bytes written", n, len(data))
}

// appendTo writes data to the end of name.
func (t *T) appendTo(name, data string) {
	fd := t.open(name, unix.O_WRONLY|unix.O_APPEND)
	t.writeFd(fd, data)
	t.ok(unix.Close(fd))
}

// read returns what the file holds.
func (t *T) read(name string) string {
	b, err := os.ReadFile(t.p(name))
	t.ok(err)
	return string(b)
}

// pread returns the n bytes at off, or fewer at the end of the file.
func (t *T) pread(fd, n int, off int64) string {
	b := make([]byte, n)
	got := 0
	for got < n {
		m, err := unix.Pread(fd, b[got:], off+int64(got))
		t.ok(err)
		if m == 0 {
			break
		}
		got += m
	}
	return string(b[:got])
}

// is wants the file to hold data.
func (t *T) is(name, data string) { t.eq("content of "+name, t.read(name), data) }

func (t *T) mkdir(name string)           { t.ok(unix.Mkdir(t.p(name), 0o755)) }
func (t *T) unlink(name string)          { t.ok(unix.Unlink(t.p(name))) }
func (t *T) rmdir(name string)           { t.ok(unix.Rmdir(t.p(name))) }
func (t *T) rename(from, to string)      { t.ok(unix.Rename(t.p(from), t.p(to))) }
func (t *T) link(from, to string)        { t.ok(unix.Link(t.p(from), t.p(to))) }
func (t *T) symlink(target, name string) { t.ok(unix.Symlink(target, t.p(name))) }
func (t *T) chmod(name string, m uint32) { t.ok(unix.Chmod(t.p(name), m)) }
func (t *T) chown(name string, u, g int) { t.ok(unix.Lchown(t.p(name), u, g)) }

// rename2 is renameat2(2).
func (t *T) rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, t.p(from), unix.AT_FDCWD, t.p(to), flags)
}

// exists reports whether there is such a name, following nothing.
func (t *T) exists(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(t.p(name), &st) == nil
}

// gone wants that there is no such name, neither by lookup nor in the listing.
func (t *T) gone(name string) {
	var st unix.Stat_t
	if err := unix.Lstat(t.p(name), &st); !errors.Is(err, unix.ENOENT) {
		t.Fatalf("%s: want ENOENT from lstat, got %v", name, err)
	}
	dir, base := filepath.Split(name)
	if slices.Contains(t.names(dir), base) {
		t.Fatalf("%s is gone but listed", name)
	}
}

// stat is lstat(2).
func (t *T) stat(name string) unix.Stat_t {
	var st unix.Stat_t
	if err := unix.Lstat(t.p(name), &st); err != nil {
		t.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

func (t *T) fstat(fd int) unix.Stat_t {
	var st unix.Stat_t
	t.ok(unix.Fstat(fd, &st))
	return st
}

// mode wants the permission bits (07777) of name.
func (t *T) mode(name string, want uint32) {
	if got := t.stat(name).Mode & 0o7777; got != want {
		t.Fatalf("mode of %s: got %#o, want %#o", name, got, want)
	}
}

// owner wants the owner and group of name.
func (t *T) owner(name string, uid, gid uint32) {
	if st := t.stat(name); st.Uid != uid || st.Gid != gid {
		t.Fatalf("owner of %s: got %d:%d, want %d:%d", name, st.Uid, st.Gid, uid, gid)
	}
}

func (t *T) nlink(name string, want uint64) {
	t.eq("st_nlink of "+name, uint64(t.stat(name).Nlink), want)
}

func (t *T) fnlink(fd int, want uint64) {
	t.eq("st_nlink of the descriptor", uint64(t.fstat(fd).Nlink), want)
}

func (t *T) size(name string, want int64) { t.eq("size of "+name, t.stat(name).Size, want) }

// ino is the inode number of name.
func (t *T) ino(name string) uint64 { return t.stat(name).Ino }

// kind wants the file type of name, as one of S_IFREG and so on.
func (t *T) kind(name string, want uint32) {
	t.eq("type of "+name, t.stat(name).Mode&unix.S_IFMT, want)
}

// names lists the directory, sorted.
func (t *T) names(name string) []string {
	d, err := os.Open(t.p(name))
	t.ok(err)
	defer func() { _ = d.Close() }() // read-only
	names, err := d.Readdirnames(-1)
	t.ok(err)
	slices.Sort(names)
	return names
}

// lists wants the directory to hold exactly the names, given sorted and separated by blanks.
func (t *T) lists(name, want string) {
	t.eq("listing of "+name, strings.Join(t.names(name), " "), want)
}

// xattr wants the value of an extended attribute.
func (t *T) xattr(name, attr, want string) {
	got, err := getxattr(t.p(name), attr)
	if err != nil {
		t.Fatalf("getxattr %s %s: %v", name, attr, err)
	}
	t.eq(attr+" of "+name, got, want)
}

func (t *T) setxattr(name, attr, value string) {
	if err := unix.Lsetxattr(t.p(name), attr, []byte(value), 0); err != nil {
		t.Fatalf("setxattr %s %s: %v", name, attr, err)
	}
}

// noxattr wants ENODATA for the attribute.
func (t *T) noxattr(name, attr string) {
	_, err := getxattr(t.p(name), attr)
	t.fails(err, unix.ENODATA)
}

func getxattr(path, attr string) (string, error) {
	b := make([]byte, 1<<16)
	n, err := unix.Lgetxattr(path, attr, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// xattrs lists the attributes of name whose names begin with one of the prefixes, sorted.
func (t *T) xattrs(name string, prefixes ...string) []string {
	b := make([]byte, 1<<16)
	n, err := unix.Llistxattr(t.p(name), b)
	t.ok(err)
	var names []string
	for _, s := range strings.Split(string(b[:n]), "\x00") {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) }) {
			names = append(names, s)
		}
	}
	slices.Sort(names)
	return names
}

// tick returns once the clock that filesystems stamp files with is later than now, so that a stamp made from now on
// differs from every one made before. The clock advances with the timer interrupt, 1 to 10 ms; since Linux 6.13 a stamp may be
// of now nevertheless, and later than that clock ("multigrain timestamps", Documentation/filesystems/multigrain-ts.rst).
func tick() {
	clock := func(id int32) int64 {
		var ts unix.Timespec
		_ = unix.ClockGettime(id, &ts) // cannot fail: Linux 2.6.32
		return nano(ts)
	}
	for now := clock(unix.CLOCK_REALTIME); clock(unix.CLOCK_REALTIME_COARSE) <= now; {
		time.Sleep(time.Millisecond) // a poll: nobody wakes us when the clock moves
	}
}

// touches runs fn and wants it to have moved the times of the objects as given: "name mc" for mtime and ctime,
// "name c" for ctime alone, "name -" for neither. "old>new" is an object that fn renames.
func (t *T) touches(fn func(), want ...string) {
	type object struct{ after, times string }
	var objs []object
	var before []unix.Stat_t
	for _, w := range want {
		name, times, _ := strings.Cut(w, " ")
		old, after, renamed := strings.Cut(name, ">")
		if !renamed {
			after = old
		}
		objs = append(objs, object{after, strings.Trim(times, "-")})
		before = append(before, t.stat(old))
	}
	tick()
	fn()
	for i, o := range objs {
		b, a := before[i], t.stat(o.after)
		got := ""
		if a.Mtim != b.Mtim {
			got += "m"
		}
		if a.Ctim != b.Ctim {
			got += "c"
		}
		if got != o.times {
			t.Fatalf("times of %s that moved: got %q, want %q", o.after, got, o.times)
		}
		if nano(a.Ctim) < nano(b.Ctim) {
			t.Fatalf("ctime of %s went back", o.after)
		}
	}
}

func nano(ts unix.Timespec) int64 { return unix.TimespecToNsec(ts) }

// parallel runs fn n times at once and waits for all.
func (t *T) parallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { t.inside(func() { fn(i) }) })
	}
	wg.Wait()
	if t.failed() {
		goruntime.Goexit()
	}
}
