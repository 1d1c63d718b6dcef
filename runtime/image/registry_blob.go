package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxFailures = 5       // in a row; a download that went on between two begins to count anew
	goneOn      = 1 << 20 // bytes: what counts as going on
)

// stall is how long a download may stand still before it is begun anew from where it is.
var stall = time.Minute

// blobReader downloads one blob. What breaks off is taken up again where it was. It gives as many bytes as the manifest
// says, or an error; that they are the right ones is for the reader to verify.
type blobReader struct {
	ctx    context.Context
	client *http.Client
	repo   name.Repository
	d      ocispec.Descriptor

	body     io.ReadCloser // nil: to be opened at off
	cancel   context.CancelFunc
	watch    *time.Timer // ends the request when it stands still
	off      int64
	failures int
	failedAt int64
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if err := b.ctx.Err(); err != nil {
			return 0, err
		}
		if b.body == nil {
			if b.off == b.d.Size {
				return 0, io.EOF
			}
			if err := b.open(); err != nil {
				if err = b.failed(err); err != nil {
					return 0, err
				}
				continue
			}
		}
		b.watch.Reset(stall)
		n, err := b.body.Read(p[:min(int64(len(p)), b.d.Size-b.off+1)]) // one more, to notice what is too long
		b.watch.Stop()
		if b.off += int64(n); b.off > b.d.Size {
			return 0, fmt.Errorf("it is larger than the %d bytes that the manifest says", b.d.Size)
		}
		if err != nil {
			b.Close()
			if errors.Is(err, context.Canceled) && b.ctx.Err() == nil {
				err = fmt.Errorf("nothing came for %v, after %d of %d bytes", stall, b.off, b.d.Size)
			}
			if err == io.EOF && b.off < b.d.Size {
				err = fmt.Errorf("it ends after %d of %d bytes: %w", b.off, b.d.Size, io.ErrUnexpectedEOF)
			}
			if err != io.EOF {
				err = b.failed(err)
			}
			if n == 0 && err == nil {
				continue
			}
		}
		return n, err
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	if b.body != nil {
		b.watch.Stop()
		b.cancel()
		_ = b.body.Close() // read only
		b.body = nil
	}
	return nil
}

// permanent is an error that another attempt would meet again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// failed waits before the next attempt, or says why there is none.
func (b *blobReader) failed(err error) error {
	if p, ok := errors.AsType[permanent](err); ok {
		return p.error
	}
	if b.off-b.failedAt >= goneOn {
		b.failures = 0
	}
	b.failedAt = b.off
	if b.failures++; b.failures >= maxFailures {
		return fmt.Errorf("%d attempts: %w", b.failures, err)
	}
	return wait(b.ctx, retryBackoff.Duration<<(b.failures-1))
}

// open asks for the blob from off on.
func (b *blobReader) open() error {
	u := url.URL{Scheme: b.repo.Scheme(), Host: b.repo.RegistryStr(), Path: "/v2/" + b.repo.RepositoryStr() + "/blobs/" + b.d.Digest.String()}
	ctx, cancel := context.WithCancel(context.WithValue(b.ctx, blobContext{}, true))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel()
		return permanent{err}
	}
	if b.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.client.Do(req)
	if err != nil {
		cancel()
		if isTransient(err) || b.off > 0 {
			return err
		}
		return permanent{err}
	}
	b.body, b.cancel, b.watch = resp.Body, cancel, time.AfterFunc(stall, cancel)
	if err := b.begin(resp); err != nil {
		b.Close()
		return err
	}
	return nil
}

// begin checks that an answer is what was asked for.
func (b *blobReader) begin(resp *http.Response) error {
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		if isTransient(err) {
			return err
		}
		return permanent{err}
	}
	size := b.d.Size
	if resp.StatusCode == http.StatusPartialContent {
		if at := fmt.Sprintf("bytes %d-", b.off); !strings.HasPrefix(resp.Header.Get("Content-Range"), at) {
			return permanent{fmt.Errorf("the registry answers with %q where bytes from %d on were asked for", resp.Header.Get("Content-Range"), b.off)}
		}
		size -= b.off
	}
	if resp.ContentLength >= 0 && resp.ContentLength != size {
		return permanent{fmt.Errorf("it has %d bytes, not %d as the manifest says", resp.ContentLength, size)}
	}
	if resp.StatusCode == http.StatusOK && b.off > 0 { // a registry that cannot begin in the middle
		for left := b.off; left > 0; {
			b.watch.Reset(stall)
			n, err := io.CopyN(io.Discard, resp.Body, min(left, 64<<10))
			if err != nil {
				return err
			}
			left -= n
		}
	}
	return nil
}
