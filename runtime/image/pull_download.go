package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// downloadsAtOnce is how many layers are downloaded at a time: Docker's max-concurrent-downloads.
const downloadsAtOnce = 3

// config fetches and verifies the configuration.
func (p *puller) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	var b bytes.Buffer
	if err := p.fetch(ctx, d, &b, nil); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fetch downloads a blob, and verifies it. tell is told how many bytes there are.
func (p *puller) fetch(ctx context.Context, d ocispec.Descriptor, w io.Writer, tell func(n int64)) error {
	if tell == nil {
		tell = func(int64) {}
	}
	r := &blobReader{ctx: ctx, client: &http.Client{Transport: p.transport, CheckRedirect: checkRedirect}, repo: p.repo, d: d}
	defer r.Close()
	m := &meter{ctx: ctx, r: r, hash: sha256.New(), tell: tell}
	if _, err := io.CopyBuffer(onlyWriter{w}, onlyReader{m}, make([]byte, 128<<10)); err != nil {
		return err
	}
	return m.verify(&layerSource{digest: d.Digest})
}

// downloads are the layers of one image that are being fetched, each to a file of the transaction's.
type downloads struct {
	p       *puller
	t       *txn
	maxSize int64
	group   *errgroup.Group
	ctx     context.Context
	cancel  context.CancelFunc
	all     []*download
	by      map[digest.Digest]*download
	begun   chan struct{} // closed when all have been started
}

type download struct {
	d    ocispec.Descriptor
	name string
	path string
	done chan struct{}
	err  error // valid once done is closed
}

func (p *puller) newDownloads(ctx context.Context, t *txn, maxSize int64) *downloads {
	d := &downloads{p: p, t: t, maxSize: maxSize, by: map[digest.Digest]*download{}, begun: make(chan struct{}), group: &errgroup.Group{}}
	d.ctx, d.cancel = context.WithCancel(ctx)
	d.group.SetLimit(downloadsAtOnce)
	return d
}

// layer is a layer of the image; wanted says that it is not in the store. Several may be the same.
func (d *downloads) layer(desc ocispec.Descriptor, wanted bool) *layerSource {
	src := &layerSource{name: shortDigest(desc.Digest), size: desc.Size}
	if !wanted {
		return src
	}
	one, ok := d.by[desc.Digest]
	if !ok {
		one = &download{d: desc, name: src.name, path: filepath.Join(d.t.dir, "blobs", desc.Digest.Encoded()), done: make(chan struct{})}
		d.by[desc.Digest] = one
		d.all = append(d.all, one)
	}
	src.open = one.open
	return src
}

// start begins the downloads, the lowest layer first.
func (d *downloads) start() {
	for _, one := range d.all {
		d.p.progress.Update(one.name, "Pulling fs layer", 0, 0)
	}
	for _, one := range d.all[min(downloadsAtOnce, len(d.all)):] {
		d.p.progress.Update(one.name, "Waiting", 0, 0)
	}
	go func() {
		defer close(d.begun)
		for _, one := range d.all {
			d.group.Go(func() error { // waits for its turn
				defer close(one.done)
				one.err = d.fetch(one)
				return nil
			})
		}
	}()
}

// end stops what still runs, and waits for it.
func (d *downloads) end() {
	d.cancel()
	<-d.begun
	_ = d.group.Wait() // each has its own error
}

func (d *downloads) fetch(one *download) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	if one.d.Size > d.maxSize {
		return fmt.Errorf("it has %d bytes, and there is room for %d", one.d.Size, d.maxSize)
	}
	if err := os.MkdirAll(filepath.Dir(one.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(one.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	d.p.progress.Update(one.name, "Downloading", 0, one.d.Size)
	err = d.p.fetch(d.ctx, one.d, f, func(n int64) { d.p.progress.Update(one.name, "Downloading", n, one.d.Size) })
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(one.path) // it goes with its folder
		return err
	}
	d.p.progress.Update(one.name, "Download complete", one.d.Size, one.d.Size)
	return nil
}

// open waits for the download. It has the type of layerSource.open.
func (one *download) open(ctx context.Context) (io.ReadCloser, error) {
	select {
	case <-one.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if one.err != nil {
		return nil, one.err
	}
	return os.Open(one.path)
}
