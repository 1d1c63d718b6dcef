package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

// split unpacks a layer into a new directory and returns its tar-split file, and why the tar cannot be put together
// again, if it cannot.
func split(t testing.TB, layer []byte) (dir *os.File, file, lossy string, err error) {
	t.Helper()
	tmp := t.TempDir()
	t.Cleanup(func() {
		if err := sys.RemoveAll(sys.At{Dirfd: unix.AT_FDCWD, Name: tmp}); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(tmp, "diff")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = os.Open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	file = filepath.Join(tmp, tarSplitFile)
	w, err := newSplitWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = layertar.Apply(t.Context(), dir, bytes.NewReader(layer), layertar.Options{MaxSize: 4 << 20, Record: w})
	if cerr := w.close(); cerr != nil {
		t.Fatal(cerr)
	}
	lossy = w.lossy()
	if err == nil && lossy == "" && w.bytes() != int64(len(layer)) {
		lossy = "the sizes differ"
	}
	return dir, file, lossy, err
}

// splitLayers are tars of every shape that a tar-split file must give back.
func splitLayers(t testing.TB) map[string][]byte {
	plain := layerTar(t, entry{name: "d/"}, entry{name: "d/f", body: "data"}, entry{name: "d/empty"},
		entry{name: "d/l", h: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "f"}},
		entry{name: "h", h: tar.Header{Typeflag: tar.TypeLink, Linkname: "d/f"}},
		entry{name: "p", h: tar.Header{Typeflag: tar.TypeFifo}}, entry{name: ".wh.gone"},
		entry{name: "block", body: strings.Repeat("b", 512)})
	var global bytes.Buffer
	w := tar.NewWriter(&global)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "c"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"plain":         plain,
		"large":         layerTar(t, entry{name: "large", body: strings.Repeat("0123456789", 60_000)}),
		"empty":         layerTar(t),
		"PAX":           layerTar(t, entry{name: strings.Repeat("n", 200), body: "x", h: tar.Header{Format: tar.FormatPAX, PAXRecords: map[string]string{"LAMINA.a": "b"}}}),
		"GNU":           layerTar(t, entry{name: strings.Repeat("n/", 90) + "f", body: "x", h: tar.Header{Format: tar.FormatGNU}}),
		"not UTF-8":     layerTar(t, entry{name: "\xff\xfe", body: "x", h: tar.Header{Format: tar.FormatGNU}}),
		"global header": append(global.Bytes(), plain...),
		"unended":       plain[:len(plain)-1024],
		"padding":       append(bytes.Clone(plain), make([]byte, 9000)...),
		"rubbish":       append(bytes.Clone(plain), bytes.Repeat([]byte("x"), 3<<20)...),
	}
}

// The entries are those that tar-split's own disassembler makes.
func TestSplitIsTheLibrarys(t *testing.T) {
	for name, layer := range splitLayers(t) {
		t.Run(name, func(t *testing.T) {
			_, file, lossy, err := split(t, layer)
			if err != nil || lossy != "" {
				t.Fatalf("%q, %v", lossy, err)
			}
			r, err := openSplit(file)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			got := allEntries(t, r)

			var b bytes.Buffer
			in, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(layer), storage.NewJSONPacker(&b), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, in)
			}
			if err == nil {
				err = <-done
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := allEntries(t, storage.NewJSONUnpacker(&b)); !reflect.DeepEqual(got, want) {
				t.Errorf("entries %+v\nwant %+v", got, want)
			}
		})
	}
}

// A segment is written as package encoding/json would write it.
func TestSplitEncoding(t *testing.T) {
	file := filepath.Join(t.TempDir(), tarSplitFile)
	w, err := newSplitWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	for i, p := range [][]byte{{}, {0}, []byte("ab"), []byte("abc"), bytes.Repeat([]byte{0xff, '<', '>'}, 1000)} {
		if err := errors.Join(w.Segment(p), enc.Encode(storage.Entry{Type: storage.SegmentType, Payload: p, Position: i})); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	r, err := openSplit(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if got, err := io.ReadAll(r.z); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%q, %v\nwant %q", got, err, want.Bytes())
	}
}

// allEntries are those of a tar-split file, segments that follow each other joined.
func allEntries(t testing.TB, r storage.Unpacker) (list []storage.Entry) {
	t.Helper()
	for {
		e, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Position = 0
		if n := len(list); n > 0 && e.Type == storage.SegmentType && list[n-1].Type == storage.SegmentType {
			list[n-1].Payload = append(list[n-1].Payload, e.Payload...)
			continue
		}
		list = append(list, *e)
	}
}

// FuzzSplit: a tar that was unpacked is put together again bit for bit, or it is known that it cannot be.
func FuzzSplit(f *testing.F) {
	for _, layer := range splitLayers(f) {
		if len(layer) < 64<<10 {
			f.Add(layer)
		}
	}
	f.Add(sparseTar(f))
	f.Fuzz(func(t *testing.T, layer []byte) {
		dir, file, lossy, err := split(t, layer)
		if err != nil || lossy != "" {
			return
		}
		var b bytes.Buffer
		if err := writeTar(&b, file, int(dir.Fd())); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), layer) {
			t.Error("the tar is another one")
		}
	})
}
