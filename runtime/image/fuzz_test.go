package image

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
)

// FuzzLoad: an archive is loaded whole or refused, and nothing is left of one that is refused.
func FuzzLoad(f *testing.F) {
	a, b := layerTar(f, entry{name: "a", body: "1"}), layerTar(f, entry{name: "b/"}, entry{name: ".wh.a"})
	f.Add(dockerArchive(f, "c", []string{"x:1"}, a, b))
	f.Add(archiveTar(f, ociBlobs(f, withName("x"), imageConfig(f, "c", a), gz(f, a))...))
	f.Add(legacyArchive(f, func(map[string]*file) {}))
	f.Add(sparseTar(f))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		s, err := Open(filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := s.Load(context.Background(), LoadOptions{Stdin: bytes.NewReader(archive), MaxSize: 1 << 20})
		s.checkInvariants(t)
		for _, l := range loaded {
			if _, err := s.Get(string(l.ID)); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Prune(PruneOptions{All: true}); err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
		if left, _ := s.names("layers"); len(left) != 1 {
			t.Errorf("left %q after %v", left, err)
		}
	})
}
