package unionfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// merging is a union of lowers, each with a directory "d" that make has filled; no request has come yet.
func merging(t *testing.T, make ...func(d string)) *FS {
	t.Helper()
	var cfg Config
	for i, fill := range make {
		lower := filepath.Join(t.TempDir(), fmt.Sprint(i))
		d := filepath.Join(lower, "d")
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		fill(d)
		cfg.Lowers = append(cfg.Lowers, lower)
	}
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// lookD looks up d and returns its node and how many links it shows.
func lookD(t *testing.T, fs *FS) (*node, uint32) {
	t.Helper()
	var out fuse.EntryOut
	if s := fs.Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, "d", &out); s != fuse.OK || out.NodeId == 0 {
		t.Fatalf("lookup d: %v, node %d", s, out.NodeId)
	}
	return fs.nodes.get(out.NodeId), out.Attr.Nlink
}

func (x *index) names() (names []string) {
	for _, e := range x.entries {
		if !e.gone() {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	return names
}

func dirs(t *testing.T, names ...string) func(d string) {
	return func(d string) {
		for _, name := range names {
			if err := os.Mkdir(filepath.Join(d, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What is merged is listed as it is merged, with all marks, and shows what it does when it is listed by itself.
func TestMergedIsListed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers []func(d string)
		want   []string
	}{
		{"three", []func(string){dirs(t, "a"), dirs(t, "a", "b"), dirs(t, "c")}, []string{"a", "b", "c"}},
		{"an opaque file", []func(string){dirs(t, "a"), func(d string) {
			dirs(t, "b")(d)
			touch(t, filepath.Join(d, ".wh..wh..opq"))
		}, dirs(t, "c")}, []string{"a", "b"}},
		{"the older opaque file", []func(string){func(d string) {
			dirs(t, "a")(d)
			touch(t, filepath.Join(d, ".wh..opq"))
		}, dirs(t, "b")}, []string{"a"}},
		{"an opaque attribute", []func(string){dirs(t, "a"), func(d string) {
			dirs(t, "b")(d)
			setOpaque(t, d, "y")
		}, dirs(t, "c")}, []string{"a", "b"}},
		{"a whiteout hides below only", []func(string){func(d string) {
			dirs(t, "a")(d)
			touch(t, filepath.Join(d, ".wh.a"))
			touch(t, filepath.Join(d, ".wh.b"))
		}, dirs(t, "b", "c")}, []string{"a", "c"}},
		{"whiteouts by attribute", []func(string){func(d string) {
			dirs(t, "a")(d)
			setOpaque(t, d, "x")
			touch(t, filepath.Join(d, "b"))
			if err := unix.Setxattr(filepath.Join(d, "b"), "user.overlay.whiteout", []byte("y"), 0); err != nil {
				t.Fatal(err)
			}
		}, dirs(t, "b", "c")}, []string{"a", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fs := merging(t, tt.layers...)
			n, nlink := lookD(t, fs)
			early := n.dir.index
			if early == nil {
				t.Fatal("it has no index")
			}
			if got := early.names(); !slices.Equal(got, tt.want) {
				t.Errorf("merged: %q, want %q", got, tt.want)
			}
			if len(n.sources()) > 1 && nlink != uint32(2+len(tt.want)) {
				t.Errorf("%d links, want %d", nlink, 2+len(tt.want))
			}
			if got, want := fs.counts.indexed.Load(), int64(len(tt.want)+1); got != want { // and d
				t.Errorf("%d names counted, want %d", got, want)
			}
			n.dir.index.leave()
			n.dir.index = nil
			if err := fs.fill(n); err != nil {
				t.Fatal(err)
			}
			if got := n.dir.index.names(); !slices.Equal(got, tt.want) {
				t.Errorf("listed: %q, want %q", got, tt.want)
			}
			if n.dir.index.subdirs != early.subdirs {
				t.Errorf("%d directories in it, and %d when merged", n.dir.index.subdirs, early.subdirs)
			}
		})
	}
}

func setOpaque(t *testing.T, d, value string) {
	t.Helper()
	if err := unix.Setxattr(d, "user.overlay.opaque", []byte(value), 0); err != nil {
		t.Skipf("no user extended attributes here: %v", err)
	}
}

// A directory of many names is not listed because somebody looks at it, and its marks are found all the same.
func TestLargeMergedIsNotListed(t *testing.T) {
	fs := merging(t, dirs(t, "a"), func(d string) {
		for i := range 600 { // of 40 bytes each, and up to 800 are not large enough to be probed
			touch(t, filepath.Join(d, fmt.Sprintf("file-%d", i)))
		}
		touch(t, filepath.Join(d, ".wh..wh..opq"))
	}, dirs(t, "c"))
	p := fs.root
	p.dir.mu.Lock()
	err := fs.fill(p)
	if err != nil {
		t.Fatal(err)
	}
	n, err := fs.makeNode(p, p.dir.index.lookup("d"))
	p.dir.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if n.dir.index != nil {
		t.Errorf("%d names were read", len(n.dir.index.entries))
	}
	if got := len(n.sources()); got != 2 {
		t.Errorf("merged from %d layers, want 2: the second is opaque", got)
	}
	if err := fs.fill(n); err != nil || n.dir.index.visible != 601 {
		t.Errorf("%d names, %v; want 601", n.dir.index.visible, err)
	}
}

// The descriptor by which a layer's directory was listed stays only where something of it shows.
func TestNothingShowsNothingStaysOpen(t *testing.T) {
	fs := merging(t, dirs(t, "a"), func(string) {}, dirs(t, "a"), func(d string) { touch(t, filepath.Join(d, ".wh.z")) })
	n, _ := lookD(t, fs)
	for i, want := range []bool{true, false, true, false} {
		if got := n.sources()[i].fd.fd != 0; got != want {
			t.Errorf("layer %d: open %v, want %v", i+1, got, want)
		}
	}
}

// To cut a directory off from its lowers of which nobody has asked for a name, since it was forgotten after all in it was copied
// up, was a panic.
func TestCutOffWithoutIndex(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"l/d", "u/d", "w"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(Config{Lowers: []string{top + "/l"}, Upper: top + "/u", Work: top + "/w", StaticNlink: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	n, _ := lookD(t, fs)
	if n.dir.index != nil || n.pure() {
		t.Fatalf("index %v, of the upper alone: %v", n.dir.index, n.pure())
	}
	if err := fs.cutOff(n); err != nil || !n.pure() {
		t.Errorf("%v, of the upper alone: %v", err, n.pure())
	}
}
