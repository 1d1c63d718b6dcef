package posix

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/meanwhile"
)

// everyByte are names that together hold every byte but '/' and NUL.
func everyByte() []string {
	var all []byte
	for b := 1; b < 256; b++ {
		if b != '/' {
			all = append(all, byte(b))
		}
	}
	return []string{string(all), string(all[:10]), string(all[100:200])}
}

var nameCases = []Case{
	{"path_resolution(7): a name of 255 bytes can be made, listed, renamed and removed", "", "", func(t *T) {
		long := strings.Repeat("n", 255)
		other := strings.Repeat("m", 255)
		t.write(long, "abc")
		t.lists("", long)
		t.rename(long, other)
		t.is(other, "abc")
		t.unlink(other)
		t.mkdir(long)
		t.write(long+"/"+other, "x")
		t.lists(long, other)
		t.unlink(long + "/" + other)
		t.rmdir(long)
		t.lists("", "")
	}},
	{"path_resolution(7): a name of 251 bytes that was there can be written and removed", "",
		Tree("file " + strings.Repeat("n", 251) + " abc; dir " + strings.Repeat("d", 251)), func(t *T) {
			f, d := strings.Repeat("n", 251), strings.Repeat("d", 251)
			t.appendTo(f, "d")
			t.is(f, "abcd")
			t.unlink(f)
			t.rmdir(d)
			t.lists("", "")
		}},
	{"path_resolution(7): a name of 255 bytes that was there is seen, and may be written", "",
		Tree("file " + strings.Repeat("n", 255) + " abc"), func(t *T) {
			f := strings.Repeat("n", 255)
			t.lists("", f)
			t.is(f, "abc")
			t.appendTo(f, "d")
			t.is(f, "abcd")
		}},
	{"path_resolution(7): a name of 255 bytes that was there can be removed", "",
		Tree("file " + strings.Repeat("n", 255) + " abc"), func(t *T) {
			t.unlink(strings.Repeat("n", 255))
			t.lists("", "")
		}},
	{"path_resolution(7): a name is bytes, all but / and NUL", "", "", func(t *T) {
		names := append(everyByte(), "\xff\xfe", " ", "\n", "-rf", "...", "..a", "*", "caf\u00e9", "cafe\u0301")
		for _, n := range names {
			t.write(n, n)
		}
		slices.Sort(names)
		t.eq("listing", t.names(""), names)
		for _, n := range names {
			t.is(n, n)
			t.rename(n, n+"x")
			t.rename(n+"x", n)
			t.unlink(n)
		}
		t.lists("", "")
	}},
	{"path_resolution(7): case matters", "", "file Name 1; file name 2", func(t *T) {
		t.write("NAME", "3")
		t.is("Name", "1")
		t.is("name", "2")
		t.lists("", "NAME Name name")
	}},
	{"path_resolution(7): a path of PATH_MAX - 1 bytes works, one more is ENAMETOOLONG", "", "dir d", func(t *T) {
		path := t.p("d")
		var made []string
		for len(path)+1+200 < 4095-200 {
			path += "/" + strings.Repeat("p", 199)
			t.ok(unix.Mkdir(path, 0o755))
			made = append(made, path)
		}
		path += "/" + strings.Repeat("q", 100)
		t.ok(unix.Mkdir(path, 0o755))
		made = append(made, path)
		file := path + "/" + strings.Repeat("f", 4095-len(path)-1)
		if n := len(file) - len(path) - 1; n > 255 {
			t.Fatalf("a slip in this case: a name of %d bytes", n)
		}
		t.eq("length", len(file), 4095)
		t.write(file, "abc")
		t.is(file, "abc")
		t.fails(t.openErr(file+"x", unix.O_RDONLY), unix.ENAMETOOLONG)
		t.fails(t.openErr(file+"x", unix.O_CREAT|unix.O_WRONLY), unix.ENAMETOOLONG)
		t.unlink(file)
		for _, d := range slices.Backward(made) {
			t.rmdir(d)
		}
	}},
	{"path_resolution(7): a tree deeper than PATH_MAX is made, read and removed by steps", "", "dir d", func(t *T) {
		const depth = 60 // of 200 bytes each: three times PATH_MAX
		name := strings.Repeat("s", 199)
		t.in("d", func() {
			for range depth {
				t.ok(unix.Mkdir(name, 0o755))
				t.ok(unix.Chdir(name))
			}
			fd, err := unix.Open("f", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
			t.ok(err)
			t.keep(fd)
			t.writeFd(fd, "deep")
			t.eq("content", t.pread(fd, 10, 0), "deep")
			t.ok(unix.Rename("f", "g"))
			t.ok(unix.Unlink("g"))
			for range depth {
				t.ok(unix.Chdir(".."))
				t.ok(unix.Rmdir(name))
			}
		})
		t.lists("d", "")
	}},
	{"path_resolution(7): a deep tree that was there moves and is removed", "", Tree(deepTree(30)), func(t *T) {
		t.rename("a", "b")
		t.is("b"+strings.Repeat("/a", 29)+"/f", "deep")
		t.appendTo("b"+strings.Repeat("/a", 29)+"/f", "er")
		t.is("b"+strings.Repeat("/a", 29)+"/f", "deeper")
		t.ok(os.RemoveAll(t.p("b")))
		t.lists("", "")
	}},
	{"path_resolution(7): . and .. and doubled slashes", "", "dir d; dir d/e; file d/f abc", func(t *T) {
		t.is("d//e/.././/f", "abc")
		t.eq("d/.", t.ino("d/."), t.ino("d"))
		t.eq("d/e/..", t.ino("d/e/.."), t.ino("d"))
	}},
}

func deepTree(depth int) string {
	var b strings.Builder
	path := ""
	for range depth {
		path += "a"
		fmt.Fprintf(&b, "dir %s;", path)
		path += "/"
	}
	fmt.Fprintf(&b, "file %sf deep", path)
	return b.String()
}

// listAll names what is in the directory, without . and .., read through a buffer of the size.
func (t *T) listAll(name string, buf int) []string {
	var names []string
	for _, e := range t.records(t.open(name, unix.O_RDONLY|unix.O_DIRECTORY), buf) {
		if e.name != "." && e.name != ".." {
			names = append(names, e.name)
		}
	}
	return names
}

// dirent is one record of getdents64(2).
type dirent struct {
	ino  uint64
	off  int64
	kind byte
	name string
}

// records reads what is left of a directory through a buffer of the size. Only a call that gives nothing is the end:
// one that a signal meets gives what it has so far, and the Go runtime signals its own threads.
func (t *T) records(fd, buf int) []dirent {
	var all []dirent
	for {
		es := t.getdents(fd, buf)
		if len(es) == 0 {
			return all
		}
		all = append(all, es...)
	}
}

// getdents reads one buffer of records: one at least, and not always as many as there is room for.
func (t *T) getdents(fd, buf int) []dirent {
	b := make([]byte, buf)
	n, err := unix.Getdents(fd, b)
	t.ok(err)
	var out []dirent
	for b = b[:n]; len(b) > 0; {
		reclen := int(native16(b[16:]))
		name := string(b[19:reclen])
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		out = append(out, dirent{native64(b), int64(native64(b[8:])), b[18], name})
		b = b[reclen:]
	}
	return out
}

var readdirCases = []Case{
	{"readdir(3): lists every name once, with . and ..", "", "dir d; names d 1000", func(t *T) {
		seen := map[string]int{}
		for _, e := range t.records(t.open("d", unix.O_RDONLY), 1000) {
			seen[e.name]++
		}
		t.eq("names", len(seen), 1002)
		for name, n := range seen {
			t.true(n == 1, "%s is listed %d times", name, n)
		}
		t.true(seen["."] == 1 && seen[".."] == 1, "no . or ..")
	}},
	{"readdir(3): d_type and d_ino agree with stat, of . and .. too", "",
		"dir d; dir d/dir; file d/file; symlink d/symlink x; fifo d/fifo; sock d/sock; link d/file d/link", func(t *T) {
			es := t.records(t.open("d", unix.O_RDONLY), 65536)
			t.eq("records", len(es), 8)
			for _, e := range es {
				st := t.stat("d/" + e.name)
				if e.name != ".." { // of a mount's root the kernel shows another than the filesystem
					t.eq("d_ino of "+e.name, e.ino, st.Ino)
				}
				if e.kind != unix.DT_UNKNOWN {
					t.eq("d_type of "+e.name, uint32(e.kind)<<12, st.Mode&unix.S_IFMT)
				}
			}
		}},
	{"readdir(3): d_ino stays what it was after a first change to each object", "",
		"dir d; dir d/dir; file d/file abc; symlink d/symlink x; file d/other; link d/other d/link", func(t *T) {
			before := map[string]uint64{}
			for _, e := range t.records(t.open("d", unix.O_RDONLY), 65536) {
				before[e.name] = e.ino
			}
			t.appendTo("d/file", "d")
			t.chmod("d/dir", 0o700)
			t.chmod("d/link", 0o600)
			t.ok(t.utimens("d/symlink", now, now))
			t.write("d/new", "")
			for _, e := range t.records(t.open("d", unix.O_RDONLY), 65536) {
				if e.name == "new" || e.name == ".." {
					continue
				}
				t.eq("d_ino of "+e.name, e.ino, before[e.name])
				t.eq("st_ino of "+e.name, t.ino("d/"+e.name), before[e.name])
			}
		}},
	{"readdir(3): names made and removed show in the next listing", "", "dir d; file d/a; file d/b; file d/c", func(t *T) {
		t.lists("d", "a b c")
		t.unlink("d/b")
		t.lists("d", "a c")
		t.write("d/d", "")
		t.mkdir("d/e")
		t.lists("d", "a c d e")
		t.rename("d/a", "d/z")
		t.lists("d", "c d e z")
		t.rename("d/z", "z")
		t.rmdir("d/e")
		t.lists("d", "c d")
	}},
	{"rewinddir(3): shows what has changed since", "", "dir d; file d/a; file d/b", func(t *T) {
		fd := t.open("d", unix.O_RDONLY)
		t.eq("records", len(t.records(fd, 65536)), 4)
		t.unlink("d/a")
		t.write("d/c", "")
		t.seek(fd, 0, unix.SEEK_SET, 0)
		var names []string
		for _, e := range t.records(fd, 65536) {
			names = append(names, e.name)
		}
		slices.Sort(names)
		t.eq("names", strings.Join(names, " "), ". .. b c")
	}},
	{"seekdir(3): a position that telldir gave leads back to the same name", "", "dir d; names d 500", func(t *T) {
		fd := t.open("d", unix.O_RDONLY)
		all := t.records(fd, 700)
		t.eq("records", len(all), 502)
		for _, i := range []int{0, 1, 7, 100, 250, 499, 500} {
			t.seek(fd, all[i].off, unix.SEEK_SET, all[i].off)
			es := t.getdents(fd, 700)
			t.true(len(es) > 0, "nothing after record %d", i)
			t.eq("name after record "+itoa(i), es[0].name, all[i+1].name)
		}
		t.seek(fd, all[501].off, unix.SEEK_SET, all[501].off)
		t.eq("records after the last", len(t.getdents(fd, 700)), 0)
	}},
	{"readdir(3): what is not touched is listed once while others come and go", "", "dir d; names d 1000", func(t *T) {
		fd := t.open("d", unix.O_RDONLY)
		seen := map[string]int{}
		for round := 0; ; round++ {
			es := t.getdents(fd, 600)
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				seen[e.name]++
			}
			// Odd numbers go, new names come, and some go that are read already and some that are not.
			for _, n := range []int{round*20 + 1, 999 - round*20} {
				if n%2 == 1 && n > 0 && n < 1000 && t.exists(fmt.Sprintf("d/%06d", n)) {
					t.unlink(fmt.Sprintf("d/%06d", n))
				}
			}
			if round < 100 { // a listing that shows what is new would not end else
				t.write(fmt.Sprintf("d/new%d", round), "")
			}
		}
		for n := 0; n < 1000; n += 2 {
			name := fmt.Sprintf("%06d", n)
			t.true(seen[name] == 1, "%s is listed %d times", name, seen[name])
		}
		for name, n := range seen {
			t.true(n == 1, "%s is listed %d times", name, n)
		}
	}},
	{"rm(1): names can be removed while they are read, all of them", "", "dir d; names d 3000", func(t *T) {
		fd := t.open("d", unix.O_RDONLY)
		for {
			es := t.getdents(fd, 2000)
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				if e.name != "." && e.name != ".." {
					t.unlink("d/" + e.name)
				}
			}
		}
		t.lists("d", "")
		t.rmdir("d")
	}},
	{"readdir(3): after a rename of another name over it a name is listed once", "", "dir d; file d/a; file d/b", func(t *T) {
		t.rename("d/a", "d/b")
		t.eq("names", t.listAll("d", 4096), []string{"b"})
	}},
	{"getdents(2): a reader that signals meet sees every name once", "", "dir d; names d 300", func(t *T) {
		fd := t.open("d", unix.O_RDONLY)
		defer t.signalled()()
		for range 50 {
			t.seek(fd, 0, unix.SEEK_SET, 0)
			seen := map[string]int{}
			for _, e := range t.records(fd, 65536) {
				seen[e.name]++
			}
			t.eq("names", len(seen), 302)
			for name, n := range seen {
				t.true(n == 1, "%s is listed %d times", name, n)
			}
		}
	}},
	{"getdents(2): ENOTDIR for a file, EINVAL for a buffer too small", "", "file f; dir d; file d/aname", func(t *T) {
		_, err := unix.Getdents(t.open("f", unix.O_RDONLY), make([]byte, 1000))
		t.fails(err, unix.ENOTDIR)
		_, err = unix.Getdents(t.open("d", unix.O_RDONLY), make([]byte, 8))
		t.fails(err, unix.EINVAL)
	}},
	{"readdir(3): EACCES to open a directory without read permission; names can still be used", "root", "dir d; file d/f abc; mode d 0711", func(t *T) {
		t.bob(func() {
			t.fails(t.openErr("d", unix.O_RDONLY), unix.EACCES)
			t.is("d/f", "abc")
		})
	}},
	{"readdir(3): 2,000 names are listed and found", "", "dir d; names d 2000", func(t *T) { t.manyNames(2000) }},
	{"readdir(3): 50,000 names are listed and found", "large", "dir d; names d 50000", func(t *T) { t.manyNames(50000) }},
	{"readdir(3): a million names are listed and found", "long", "dir d; names d 1000000", func(t *T) {
		t.eq("names", len(t.listAll("d", 65536)), 1000000)
		t.kind("d/999999", unix.S_IFREG)
		t.unlink("d/500000")
		t.eq("names", len(t.listAll("d", 65536)), 999999)
	}},
	{"readdir(3): two readers of one directory do not disturb each other", "", "dir d; names d 400", func(t *T) {
		a, b := t.open("d", unix.O_RDONLY), t.open("d", unix.O_RDONLY)
		var na, nb int
		for {
			ea, eb := t.getdents(a, 500), t.getdents(b, 900)
			na, nb = na+len(ea), nb+len(eb)
			if len(ea) == 0 && len(eb) == 0 {
				break
			}
		}
		t.eq("records", []int{na, nb}, []int{402, 402})
	}},
}

// signalled has the case's thread signalled without pause, until the function it returns is called. The signal is the
// one that the Go runtime preempts goroutines with, which it takes for its own.
func (t *T) signalled() (end func()) {
	goruntime.LockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	stop := meanwhile.Do(func() { _ = unix.Tgkill(pid, tid, unix.SIGURG) })
	return func() {
		stop()
		goruntime.UnlockOSThread()
	}
}

// manyNames looks at the directory d of so many names, and at it changed.
func (t *T) manyNames(names int) {
	t.eq("names", len(t.listAll("d", 32768)), names)
	for _, n := range []int{0, 1, names / 2, names - 1} {
		t.kind(fmt.Sprintf("d/%06d", n), unix.S_IFREG)
	}
	t.gone(fmt.Sprintf("d/%06d", names))
	t.write("d/new", "")
	t.unlink(fmt.Sprintf("d/%06d", names/2))
	t.eq("names", len(t.listAll("d", 32768)), names)
}

var sparseCases = []Case{
	{"lseek(2): a file of 4 TiB with a byte at its end", "", "file f", func(t *T) {
		const end = 4<<40 - 1
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "Z", end)
		t.size("f", end+1)
		t.true(t.stat("f").Blocks < 1000, "%d blocks", t.stat("f").Blocks)
		t.eq("end", t.pread(fd, 10, end-3), "\x00\x00\x00Z")
		off, err := unix.Seek(fd, 4096, unix.SEEK_DATA)
		t.ok(err)
		t.true(off > end-1<<20 && off <= end, "data at %d", off)
	}},
	{"write(2): one byte to a sparse file of 2 TiB that was there leaves it sparse", "", "size f 2199023255552", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		t.pwrite(fd, "Z", 1<<40)
		st := t.stat("f")
		t.eq("size", st.Size, int64(2<<40))
		t.true(st.Blocks < 1000, "%d blocks", st.Blocks)
		t.eq("there", t.pread(fd, 3, 1<<40-1), "\x00Z\x00")
	}},
	{"chmod(2): of a sparse file of 2 TiB that was there leaves it sparse", "", "size f 2199023255552", func(t *T) {
		t.chmod("f", 0o600)
		st := t.stat("f")
		t.eq("size", st.Size, int64(2<<40))
		t.true(st.Blocks < 1000, "%d blocks", st.Blocks)
	}},
	{"ftruncate(2): EFBIG or success near the largest offset, never damage", "", "file f abc", func(t *T) {
		fd := t.open("f", unix.O_RDWR)
		err := unix.Ftruncate(fd, 1<<60)
		if err != nil {
			t.true(errors.Is(err, unix.EFBIG) || errors.Is(err, unix.EINVAL), "%v", err)
			t.is("f", "abc")
			return
		}
		t.eq("start", t.pread(fd, 4, 0), "abc\x00")
	}},
}
