package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/laminafs/lamina/runtime/compression"
	"github.com/opencontainers/go-digest"
)

// save returns an archive of an image.
func save(t testing.TB, s *Store, format Format, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(context.Background(), SaveOptions{Images: names, Format: format, Output: &b}); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	return b.Bytes()
}

// filesOf are the files of a tar by name.
func filesOf(t testing.TB, text []byte) map[string][]byte {
	t.Helper()
	m := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		if m[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// sparseTar is a tar with a file in GNU's PAX sparse format 1.0: data "x" at 4096 of 8192 bytes.
func sparseTar(t testing.TB) []byte {
	t.Helper()
	smap := "1\n4096\n1\n"
	body := smap + strings.Repeat("\x00", 512-len(smap)) + "x"
	text := layerTar(t, entry{name: "GNUSparseFile.0/hole", body: body, h: tar.Header{PAXRecords: map[string]string{
		"LAMINA.a": "1", "LAMINA.b": "0", "LAMINA.c": "hole", "LAMINA.d": "8192",
	}}})
	// archive/tar does not write these records: rename ours, lengths kept by names of the same length.
	pax := []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=hole", "GNU.sparse.realsize=8192"}
	var records string
	for _, p := range pax {
		n := len(p) + 3
		if n+1 >= 100 || n >= 10 {
			n = len(p) + 4
		}
		records += itoa(n) + " " + p + "\n"
	}
	at := bytes.Index(text, []byte("LAMINA.a"))
	block := at / 512 * 512
	copy(text[block:block+512], make([]byte, 512))
	copy(text[block:], records)
	// The PAX header's size field, and its checksum.
	header := text[block-512 : block]
	copy(header[124:136], []byte(oct(len(records), 11)+"\x00"))
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:156], oct(sum, 6)+"\x00 ")
	return text
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func oct(n, width int) string {
	s := ""
	for range width {
		s = string(rune('0'+n%8)) + s
		n /= 8
	}
	return s
}

func TestLayersComeBackBitForBit(t *testing.T) {
	plainTar := layerTar(t, entry{name: "d/"}, entry{name: "d/f", body: "data"})
	for name, layer := range map[string][]byte{
		"plain":                 plainTar,
		"no end blocks":         plainTar[:len(plainTar)-1024],
		"padded":                append(bytes.Clone(plainTar), make([]byte, 9216)...),
		"garbage after the end": append(bytes.Clone(plainTar), []byte("and more")...),
		"empty":                 make([]byte, 1024),
		"marks":                 layerTar(t, entry{name: "d/"}, entry{name: "d/.wh..wh..opq"}, entry{name: ".wh.gone"}),
		"a mark with data":      layerTar(t, entry{name: ".wh.gone", body: "why"}),
		"one file twice":        layerTar(t, entry{name: "f", body: "one"}, entry{name: "f", body: "two"}),
		"a file, then a link": layerTar(t, entry{name: "f", body: "one"},
			entry{name: "f", h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "x"}}),
		"a directory twice":                   layerTar(t, entry{name: "d/"}, entry{name: "d/f", body: "x"}, entry{name: "d/", h: tar.Header{Mode: 0o700}}),
		"an implied directory becomes a file": layerTar(t, entry{name: "d/f", body: "one"}, entry{name: "d", body: "two"}),
		"./ and ./ names":                     layerTar(t, entry{name: "./"}, entry{name: "./d/"}, entry{name: "./d//f", body: "x"}),
		"one name in two spellings":           layerTar(t, entry{name: "d/f", body: "one"}, entry{name: "./d/f", body: "two"}),
		"hard links":                          layerTar(t, entry{name: "a", body: "data"}, entry{name: "b", h: tar.Header{Typeflag: tar.TypeLink, Linkname: "a"}}),
		"names that are no UTF-8":             layerTar(t, entry{name: "caf\xe9", body: "x", h: tar.Header{Format: tar.FormatGNU}}),
		"long names": layerTar(t, entry{name: strings.Repeat("d/", 150) + "f", body: "x"},
			entry{name: strings.Repeat("n", 250), body: "y", h: tar.Header{Format: tar.FormatPAX}}),
		"a file that nobody may read": layerTar(t, entry{name: "f", body: "secret", h: tar.Header{Mode: 0o1}}),
		"sparse":                      sparseTar(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			load(t, s, dockerArchive(t, "c", []string{"x:y"}, layer))
			d := digest.FromBytes(layer)
			for _, f := range []Format{DockerArchive, OCIArchive} {
				if got := filesOf(t, save(t, s, f, "x:y"))["blobs/sha256/"+d.Encoded()]; !bytes.Equal(got, layer) {
					t.Errorf("%s: the layer came back as %d bytes, it has %d", f, len(got), len(layer))
				}
			}
		})
	}
}

func TestSaveAndLoadAgain(t *testing.T) {
	s := openStore(t)
	a, b := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "2"})
	load(t, s, dockerArchive(t, "one", []string{"r:1", "r:2", "other:latest"}, a))
	load(t, s, dockerArchive(t, "two", []string{"r:3"}, a, b))
	for _, format := range []Format{DockerArchive, OCIArchive} {
		text := save(t, s, format, "r", "other")
		if again := save(t, s, format, "r", "other"); !bytes.Equal(text, again) {
			t.Errorf("%s: two archives of the same images differ", format)
		}
		s2 := openStore(t)
		load(t, s2, text)
		want, err := s.List(ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s2.List(ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || len(want) != 2 {
			t.Fatalf("%s: %d images of %d", format, len(got), len(want))
		}
		for i := range want {
			if got[i].ID != want[i].ID || strings.Join(got[i].RepoTags, " ") != strings.Join(want[i].RepoTags, " ") {
				t.Errorf("%s: %s %q, want %s %q", format, got[i].ID, got[i].RepoTags, want[i].ID, want[i].RepoTags)
			}
		}
		if again := save(t, s2, format, "r", "other"); !bytes.Equal(text, again) {
			t.Errorf("%s: what was loaded is saved differently", format)
		}
	}
}

func TestSaveNoticesChangedFiles(t *testing.T) {
	s := openStore(t)
	load(t, s, dockerArchive(t, "c", []string{"x:latest"}, layerTar(t, entry{name: "f", body: "good"})))
	img, err := s.Get("x")
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.layer(img.Layer())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.path(layerPath(l.CacheID), "diff/f"), "evil")
	err = s.Save(context.Background(), SaveOptions{Images: []string{"x"}, Output: io.Discard})
	if err == nil || !strings.Contains(err.Error(), `"f"`) {
		t.Errorf("%v: want an error that names f", err)
	}
	s.checkInvariants(t)
}

// Layers that are read twice, each of which needs all the memory for zstd windows.
func TestLossyLayersWithLargeWindows(t *testing.T) {
	s := openStore(t)
	m := dockerManifest{Config: "config", RepoTags: []string{"x:1"}}
	var layers [][]byte
	var all []file
	for i := range 5 {
		layer := layerTar(t, entry{name: "f", body: fmt.Sprint(i)}, entry{name: "f", body: "again"})
		var z bytes.Buffer
		w, err := zstd.NewWriter(&z, zstd.WithWindowSize(compression.Window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the size of what is flushed is not known, the window is told
			if _, err := w.Write(layer[:len(layer)/2]); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			layer = append(layer[len(layer)/2:], layer[:len(layer)/2]...)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var h zstd.Header
		if err := h.Decode(z.Bytes()); err != nil || h.WindowSize != compression.Window {
			t.Fatalf("window %d, %v: want %d", h.WindowSize, err, compression.Window)
		}
		m.Layers = append(m.Layers, fmt.Sprint(i))
		layers = append(layers, layer)
		all = append(all, file{name: fmt.Sprint(i), body: z.Bytes()})
	}
	all = append(all, file{name: "config", body: imageConfig(t, "c", layers...)}, file{name: "manifest.json", body: marshal(t, []dockerManifest{m})})
	load(t, s, archiveTar(t, all...))
	got := filesOf(t, save(t, s, OCIArchive, "x:1"))
	for i, layer := range layers {
		if !bytes.Equal(got[blobName(digest.FromBytes(layer))], layer) {
			t.Errorf("layer %d does not come back", i)
		}
	}
}
