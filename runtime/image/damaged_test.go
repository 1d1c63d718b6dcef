package image

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// TestDamaged damages an image, and expects that the others are as they were, that none of its layers is taken from it,
// and that it goes with force.
func TestDamaged(t *testing.T) {
	base := layerTar(t, entry{name: "base", body: "1"})
	s := openStore(t)
	bad := load(t, s, dockerArchive(t, "bad", []string{"bad:1"}, base, layerTar(t, entry{name: "top", body: "2"})))[0].ID
	good := load(t, s, dockerArchive(t, "good", []string{"good:1"}, base))[0].ID
	third := load(t, s, dockerArchive(t, "third", []string{"third:1"}, layerTar(t, entry{name: "third", body: "3"})))[0].ID
	layers := func() []string {
		names, err := s.names("layerdb/sha256")
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	var told []string
	s.Damaged = func(d *DamagedError) { told = append(told, d.Error()) }
	expect := func(op string, want ...digest.Digest) {
		t.Helper()
		told = nil
		list, err := s.List(ListOptions{SharedSize: true})
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		for _, id := range want {
			i := slices.IndexFunc(list, func(sum imagetypes.Summary) bool { return sum.ID == string(id) })
			if i < 0 {
				t.Errorf("%s: %s is not listed", op, id)
				continue
			}
			list = slices.Delete(list, i, i+1)
		}
		if len(list) > 0 {
			t.Errorf("%s: listed too: %v", op, list)
		}
		if _, err := s.DiskUsage(); err != nil {
			t.Errorf("%s: disk usage: %v", op, err)
		}
	}
	path := s.path(contentPath(bad))
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("damaged", good, third)
	if len(told) == 0 || !strings.Contains(told[0], path) || !strings.Contains(told[0], short(bad.Encoded())) {
		t.Errorf("told of %q, want %s", told, path)
	}
	var d *DamagedError
	if _, err := s.Get("bad:1"); !errors.As(err, &d) || d.Path != path {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Get("good:1"); err != nil {
		t.Errorf("get another: %v", err)
	}
	before := layers()
	if _, err := s.Remove("third:1", RemoveOptions{}); err != nil {
		t.Errorf("remove another: %v", err)
	}
	if _, err := s.Prune(PruneOptions{All: true}); err != nil {
		t.Errorf("prune: %v", err)
	}
	if after := layers(); !slices.Equal(before, after) {
		t.Errorf("layers %q are left of %q: nobody knows which of them it needs", after, before)
	}
	expect("pruned")
	if _, err := s.Remove("bad:1", RemoveOptions{}); !errors.As(err, &d) {
		t.Errorf("remove it without force: %v", err)
	}
	if _, err := s.Remove("bad:1", RemoveOptions{Force: true}); err != nil {
		t.Errorf("remove it: %v", err)
	}
	if left := layers(); len(left) > 0 || s.exists(contentPath(bad)) {
		t.Errorf("left: %q", left)
	}
	expect("removed")
	if told != nil {
		t.Errorf("told of %q", told)
	}
	s.checkInvariants(t)
}

// TestDamagedLayer damages the size of a layer, which only those who want it miss.
func TestDamagedLayer(t *testing.T) {
	s := openStore(t)
	img := load(t, s, dockerArchive(t, "c", []string{"x:y"}, layerTar(t, entry{name: "f", body: "1"})))[0].ID
	got, err := s.Get(string(img))
	if err != nil {
		t.Fatal(err)
	}
	path := s.path(chainPath(got.Layer()), "size")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var told string
	s.Damaged = func(d *DamagedError) { told = d.Error() }
	if list, err := s.List(ListOptions{}); err != nil || len(list) != 1 || !strings.Contains(told, path) {
		t.Errorf("%v, %v, told of %q", list, err, told)
	}
	if _, err := s.DiskUsage(); err != nil {
		t.Error(err)
	}
	if _, err := s.Inspect("x:y"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("inspect: %v, want %s in it", err, path)
	}
}

// TestDamagedCacheID: a layer of which it is not known where it is takes no other one with it.
func TestDamagedCacheID(t *testing.T) {
	s := openStore(t)
	img := load(t, s, dockerArchive(t, "c", []string{"x:y"}, layerTar(t, entry{name: "f", body: "1"})))[0].ID
	got, err := s.Get(string(img))
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.names("layers")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewMount("container", img); err != nil {
		t.Fatal(err)
	}
	path := s.path(chainPath(got.Layer()), "cache-id")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveMount("container"); err != nil {
		t.Errorf("the container's layers: %v", err)
	}
	if _, err := s.Remove("x:y", RemoveOptions{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("remove: %v, want %s in it", err, path)
	}
	if after, err := s.names("layers"); err != nil || !slices.Equal(before, after) {
		t.Errorf("layers %v, then %v, %v", before, after, err)
	}
}
