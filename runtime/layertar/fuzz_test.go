package layertar_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// FuzzApply: whatever the bytes, nothing beside the layer changes, nothing grows beyond the limits, what was unpacked
// can be removed, and packed, and comes out of that as it was.
func FuzzApply(f *testing.F) {
	seeds := [][]byte{
		archive(f, file("a", "data"), dir("d/", 0), file("d/x", ""), link(tar.TypeLink, "d/y", "a"), link(tar.TypeSymlink, "l", "..")),
		archive(f, link(tar.TypeSymlink, "l", ".."), file("l/victim", "new")), archive(f, file("../victim", "new")),
		archive(f, link(tar.TypeLink, "x", "../victim")), archive(f, dir("./", 0o700), dir("d/", 0o111), file("d/.wh.x", ""), file("d/.wh..wh..opq", "")),
		archive(f, link(tar.TypeFifo, "p", ""), file("p", "file"), dir("p/", 0o755), file("p/q", "")),
		unended(archive(f, file(strings.Repeat("n", 200), "x"))), patch(f, file("a", "name"), offType, "L"),
		patch(f, file("a", ""), offSize, "\x80\x00\x00\x00\x7f\xff\xff\xff"), patch(f, file("a", "0123456789"), offType, "S"),
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, layer []byte) {
		outer := t.TempDir()
		path := filepath.Join(outer, "layer")
		victim := filepath.Join(outer, "victim")
		must(t, os.Mkdir(path, 0o755), os.WriteFile(victim, []byte("old"), 0o600))
		d := openDir(t, path)
		o := layertar.Options{MaxSize: 4 << 20, MaxEntries: 1000}
		size, err := layertar.Apply(t.Context(), d, bytes.NewReader(layer), o)
		if got, rerr := os.ReadFile(victim); string(got) != "old" || rerr != nil {
			t.Fatalf("the file beside the layer is %q, %v", got, rerr)
		}
		entries, rerr := os.ReadDir(outer)
		must(t, rerr)
		if len(entries) != 2 {
			t.Fatalf("beside the layer there is %v", entries)
		}
		if size < 0 || size > o.MaxSize {
			t.Fatalf("size %d", size)
		}
		if err == nil && !hasOddities(t, path) {
			again := filepath.Join(outer, "again")
			must(t, os.Mkdir(again, 0o755))
			if _, err := layertar.Apply(t.Context(), openDir(t, again), bytes.NewReader(pack(t, path)), layertar.Options{}); err != nil {
				t.Fatalf("what was packed cannot be unpacked: %v", err)
			}
			// A time before the epoch or after 2446 is cut off by the filesystem; then it differs from itself no more.
			same(t, describe(t, again), describe(t, path))
		}
		must(t, sys.RemoveAll(sys.At{Dirfd: unix.AT_FDCWD, Name: path}))
	})
}

// hasOddities reports whether the layer has what Pack does not give back as it was: marks are made anew, internal
// names left out, and a device 0:0 is a whiteout.
func hasOddities(t testing.TB, path string) bool {
	for name, line := range describe(t, path) {
		if strings.Contains("/"+name, "/.wh.") || strings.Contains(line, "rdev=0:0") && strings.Contains(line, "mode=2") {
			return true
		}
	}
	return false
}

// FuzzOpen: no name opens anything but what is in the layer.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"a", "d/x", "../victim", "l/victim", "/etc/passwd", "", ".", "l", "d/../a", "d//./x", "\x00"} {
		f.Add(name)
	}
	path := apply(f, archive(f, file("a", "inside"), file("d/x", "inside"), link(tar.TypeSymlink, "l", ".."), link(tar.TypeSymlink, "e", "/etc")), layertar.Options{})
	must(f, os.WriteFile(filepath.Join(filepath.Dir(path), "victim"), []byte("outside"), 0o600))
	d := openDir(f, path)
	f.Fuzz(func(t *testing.T, name string) {
		file, err := layertar.Open(d, name)
		if err != nil {
			return
		}
		defer file.Close()
		content := make([]byte, 16)
		if n, _ := file.Read(content); string(content[:n]) != "inside" {
			t.Errorf("%q opened a file with %q", name, content[:n])
		}
	})
}
