package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeft: what cannot be removed of a container's layers is told of, and stops nobody, until it can be removed.
func TestLeft(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img := load(t, s, dockerArchive(t, "sh", []string{"a:1"}, layerTar(t, entry{name: "f", body: "abc"})))[0]
	m, err := s.NewMount("c1", img.ID)
	if err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(m.Upper, "busy")
	if err := os.Mkdir(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(t.TempDir(), busy, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	mounted := true
	unmount := func() {
		if dirs, _ := filepath.Glob(s.path("tmp/*/trash/*/diff/busy")); mounted && len(dirs) == 1 {
			busy = dirs[0]
		}
		if err := unix.Unmount(busy, 0); mounted && err != nil {
			t.Error(err)
		}
		mounted = false
	}
	defer unmount()

	if err := s.RemoveMount("c1"); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("a layer with a mount in it is removed: %v", err)
	}
	for range 2 {
		s, err := Open(s.Root())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Left(); !errors.Is(err, unix.EBUSY) || !strings.HasSuffix(err.Error(), "/busy: device or resource busy") {
			t.Errorf("left: %v", err)
		}
		if l := list(t, s, ListOptions{}); len(l) != 1 {
			t.Errorf("%d images", len(l))
		}
		if _, err := s.NewMount("c1", img.ID); err != nil {
			t.Errorf("the ID of what is removed: %v", err)
		} else if err := s.RemoveMount("c1"); err != nil {
			t.Error(err)
		}
	}
	unmount()
	if s, err = Open(s.Root()); err != nil || s.Left() != nil {
		t.Fatalf("%v, left: %v", err, s.Left())
	}
	if left, err := s.names("tmp"); err != nil || len(left) > 0 {
		t.Errorf("%q stay, %v", left, err)
	}
}
