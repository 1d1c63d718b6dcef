package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/laminafs/lamina/runtime/compression"
)

// peak is the memory in bytes that a load takes at most, whatever the image.
const peak = 150 << 20

// The worst that an archive can ask for at once: layers whose windows are the largest.
func TestMemoryOfALoad(t *testing.T) {
	t.Run("zstd", func(t *testing.T) {
		testMemoryOfALoad(t, func(layer []byte) []byte {
			var z bytes.Buffer
			w, err := zstd.NewWriter(&z, zstd.WithWindowSize(compression.Window), zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			// Without its size, so that the frame says its window.
			if _, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(layer)}); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return z.Bytes()
		})
	})
	t.Run("xz", func(t *testing.T) {
		if _, err := exec.LookPath("xz"); err != nil {
			t.Skip("needs xz")
		}
		testMemoryOfALoad(t, func(layer []byte) []byte {
			// A block begins with a dictionary of its own: each larger than the last, and filled.
			var z []byte
			for i, size := range []int{32, 48, 64} {
				part := layer[len(layer)*i/3 : len(layer)*(i+1)/3]
				cmd := exec.Command("xz", "-0", fmt.Sprintf("--lzma2=preset=0,dict=%dMiB", size))
				cmd.Stdin = bytes.NewReader(part)
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				z = append(z, out...)
			}
			return z
		})
	})
}

func testMemoryOfALoad(t *testing.T, compress func(layer []byte) []byte) {
	dir := t.TempDir()
	var layers []file
	var plain [][]byte
	for i := range 3 {
		layer := layerTar(t, entry{name: "zeros", body: string(make([]byte, compression.Window+80<<20))}, entry{name: fmt.Sprint(i)})
		layers = append(layers, file{name: fmt.Sprint(i), body: compress(layer)})
		plain = append(plain, layer)
	}
	m := marshal(t, []dockerManifest{{Config: "config", RepoTags: []string{"x:1"}, Layers: []string{"0", "1", "2"}}})
	layers = append(layers, file{name: "manifest.json", body: m}, file{name: "config", body: imageConfig(t, "c", plain...)})
	archive := filepath.Join(dir, "archive")
	if err := os.WriteFile(archive, archiveTar(t, layers...), 0o600); err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.Atoi(strings.TrimSpace(run(t, helperCommand(nil, filepath.Join(dir, "store"), "peak", archive))))
	if err != nil {
		t.Fatal(err)
	}
	rss := kib << 10
	t.Logf("%d MiB", rss>>20)
	if rss > peak {
		t.Errorf("a load takes %d bytes, more than %d", rss, peak)
	}
}

// Names of a layer are not kept.
func TestMemoryOfNames(t *testing.T) {
	w, err := newSplitWriter(filepath.Join(t.TempDir(), "split"))
	if err != nil {
		t.Fatal(err)
	}
	var before, after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)
	const names = 1_000_000
	for i := range names {
		if err := w.File(fmt.Sprintf("usr/share/some/long/path/that/layers/have/%d/%d", i/100, i)); err != nil {
			t.Fatal(err)
		}
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes a name", grown/names)
	if grown > 50*names {
		t.Errorf("%d names take %d bytes", names, grown)
	}
	if err := w.close(); err != nil || w.lossy() != "" {
		t.Error(err, w.lossy())
	}
}
