package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/vbatts/tar-split/tar/storage"
)

// peak is the memory in bytes that a load takes at most, whatever the image.
const peak = 150 << 20

// The worst that an archive can ask for at once: layers whose zstd windows are the largest.
func TestMemoryOfALoad(t *testing.T) {
	dir := t.TempDir()
	var layers []file
	var plain [][]byte
	for i := range 3 {
		const window = maxWindow
		layer := layerTar(t, entry{name: "zeros", body: string(make([]byte, maxWindow+1<<20))}, entry{name: fmt.Sprint(i)})
		var z bytes.Buffer
		w, err := zstd.NewWriter(&z, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
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
		layers = append(layers, file{name: fmt.Sprint(i), body: z.Bytes()})
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
		if _, err := w.AddEntry(storage.Entry{Type: storage.FileType, Name: fmt.Sprintf("usr/share/some/long/path/that/layers/have/%d/%d", i/100, i)}); err != nil {
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
	if w.lossy != "" {
		t.Error(w.lossy)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}
