package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Layers are unpacked at once. Those that do not say what a directory, or their root, is like have it from below, however
// long that takes; and an error of the lowest is the one that is told.
func TestLayersWaitForThoseBelow(t *testing.T) {
	lowest := []entry{{name: "./"}, {name: "d/"}}
	lowest[0].h.Mode, lowest[1].h.Mode = 0o711, 0o705
	for i := range 300 {
		lowest = append(lowest, entry{name: fmt.Sprintf("d/%d", i), body: strings.Repeat("x", 20_000)})
	}
	layers := [][]byte{layerTar(t, lowest...)}
	for i := range 2 * layersAtOnce {
		layers = append(layers, layerTar(t, entry{name: fmt.Sprintf("d/above%d", i)}))
	}
	s := openStore(t)
	img, err := s.Get(string(load(t, s, dockerArchive(t, "c", []string{"x:1"}, layers...))[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	for i, chain := range img.Chain {
		l, err := s.layer(chain)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{".": 0o711, "d": 0o705} {
			st, err := os.Stat(filepath.Join(s.path(layerPath(l.CacheID), "diff"), name))
			if err != nil || st.Mode().Perm() != want {
				t.Errorf("layer %d: %s: %v, %v; want %v", i, name, st.Mode(), err, want)
			}
		}
	}

	bad := dockerArchive(t, "c", []string{"x:2"}, layers...)
	copy(bad[strings.Index(string(bad), "xxxx"):], "yyyy")
	for range 5 {
		s := openStore(t)
		_, err := s.Load(context.Background(), LoadOptions{Stdin: strings.NewReader(string(bad))})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("1 of %d", len(layers))) || !strings.Contains(err.Error(), "diffID") {
			t.Errorf("error %v, want the lowest layer's", err)
		}
		s.checkInvariants(t)
	}
}
