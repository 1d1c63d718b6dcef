package layertar_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// recorded makes directories and files below dir, each with a record of the owner given. A name ends with "/" for a directory.
func recorded(t *testing.T, dir string, owners map[string]uint32) *os.File {
	t.Helper()
	for name, id := range owners {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := "0600:file"
		if name == "" || name[len(name)-1] == '/' {
			mode = "0700:dir"
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		setXattr(t, path, override.Containers, fmt.Sprintf("%d:%d:%s", id, id+1, mode))
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func setXattr(t *testing.T, path, name, value string) {
	t.Helper()
	if err := sys.Setxattr(sys.At{Dirfd: unix.AT_FDCWD, Name: path}, name, []byte(value), 0); err != nil {
		t.Fatalf("%s: %s: %v", path, name, err)
	}
}

// TestRecords: what is recorded is found where the union shows it, whatever was asked for before, and nothing else is.
func TestRecords(t *testing.T) {
	low := recorded(t, t.TempDir(), map[string]uint32{"": 0, "a/": 1, "a/f": 2, "a/g": 3, "b/": 4, "b/c/": 5, "b/c/f": 6, "o/": 7, "o/f": 8, "\xff/": 9, "\xff/\xfe": 10})
	up := recorded(t, t.TempDir(), map[string]uint32{"": 20, "a/f": 21, "moved/": 22, "o/": 23, "o/new": 24})
	setXattr(t, up.Name()+"/moved", "user.overlay.redirect", "/b")
	setXattr(t, up.Name()+"/o", "user.overlay.opaque", "y")
	setXattr(t, up.Name()+"/a", override.Containers, "nonsense")
	if err := os.WriteFile(up.Name()+"/a/plain", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := layertar.NewRecords(up, []*os.File{low})
	defer r.Close()
	const none = 1 << 31
	for range 2 {
		for _, at := range []struct {
			path string
			want uint32
		}{
			{"a/f", 21}, {"a/g", 3}, {"a", none}, {"", 20}, {"b/c/f", 6}, {"b/c", 5}, {"b/c/f/g", none}, {"b/c/none", none}, {"b/c/f", 6},
			{"moved/c/f", 6}, {"moved", 22}, {"/moved/c/", 5}, {"o/f", none}, {"o/new", 24}, {"o", 23}, {"\xff/\xfe", 10}, {"none/f", none},
			{"a/plain", none}, {"b", 4},
		} {
			s, ok, err := r.Of(at.path)
			if err != nil || ok != (at.want != none) || ok && (s.UID != at.want || s.GID != at.want+1) {
				t.Errorf("%q: %+v, %v, %v; want %d", at.path, s, ok, err, at.want)
			}
		}
	}
	// What goes away meanwhile has no record, and stops nobody.
	if _, ok, err := r.Of("o/new"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if err := os.RemoveAll(up.Name() + "/o"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"o/new", "o", "o/f"} {
		if s, ok, err := r.Of(path); err != nil || ok && path != "o" {
			t.Errorf("%q of a removed directory: %+v, %v, %v", path, s, ok, err)
		}
	}
	if s, ok, err := r.Of("a/f"); s.UID != 21 || !ok || err != nil {
		t.Errorf("behind that: %+v, %v, %v", s, ok, err)
	}
}

// TestNoRecords: a union of layers without any need not be asked.
func TestNoRecords(t *testing.T) {
	d := recorded(t, t.TempDir(), nil)
	if r := layertar.NewRecords(d, []*os.File{d}); r != nil {
		t.Error("records of a layer without any")
	}
}
