package image

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/opencontainers/go-digest"
)

// initTree lists what an init layer has, directories with "/" and links with their target.
func initTree(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			name += "/"
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			name += " -> " + to
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func loadOne(t *testing.T, s *Store, layers ...[]byte) digest.Digest {
	t.Helper()
	return load(t, s, dockerArchive(t, "c", []string{"x:latest"}, layers...))[0].ID
}

func dirEntry(name string) entry { return entry{name: name} }

func symlink(name, to string) entry {
	return entry{name: name, h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: to}}
}

const wholeInit = "dev/ dev/console dev/pts/ dev/shm/ etc/ etc/hostname etc/hosts etc/mtab -> /proc/mounts etc/resolv.conf proc/ sys/"

func TestInitLayer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers [][]entry // lowest first
		want   string
	}{
		{"an empty image", [][]entry{{dirEntry("x/")}}, wholeInit},
		{"directories of the image are not made again",
			[][]entry{{dirEntry("proc/"), dirEntry("sys/"), dirEntry("dev/"), dirEntry("dev/pts/"), dirEntry("etc/")}},
			"dev/ dev/console dev/shm/ etc/ etc/hostname etc/hosts etc/mtab -> /proc/mounts etc/resolv.conf"},
		{"files and links of the image are covered",
			[][]entry{{dirEntry("etc/"), {name: "etc/hosts", body: "own"}, symlink("etc/resolv.conf", "/run/x"), {name: "etc/mtab", body: "x"}}},
			wholeInit},
		{"no file in place of a directory", [][]entry{{dirEntry("etc/"), dirEntry("etc/hosts/")}},
			"dev/ dev/console dev/pts/ dev/shm/ etc/ etc/hostname etc/mtab -> /proc/mounts etc/resolv.conf proc/ sys/"},
		{"nothing where the directory is a link", [][]entry{{symlink("etc", "usr/etc"), {name: "dev", body: "x"}}}, "proc/ sys/"},
		{"what a higher layer deletes is not there",
			[][]entry{{dirEntry("proc/"), symlink("etc", "x")}, {{name: ".wh.etc"}, {name: ".wh.proc"}}}, wholeInit},
		{"what an opaque layer hides is not there", [][]entry{{dirEntry("proc/"), dirEntry("sys/")}, {{name: ".wh..wh..opq"}}}, wholeInit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			var layers [][]byte
			for _, l := range tt.layers {
				layers = append(layers, layerTar(t, l...))
			}
			m, err := s.NewMount("c1", loadOne(t, s, layers...))
			if err != nil {
				t.Fatal(err)
			}
			s.checkInvariants(t)
			if got := strings.Join(initTree(t, m.Init), " "); got != tt.want {
				t.Errorf("init layer\n\t%s, want\n\t%s", got, tt.want)
			}
			if got := initTree(t, m.Upper); len(got) > 0 {
				t.Errorf("the upper has %q", got)
			}
		})
	}
}

// The init layer must not change what the image says of its own directories.
func TestInitLayerKeepsAttributes(t *testing.T) {
	if os.Geteuid() != 0 || ownersMode() == layertar.Xattr {
		t.Skip("other owners need root, or a range of ids")
	}
	s := openStore(t)
	at := time.Unix(1e9, 123456789)
	h := func(mode int64, uid, gid int) tar.Header {
		return tar.Header{Mode: mode, Uid: uid, Gid: gid, ModTime: at, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.lamina": "kept"}}
	}
	id := loadOne(t, s,
		layerTar(t, entry{name: "etc/", h: h(0o700, 1, 2)}, entry{name: "dev/", h: h(0o1777, 3, 4)}, entry{name: "./", h: h(0o711, 5, 6)}),
		layerTar(t, entry{name: "etc/", h: h(0o2750, 7, 8)}, entry{name: "etc/x"}))
	m, err := s.NewMount("c1", id)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for name, e := range map[string]tar.Header{"etc": h(0o2750, 7, 8), "dev": h(0o1777, 3, 4), ".": h(0o711, 5, 6)} {
		dir := filepath.Join(t.TempDir(), "want")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{os.Chown(dir, e.Uid, e.Gid), setxattr(dir, "user.lamina", "kept"),
			os.Chmod(dir, fs.FileMode(e.Mode&0o777)|special(e.Mode)), os.Chtimes(dir, at, at)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		want[name] = statOf(t, dir)
		if got := statOf(t, filepath.Join(m.Init, name)); got != want[name] {
			t.Errorf("init layer's %s: %s, want %s", name, got, want[name])
		}
	}
	if got := statOf(t, m.Upper); got != want["."] {
		t.Errorf("upper's root: %s, want %s", got, want["."])
	}
}

func TestMountLifeCycle(t *testing.T) {
	s := openStore(t)
	a, b := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "22"})
	id := loadOne(t, s, a, b)
	m, err := s.NewMount("c1", id)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Mount("c1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(again.Lowers, ":") != strings.Join(m.Lowers, ":") || again.Upper != m.Upper || again.Init != m.Init {
		t.Errorf("Mount: %+v, NewMount: %+v", again, m)
	}
	if len(m.Lowers) != 3 {
		t.Fatalf("lowers %q, want the init layer and two", m.Lowers)
	}
	for i, name := range []string{"etc/hosts", "b", "a"} {
		if _, err := os.Stat(filepath.Join(m.LayersDir, m.Lowers[i], name)); err != nil {
			t.Errorf("lower %d: %v", i, err)
		}
	}
	for _, dir := range []string{m.Upper, m.Work, m.Merged} {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", dir, err)
		}
	}
	data := m.GraphDriver().Data
	if lowers := strings.Split(data["LowerDir"], ":"); len(lowers) != 3 || lowers[0] != m.Init || data["UpperDir"] != m.Upper {
		t.Errorf("GraphDriver %q", data)
	}
	parent, err := os.ReadFile(filepath.Join(s.Root(), "layerdb/mounts/c1/parent"))
	if img, _ := s.Get("x"); err != nil || string(parent) != string(img.Layer()) {
		t.Errorf("parent %q, %v", parent, err)
	}
	if _, err := s.NewMount("c1", id); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := s.NewMount("../c", id); err == nil {
		t.Error("a bad container ID is taken")
	}
	if _, err := s.NewMount("c2", digest.FromString("no")); !errors.Is(err, ErrNotFound) {
		t.Errorf("on no image: %v", err)
	}
	s.checkInvariants(t)

	// The image goes, its layers stay for the container, and go with it.
	if _, err := s.Remove("x", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if _, err := os.Stat(filepath.Join(m.LayersDir, m.Lowers[2], "a")); err != nil {
		t.Errorf("after rmi: %v", err)
	}
	for range 2 { // once more is no error
		if err := s.RemoveMount("c1"); err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
	}
	if got, _ := s.names("layers"); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
	if _, err := s.Mount("c1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Mount after RemoveMount: %v", err)
	}
}

func TestMountWithoutImage(t *testing.T) {
	s := openStore(t)
	host := t.TempDir()
	for _, d := range []string{"etc", "proc"} {
		if err := os.Mkdir(filepath.Join(host, d), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.NewMount("c1", "", host)
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if len(m.Lowers) != 1 {
		t.Errorf("lowers %q, want the init layer", m.Lowers)
	}
	if got := statOf(t, filepath.Join(m.Init, "etc")); got != statOf(t, filepath.Join(host, "etc")) {
		t.Errorf("etc: %s", got)
	}
	if _, err := os.Stat(filepath.Join(m.Init, "proc")); err == nil {
		t.Error("proc is made again")
	}
	if err := s.RemoveMount("c1"); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if _, err := s.NewMount("c2", ""); err != nil {
		t.Error(err)
	}
}

// A container may nest directories deeper than descriptors reach.
func TestRemoveDeepTree(t *testing.T) {
	s := openStore(t)
	m, err := s.NewMount("c1", "")
	if err != nil {
		t.Fatal(err)
	}
	makeDeep(t, m.Upper, 320)
	if err := s.RemoveMount("c1"); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
}

// What `lamina run --rm` pays the store: open it, make the layers of a container, remove them.
func BenchmarkMount(b *testing.B) {
	s := openStore(b)
	var layers [][]byte
	for i := range 10 {
		layers = append(layers, layerTar(b, entry{name: "etc/"}, entry{name: "etc/f", body: string(rune('a' + i))}))
	}
	id := load(b, s, dockerArchive(b, "c", []string{"x:latest"}, layers...))[0].ID
	for b.Loop() {
		s, err := Open(s.root)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.NewMount("c1", id); err != nil {
			b.Fatal(err)
		}
		if err := s.RemoveMount("c1"); err != nil {
			b.Fatal(err)
		}
	}
}
