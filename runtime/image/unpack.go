package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/compression"
	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// layerSource is a layer as it comes from outside.
type layerSource struct {
	name string // as messages call it

	// open returns the layer's bytes, compressed or not, from their beginning each time.
	open func(ctx context.Context) (io.ReadCloser, error)

	size   int64         // bytes that open gives; 0 where not known
	digest digest.Digest // of what open gives; empty where not known
	diffID digest.Digest // of the tar; empty where not known

	close func() error // nil where there is nothing to close
}

// layerStream is a layer being read, decompressed and verified.
type layerStream struct {
	*readAhead
	ready  chan struct{} // closed once it has the memory that it needs
	diffID digest.Digest // valid once Read has returned io.EOF
	bytes  int64         // of the tar; the same
}

// stream reads the layer ahead. What it gives is verified only once it has ended.
//
// after, where not nil, is the layer below: it gets its memory first. Otherwise one that waits for those below could
// have what they need.
func (t *txn) stream(ctx context.Context, src *layerSource, o *addOptions, status string, after *layerStream) *layerStream {
	s := &layerStream{ready: make(chan struct{})}
	s.readAhead = newReadAhead(ctx, func(ctx context.Context, give func(*[]byte) error) error {
		ready := sync.OnceFunc(func() { close(s.ready) })
		defer ready()
		raw, err := src.open(ctx)
		if err != nil {
			return err
		}
		defer raw.Close()
		if after != nil {
			select {
			case <-after.ready:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		in := &meter{r: raw, ctx: ctx, tell: func(n int64) { o.progress.Update(src.name, status, n, src.size) }}
		if src.digest != "" {
			in.hash = sha256.New()
		}
		z, err := compression.Open(ctx, in)
		if err != nil {
			return err
		}
		defer z.Close()
		ready()
		sum := sha256.New()
		n, err := copyChunks(give, &limit{r: z, left: o.maxSize}, sum)
		if err != nil {
			return err
		}
		// What follows the compressed stream is part of the blob.
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
		s.bytes, s.diffID = n, digest.NewDigest(digest.SHA256, sum)
		if err := in.verify(src); err != nil {
			return err
		}
		if src.diffID != "" && s.diffID != src.diffID {
			return fmt.Errorf("its diffID is %s, not %s as the image's configuration says", s.diffID, src.diffID)
		}
		return nil
	})
	return s
}

// onlyWriter hides ReadFrom, which would not use our buffer.
type onlyWriter struct{ io.Writer }

// meter counts and hashes what is read, and ends with its context.
type meter struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash // nil where it is not wanted
	n    int64
	told int64
	tell func(n int64)
}

// toldEvery is how many bytes are read between two messages.
const toldEvery = 512 << 10

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.hash != nil {
		m.hash.Write(p[:n])
	}
	if m.n-m.told >= toldEvery || err == io.EOF && m.n != m.told {
		m.told = m.n
		m.tell(m.n)
	}
	return n, err
}

func (m *meter) verify(src *layerSource) error {
	if m.hash == nil {
		return nil
	}
	if got := digest.NewDigest(digest.SHA256, m.hash); got != src.digest {
		return fmt.Errorf("its digest is %s, not %s as the manifest says", got, src.digest)
	}
	return nil
}

// limit fails once more than left bytes are read.
type limit struct {
	r    io.Reader
	left int64
}

func (l *limit) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, errTooLarge
	}
	return n, err
}

var errTooLarge = errors.New("it is larger than allowed once decompressed")

// onlyReader hides WriteTo.
type onlyReader struct{ io.Reader }

// unpack stages the files of a layer.
func (t *txn) unpack(ctx context.Context, l *stagedLayer, in *layerStream, lowers stagedLowers, o *addOptions) error {
	var err error
	if l.link, err = t.stageLayerFolder(l.CacheID); err != nil {
		return err
	}
	if err := t.stage("layerdb/"+l.CacheID+"/cache-id", []byte(l.CacheID)); err != nil {
		return err
	}
	if l.lossy, err = t.apply(ctx, l, in, lowers, o); err != nil {
		return err
	}
	l.DiffID = in.diffID
	return nil
}

// finish stages what is known of a layer that is unpacked, above its parent.
//
// A tar that cannot be put together again from the files that it has (a later entry replaces an earlier one, a sparse
// file) is read a second time, and stored whole beside them: alone, since two at once may need too much memory.
func (t *txn) finish(ctx context.Context, src *layerSource, l *stagedLayer, o *addOptions) error {
	if l.lossy {
		if err := t.storeWhole(ctx, src, l, o); err != nil {
			return err
		}
		o.progress.Update(src.name, o.done(), src.size, src.size)
	}
	l.Chain = l.DiffID
	if l.Parent != "" {
		l.Chain = chainIDs([]digest.Digest{l.Parent, l.DiffID})[1]
	}
	files := map[string]string{
		"layerdb/" + l.CacheID + "/diff":     string(l.DiffID),
		"layerdb/" + l.CacheID + "/size":     strconv.FormatInt(l.Size, 10),
		"layerdb/" + l.CacheID + "/parent":   string(l.Parent),
		"layers/" + l.CacheID + "/committed": "",
	}
	for name, text := range files {
		if text == "" && l.Parent == "" && filepath.Base(name) == "parent" {
			continue
		}
		if err := t.stage(name, []byte(text)); err != nil {
			return err
		}
	}
	return faultUnpacked.Hit()
}

// apply unpacks the layer, with its tar-split. lossy says that the tar cannot be put together again.
func (t *txn) apply(ctx context.Context, l *stagedLayer, in *layerStream, lowers stagedLowers, o *addOptions) (lossy bool, err error) {
	dir, err := t.openDiff(l.CacheID)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	w, err := newSplitWriter(t.splitFile(l))
	if err != nil {
		return false, err
	}
	opts := layertar.Options{Owners: o.owners, MaxSize: o.maxSize, Record: w}
	if !lowers.none() {
		var open []*os.File
		defer func() { closeAll(open) }()
		opts.Lowers = func() (_ []*os.File, err error) {
			open, err = lowers.open(ctx)
			return open, err
		}
		opts.Root = func(fd int) error { return lowers.copyRoot(ctx, fd) }
	}
	l.Size, err = layertar.Apply(ctx, dir, in, opts)
	closeErr := w.close()
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		_, _ = io.Copy(io.Discard, onlyReader{in}) // a digest that differs tells more than where the damage shows
	}
	switch {
	case err != nil && in.failed() != nil:
		return false, in.failed() // without the entry that the reader happened to be at
	case err != nil:
		return false, err
	case closeErr != nil:
		return false, fmt.Errorf("write %s: %w", tarSplitFile, closeErr)
	}
	// Sizes differ where a file is stored as sparse.
	return w.lossy() != "" || w.bytes() != in.bytes, nil
}

func (t *txn) splitFile(l *stagedLayer) string {
	return filepath.Join(t.dir, "layerdb", l.CacheID, tarSplitFile)
}

// storeWhole writes a tar-split file that has all of the tar.
func (t *txn) storeWhole(ctx context.Context, src *layerSource, l *stagedLayer, o *addOptions) error {
	in := t.stream(ctx, &layerSource{name: src.name, open: src.open, diffID: l.DiffID}, o, "Extracting", nil)
	defer in.Close()
	w, err := newSplitWriter(t.splitFile(l))
	if err != nil {
		return err
	}
	for err == nil {
		var p []byte
		if p, err = in.Lend(chunkSize); err == nil {
			err = w.Segment(p)
		}
	}
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, w.close())
}

// stagedLowers are the layers below one that is being unpacked, which may be being unpacked themselves.
type stagedLowers struct {
	t      *txn
	layers []*stagedLayer // lowest first
	base   digest.Digest  // chainID of what is below these, and whole; empty for nothing
}

func (s stagedLowers) none() bool { return len(s.layers) == 0 && s.base == "" }

// open opens the directories, topmost first, once they are whole.
func (s stagedLowers) open(ctx context.Context) (dirs []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(dirs)
			dirs = nil
		}
	}()
	for i := range s.layers {
		d, err := s.openStaged(ctx, len(s.layers)-1-i)
		if err != nil {
			return dirs, err
		}
		dirs = append(dirs, d)
	}
	for c := s.base; c != ""; {
		d, parent, err := s.t.openLayer(c)
		if err != nil {
			return dirs, err
		}
		dirs, c = append(dirs, d), parent
	}
	return dirs, nil
}

// openStaged waits for one of the layers.
func (s stagedLowers) openStaged(ctx context.Context, i int) (*os.File, error) {
	select {
	case <-s.layers[i].unpacked:
		return s.t.openDiff(s.layers[i].CacheID)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// copyRoot gives the directory fd what the root directory of the layer below has: a tar need not tell what its own is
// like.
func (s stagedLowers) copyRoot(ctx context.Context, fd int) (err error) {
	var d *os.File
	if n := len(s.layers); n > 0 {
		d, err = s.openStaged(ctx, n-1)
	} else {
		d, _, err = s.t.openLayer(s.base)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return copyAttributes(sys.Fd(fd), sys.Fd(int(d.Fd())))
}

// openLayer opens the directory of a layer that is staged, or in the store.
func (t *txn) openLayer(chain digest.Digest) (dir *os.File, parent digest.Digest, err error) {
	path := ""
	if l, ok := t.chain[chain]; ok {
		path, parent = filepath.Join(t.dir, "layers", l.CacheID, "diff"), l.Parent
	} else {
		l, err := t.s.layer(chain)
		if err != nil {
			return nil, "", err
		}
		path, parent = t.s.path(layerPath(l.CacheID), "diff"), l.Parent
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), parent, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // read only
	}
}
