package image

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/laminafs/lamina/whiteout"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

const tarSplitFile = "tar-split.json.gz"

// splitWriter writes tar-split.json.gz of a tar that is being unpacked: the entries that asm.NewInputTarStream makes,
// without a second reader of the tar, which would hand each header over from one goroutine to another.
//
// Who unpacks is who a load waits for. So what he tells is kept, many entries at a time, for a goroutine of its own (splitEncoder).
type splitWriter struct {
	data int64  // bytes of the entry at hand
	crc  isoCRC // of them

	batch *splitBatch
	full  chan *splitBatch
	empty chan *splitBatch
	enc   *splitEncoder
	done  chan struct{} // closed when enc has ended: err is set
	err   error
}

// splitBatch is what is told between two meetings of writer and encoder.
type splitBatch struct {
	entries []splitEntry
	text    []byte // payloads and names
}

// splitEntry is a storage.Entry. Its text is that of the batch up to end, from the end of the entry before.
type splitEntry struct {
	storage.Entry // of a file, without its name
	end           int
}

// splitBatchSize is how many bytes, or entries, of a batch are enough. One segment may have more.
const (
	splitBatchSize    = 64 << 10
	splitBatchEntries = 256
)

func newSplitWriter(file string) (*splitWriter, error) {
	enc, err := newSplitEncoder(file)
	if err != nil {
		return nil, err
	}
	w := &splitWriter{
		batch: &splitBatch{}, full: make(chan *splitBatch), empty: make(chan *splitBatch, 2),
		enc: enc, done: make(chan struct{}),
	}
	w.empty <- &splitBatch{}
	go func() {
		defer close(w.done)
		for b := range w.full {
			if w.err = enc.encode(b); w.err != nil {
				return
			}
			w.empty <- b
		}
	}()
	return w, nil
}

// flush hands the batch over. Errors: the encoder's.
func (w *splitWriter) flush() error {
	select {
	case w.full <- w.batch:
	case <-w.done:
		return w.err
	}
	select {
	case w.batch = <-w.empty:
	case <-w.done:
		return w.err
	}
	w.batch.entries, w.batch.text = w.batch.entries[:0], w.batch.text[:0]
	return nil
}

// close ends the file. What was noticed is known then.
func (w *splitWriter) close() error {
	_ = w.flush() // the encoder's error, which is known below
	close(w.full)
	<-w.done
	return errors.Join(w.err, w.enc.close())
}

// lossy is why the tar cannot be put together again from files; empty where it can. bytes is how many the entries stand for.
//
// Preconditions: close has returned.
func (w *splitWriter) lossy() string { return w.enc.lossy }
func (w *splitWriter) bytes() int64  { return w.enc.bytes }

// Segment implements layertar.Recorder.
func (w *splitWriter) Segment(p []byte) error {
	w.batch.text = append(w.batch.text, p...)
	return w.add(storage.Entry{Type: storage.SegmentType})
}

// Data implements layertar.Recorder.
func (w *splitWriter) Data(p []byte) {
	w.data += int64(len(p))
	w.crc.write(p)
}

// File implements layertar.Recorder.
func (w *splitWriter) File(name string) error {
	e := storage.Entry{Type: storage.FileType, Size: w.data}
	if w.data > 0 {
		e.Payload = binary.BigEndian.AppendUint64(nil, w.crc.sum())
	}
	w.data, w.crc = 0, isoCRC{}
	w.batch.text = append(w.batch.text, name...)
	return w.add(e)
}

// add ends an entry whose text was added.
func (w *splitWriter) add(e storage.Entry) error {
	w.batch.entries = append(w.batch.entries, splitEntry{e, len(w.batch.text)})
	if len(w.batch.text) < splitBatchSize && len(w.batch.entries) < splitBatchEntries {
		return nil
	}
	return w.flush()
}

// splitEncoder encodes and compresses entries.
//
// It keeps no names, so that its memory does not grow with them, and it notices where files on disk cannot give the
// tar back.
type splitEncoder struct {
	f   *os.File
	z   *gzip.Writer
	enc *json.Encoder

	line []byte // kept for its memory

	position int
	bytes    int64 // that the entries so far stand for
	seen     map[uint64]bool
	seed     maphash.Seed
	lossy    string // why the tar cannot be put together again from files; empty while it can
}

// splitCompressors are kept for half a megabyte that each has.
var splitCompressors = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // there is such a level
	}
	return z
}}

func newSplitEncoder(file string) (*splitEncoder, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	z := splitCompressors.Get().(*gzip.Writer)
	z.Reset(f)
	return &splitEncoder{f: f, z: z, enc: json.NewEncoder(z), seen: map[uint64]bool{}, seed: maphash.MakeSeed()}, nil
}

func (w *splitEncoder) close() error {
	err := w.z.Close()
	splitCompressors.Put(w.z)
	w.z = nil
	return errors.Join(err, w.f.Close())
}

// encode writes the entries of a batch.
func (w *splitEncoder) encode(b *splitBatch) error {
	begin := 0
	for i := range b.entries {
		e := &b.entries[i]
		text := b.text[begin:e.end]
		begin = e.end
		var err error
		if e.Type == storage.SegmentType {
			err = w.segment(text)
		} else {
			err = w.file(&e.Entry, string(text))
		}
		if err != nil {
			return err
		}
		w.position++
	}
	return nil
}

// segment writes an entry as package encoding/json does, which takes three times as long.
func (w *splitEncoder) segment(p []byte) error {
	w.bytes += int64(len(p))
	w.line = fmt.Appendf(w.line[:0], `{"type":%d,"payload":"`, storage.SegmentType)
	w.line = base64.StdEncoding.AppendEncode(w.line, p)
	w.line = fmt.Appendf(w.line, "\",\"position\":%d}\n", w.position)
	_, err := w.z.Write(w.line)
	return err
}

func (w *splitEncoder) file(e *storage.Entry, name string) error {
	w.check(name, e.Size)
	w.bytes += e.Size
	e.SetName(name)
	e.Position = w.position
	return w.enc.Encode(e)
}

// check notices a file whose data will not be found under its name: a later entry has replaced it or a directory on
// the way to it, or it is a mark, of which layers keep the name only.
func (w *splitEncoder) check(name string, size int64) {
	if w.lossy != "" {
		return
	}
	isDir := strings.HasSuffix(name, "/")
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return
	}
	if size > 0 && (whiteout.Reserved(clean) || strings.Contains(clean, "/"+whiteout.Prefix)) {
		w.lossy = fmt.Sprintf("the mark %q has data", name)
		return
	}
	// A hash may be that of another name, once in 2^64: the layer is then stored whole, which is right too.
	if dir, ok := w.seen[w.hash(clean)]; ok && !(dir && isDir) {
		w.lossy = fmt.Sprintf("there are several entries %q", name)
		return
	}
	w.seen[w.hash(clean)] = isDir
	for up := clean; ; {
		slash := strings.LastIndexByte(up, '/')
		if slash < 0 {
			break
		}
		up = up[:slash]
		h := w.hash(up)
		if _, ok := w.seen[h]; ok {
			break
		}
		w.seen[h] = true
	}
}

func (w *splitEncoder) hash(name string) uint64 { return maphash.String(w.seed, name) }

// splitReader reads tar-split.json.gz. It is a storage.Unpacker that keeps no names.
type splitReader struct {
	f   *os.File
	z   *gzip.Reader
	dec *json.Decoder
}

func openSplit(file string) (*splitReader, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		_ = f.Close() // read only
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &splitReader{f, z, json.NewDecoder(z)}, nil
}

func (r *splitReader) close() { _ = r.f.Close() } // read only

// Next implements storage.Unpacker.
func (r *splitReader) Next() (*storage.Entry, error) {
	e := &storage.Entry{}
	if err := r.dec.Decode(e); err != nil {
		return nil, err
	}
	return e, nil
}

// tarSize is the size in bytes of the tar that a tar-split file stands for.
func tarSize(file string) (int64, error) {
	r, err := openSplit(file)
	if err != nil {
		return 0, err
	}
	defer r.close()
	var size int64
	for {
		e, err := r.Next()
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		if e.Type == storage.FileType {
			size += e.Size
		} else {
			size += int64(len(e.Payload))
		}
	}
}

// writeTar puts a layer's tar together again, from its tar-split file and its directory open as dir.
func writeTar(w io.Writer, file string, dir int) error {
	r, err := openSplit(file)
	if err != nil {
		return err
	}
	defer r.close()
	return asm.WriteOutputTarStream(layerFiles(dir), r, w)
}

// layerFiles is a storage.FileGetter of the directory that it is open on.
type layerFiles int

// Get implements storage.FileGetter.
func (dir layerFiles) Get(name string) (io.ReadCloser, error) {
	clean := strings.Trim(path.Clean("/"+name), "/")
	fd, err := sys.OpenBeneath(int(dir), clean, unix.O_RDONLY|unix.O_NONBLOCK) // a fifo put there would block
	if err != nil {
		return nil, fmt.Errorf("open %q in the layer: %w", clean, err)
	}
	return os.NewFile(uintptr(fd), clean), nil
}

var (
	_ layertar.Recorder  = (*splitWriter)(nil)
	_ storage.Unpacker   = (*splitReader)(nil)
	_ storage.FileGetter = layerFiles(0)
)
