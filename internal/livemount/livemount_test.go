package livemount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

var example = Info{
	Mountpoint: "/merged here",
	PID:        1234,
	Options:    "lowerdir=/l 1:/l2,upperdir=/u",
	Branches:   []Branch{{Path: "/u", Writable: true}, {Path: "/l 1"}, {Path: "/l\n2\\"}},
}

// create makes a directory that the end of the test takes away where it is still there.
func create(t *testing.T, base string, info Info) *Dir {
	t.Helper()
	d, err := Create([]string{base}, info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return d
}

// die is the end of a server that had no time to remove anything.
func (d *Dir) die() { d.closeFiles() }

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(b)
	}
	return got
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, e.Name())
	}
	return got
}

func TestFiles(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	d := create(t, base, example)
	want := map[string]string{
		"br0": "/u=rw\n", "br1": `/l\0401=ro+wh` + "\n", "br2": `/l\0122\134=ro+wh` + "\n",
		"brid0": "64\n", "brid1": "65\n", "brid2": "66\n",
		"options": "lowerdir=/l 1:/l2,upperdir=/u\n", "pid": "1234\n", "mountpoint": `/merged\040here` + "\n",
	}
	if got := contents(t, filepath.Join(base, "si_"+d.ID)); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if err := d.Write("requests", "INIT 1\n"); err != nil {
		t.Fatal(err)
	}
	want["requests"] = "INIT 1\n"
	if got := contents(t, filepath.Join(base, "si_"+d.ID)); !reflect.DeepEqual(got, want) {
		t.Errorf("with requests: got %q\nwant %q", got, want)
	}
}

func TestListReadsWhatCreateWrote(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	other := example
	other.Mountpoint = "/a"
	d1, d2 := create(t, base, example), create(t, base, other)
	got, err := List([]string{filepath.Join(base, "absent"), base})
	if err != nil {
		t.Fatal(err)
	}
	want := []Info{other, example}
	want[0].ID, want[1].ID = d2.ID, d1.ID
	for i := range want {
		want[i].Path = filepath.Join(base, "si_"+want[i].ID)
		want[i].Branches = slices.Clone(want[i].Branches)
		for j := range want[i].Branches {
			want[i].Branches[j].ID = 64 + j
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestListen(t *testing.T) {
	base := filepath.Join(t.TempDir(), strings.Repeat("long", 50)) // longer than an address may be
	d := create(t, base, example)
	fd, err := d.Listen("figures")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	list, err := List([]string{base})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d mounts, %v", len(list), err)
	}
	st, err := os.Stat(filepath.Join(list[0].Path, "figures"))
	if err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	dir, err := os.Open(list[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/figures", dir.Fd())}
	if err := unix.Connect(client, address); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
}

func TestRemove(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	d := create(t, base, example)
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := entries(t, base); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestStale(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	dead, live := create(t, base, example), create(t, base, example)
	dead.die()
	// A server that died while it built its directory leaves one, too.
	if err := os.Mkdir(filepath.Join(base, tmpPrefix+"0123"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Not ours: left alone.
	if err := os.Mkdir(filepath.Join(base, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := List([]string{base})
	if err != nil || len(list) != 1 || list[0].ID != live.ID {
		t.Errorf("listed %+v, %v; want %s only", list, err, live.ID)
	}
	if _, err := os.Stat(filepath.Join(base, "si_"+dead.ID)); err != nil {
		t.Errorf("list removed the stale one: %v", err)
	}
	next := create(t, base, example)
	want := []string{"other", "si_" + live.ID, "si_" + next.ID}
	slices.Sort(want)
	if got := entries(t, base); !slices.Equal(got, want) {
		t.Errorf("after the next mount: %q, want %q", got, want)
	}
}

// TestStaleWhileListed: whoever lists mounts has the lock of what a dead server has left for a moment. Of two who would remove it one does
// so nevertheless.
func TestStaleWhileListed(t *testing.T) {
	old := listerPatience
	listerPatience = time.Minute
	defer func() { listerPatience = old }()
	base := filepath.Join(t.TempDir(), "laminafs")
	dead := create(t, base, example)
	dead.die()
	open := func() *os.File {
		f, err := os.Open(filepath.Join(base, prefix+dead.ID))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	lister := open()
	if err := unix.Flock(int(lister.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	won := make(chan bool)
	for range 2 {
		f := open()
		defer f.Close()
		go func() { won <- left(f) }()
	}
	<-time.After(20 * time.Millisecond)
	lister.Close()
	if one, two := <-won, <-won; one == two {
		t.Errorf("it is taken by both, or by none: %v", one)
	}
	// Of one that lives nobody waits for the lock.
	live := create(t, base, example)
	f, err := os.Open(filepath.Join(base, prefix+live.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left(f) {
		t.Error("the lock of a mount that lives was taken")
	}
}

func TestBases(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	want := []string{"/run/user/7/laminafs"}
	if os.Geteuid() == 0 {
		want = []string{"/run/laminafs", "/run/user/7/laminafs"}
	}
	if got := Bases(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	if got := Bases(); slices.ContainsFunc(got, func(s string) bool { return !filepath.IsAbs(s) }) {
		t.Errorf("a relative XDG_RUNTIME_DIR is taken: %q", got)
	}
}

func TestNextBaseWhereOneCannotBe(t *testing.T) {
	dir := t.TempDir()
	d, err := Create([]string{filepath.Join(dir, "absent", "x"), filepath.Join(dir, "here")}, example)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Remove()
	if got := entries(t, filepath.Join(dir, "here")); !slices.Equal(got, []string{"si_" + d.ID}) {
		t.Errorf("got %q", got)
	}
	if _, err := Create(nil, example); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a base: %v", err)
	}
}

// Mounts that come and go at once neither see half of another nor remove a live one.
func TestMany(t *testing.T) {
	base := filepath.Join(t.TempDir(), "laminafs")
	const workers, rounds = 8, 20
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				d, err := Create([]string{base}, example)
				if err != nil {
					t.Errorf("create: %v", err)
					return
				}
				list, err := List([]string{base})
				if err != nil {
					t.Errorf("list: %v", err)
				}
				if !slices.ContainsFunc(list, func(i Info) bool { return i.ID == d.ID && len(i.Branches) == 3 }) {
					t.Errorf("%s is not listed whole", d.ID)
				}
				if err := d.Remove(); err != nil {
					t.Errorf("remove: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if left := entries(t, base); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestEscape(t *testing.T) {
	for path, want := range map[string]string{
		"/a/b": "/a/b", "/a b": `/a\040b`, "/\t\n\x7f\\": `/\011\012\177\134`, "/ü\xff": "/ü\xff",
	} {
		if got := Escape(path); got != want || sys.UnescapeOctal(got) != path {
			t.Errorf("Escape %q: %q, want %q; back: %q", path, got, want, sys.UnescapeOctal(got))
		}
	}
}

func TestModes(t *testing.T) {
	old := unix.Umask(0) // as the server runs
	defer unix.Umask(old)
	base := filepath.Join(t.TempDir(), "laminafs")
	d := create(t, base, example)
	for name, want := range map[string]fs.FileMode{".": 0o755, "pid": 0o644, "br0": 0o644} {
		fi, err := os.Stat(filepath.Join(base, "si_"+d.ID, name))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, fi.Mode().Perm(), err, want)
		}
	}
	if strings.Contains(d.ID, "/") || len(d.ID) != 16 {
		t.Errorf("id %q", d.ID)
	}
}

// The mount may end while its server is still telling of it.
func TestRemoveWhileListening(t *testing.T) {
	for range 50 {
		d := create(t, t.TempDir(), example)
		done := make(chan error)
		go func() {
			fd, err := d.Listen("socket")
			if err == nil {
				err = unix.Close(fd)
			}
			done <- err
		}()
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	}
}
