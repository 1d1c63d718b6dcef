package layertar_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// entry is one entry of a tar written for a test.
type entry struct {
	tar.Header
	data string
}

func file(name, data string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}, data}
}

func dir(name string, mode int64) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(typ byte, name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: typ, Linkname: target, Mode: 0o777}, ""}
}

// archive writes a tar of the entries.
func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newDir makes a directory to unpack into.
func newDir(t testing.TB) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path, openDir(t, path)
}

func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// apply unpacks the tar, and returns the directory.
func apply(t testing.TB, layer []byte, o layertar.Options) string {
	t.Helper()
	path, d := newDir(t)
	if _, err := layertar.Apply(t.Context(), d, bytes.NewReader(layer), o); err != nil {
		t.Fatal(err)
	}
	return path
}

func lstat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// TestAttributesSurvive: times to the nanosecond, of directories too and of those that were read-only before they got
// their children.
func TestAttributesSurvive(t *testing.T) {
	when := time.Unix(1234567890, 123456789)
	pax := func(e entry) entry {
		e.Format, e.ModTime, e.AccessTime = tar.FormatPAX, when, when.Add(time.Second)
		return e
	}
	path := apply(t, archive(t, pax(dir("d/", 0o555)), pax(dir("d/closed/", 0)), pax(file("d/closed/f", "data")),
		pax(file("d/g", "")), pax(link(tar.TypeSymlink, "d/l", strings.Repeat("x/", 200)))), layertar.Options{})
	for name, mode := range map[string]uint32{"d": unix.S_IFDIR | 0o555, "d/closed": unix.S_IFDIR, "d/g": unix.S_IFREG | 0o644,
		"d/l": unix.S_IFLNK | 0o777} {
		st := lstat(t, filepath.Join(path, name))
		if st.Mode != mode || st.Mtim.Nano() != when.UnixNano() || st.Atim.Nano() != when.UnixNano()+1e9 {
			t.Errorf("%s: mode %o, times %d %d", name, st.Mode, st.Atim.Nano(), st.Mtim.Nano())
		}
	}
}

// TestNewObjects: what is left to open(2) and mkdir(2) is as the tar says, whatever the umask and whichever group they
// give.
func TestNewObjects(t *testing.T) {
	var entries []entry
	want := map[string]uint32{}
	add := func(in string, uid, gid int) {
		for _, mode := range []int64{0o644, 0o755, 0o777, 0o666, 0o600, 0o400, 0, 0o640, 0o711, 0o4755, 0o2755, 0o1777} {
			f, d, l := file(fmt.Sprintf("%sf%o", in, mode), "x"), dir(fmt.Sprintf("%sd%o/", in, mode), mode), link(tar.TypeSymlink, fmt.Sprintf("%sl%o", in, mode), "x")
			f.Mode = mode
			want[f.Name], want[strings.TrimSuffix(d.Name, "/")], want[l.Name] = unix.S_IFREG|uint32(mode), unix.S_IFDIR|uint32(mode), unix.S_IFLNK|0o777
			sub := file(d.Name+"in", "x")
			want[sub.Name] = unix.S_IFREG | uint32(sub.Mode)
			for _, e := range []entry{f, d, l, sub} {
				e.Uid, e.Gid = uid, gid
				entries = append(entries, e)
			}
		}
	}
	uid, gid := os.Geteuid(), os.Getegid()
	add("", uid, gid)
	entries = append(entries, dir("s/", 0o2755))
	add("s/", uid, gid)
	layer := archive(t, entries...)
	for _, umask := range []int{0o022, 0, 0o077} {
		for _, mode := range []uint32{0o755, 0o2755} {
			t.Run(fmt.Sprintf("umask %o, root %o", umask, mode), func(t *testing.T) {
				path, d := newDir(t)
				if uid == 0 {
					must(t, os.Chown(path, 0, 1234))
				}
				must(t, unix.Chmod(path, mode))
				defer unix.Umask(unix.Umask(umask))
				_, err := layertar.Apply(t.Context(), d, bytes.NewReader(layer), layertar.Options{})
				must(t, err)
				for name, mode := range want {
					if st := lstat(t, filepath.Join(path, name)); st.Mode != mode || int(st.Uid) != uid || int(st.Gid) != gid {
						t.Errorf("%s: mode %o, owner %d:%d; want %o, %d:%d", name, st.Mode, st.Uid, st.Gid, mode, uid, gid)
					}
				}
			})
		}
	}
}
