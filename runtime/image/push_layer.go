package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layer sees that the registry has one layer, and returns what it is there.
func (p *pushRun) layer(ctx context.Context, i int, shown string) (ocispec.Descriptor, error) {
	for _, known := range p.candidates(i) {
		how, err := p.have(ctx, known)
		if errors.Is(err, errNotThere) {
			continue
		}
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		p.progress.Update(shown, how, 0, 0)
		return ocispec.Descriptor{MediaType: known.MediaType, Digest: known.Digest, Size: known.Size}, nil
	}
	blob, err := p.compress(ctx, i, shown)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.Remove(blob.path)
	p.progress.Update(shown, "Pushing", 0, blob.d.Size)
	if err := p.pusher.Upload(ctx, p.repo, blob); err != nil {
		return ocispec.Descriptor{}, err
	}
	p.progress.Update(shown, "Pushed", blob.d.Size, blob.d.Size)
	return blob.d, nil
}

// maxAsked is how many blobs the registry is asked for, before a layer is sent.
const maxAsked = 5

// candidates are the blobs that a layer is known to be, of which the registry may have one: first that of the manifest
// which the image came with, then those seen in this repository, in this registry, and elsewhere.
func (p *pushRun) candidates(i int) []knownBlob {
	all := p.s.known(p.img.Spec.RootFS.DiffIDs[i])
	rank := func(k knownBlob) int {
		from, err := name.NewRepository(k.SourceRepository)
		switch {
		case err == nil && from.Name() == p.repo.Name():
			return 0
		case err == nil && from.RegistryStr() == p.repo.RegistryStr():
			return 1
		}
		return 2
	}
	var sorted []knownBlob
	for want := range 3 {
		for _, k := range all {
			if rank(k) == want && k.Size > 0 && k.MediaType != "" {
				sorted = append(sorted, k)
			}
		}
	}
	if p.from != nil && i < len(p.from.Layers) {
		l := p.from.Layers[i]
		var first, rest []knownBlob
		for _, k := range sorted {
			if k.Digest == l.Digest {
				first = append(first, k)
			} else {
				rest = append(rest, k)
			}
		}
		sorted = append(first, rest...)
	}
	return sorted[:min(len(sorted), maxAsked)]
}

// errNotThere says that a registry does not have a blob, which we do not have in that form either.
var errNotThere = errors.New("the registry does not have it")

// have sees whether the registry has the blob, or has it in another repository and lets it be mounted. It returns what
// is said of that.
func (p *pushRun) have(ctx context.Context, k knownBlob) (string, error) {
	if err := p.exists(ctx, k); !errors.Is(err, errNotThere) {
		return "Layer already exists", err
	}
	from, err := name.NewRepository(k.SourceRepository, p.nameOptions()...)
	if err != nil || from.RegistryStr() != p.repo.RegistryStr() || from.RepositoryStr() == p.repo.RepositoryStr() {
		return "", errNotThere
	}
	absent := &remote.MountableLayer{Layer: absentLayer{k}, Reference: from.Digest(k.Digest.String())}
	return "Mounted from " + from.RepositoryStr(), p.pusher.Upload(ctx, p.repo, absent)
}

func (p *pushRun) nameOptions() []name.Option {
	if p.o.Insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

// exists asks for a blob in the repository itself.
func (p *pushRun) exists(ctx context.Context, k knownBlob) error {
	l, err := remote.Layer(p.repo.Digest(k.Digest.String()), remote.WithContext(ctx), remote.WithTransport(p.transport))
	if err != nil {
		return err
	}
	there, err := l.(interface{ Exists() (bool, error) }).Exists()
	if err == nil && !there {
		err = errNotThere
	}
	return err
}

// absentLayer is a blob of which we have the digest only.
type absentLayer struct{ k knownBlob }

func (l absentLayer) Digest() (v1.Hash, error)             { return toHash(l.k.Digest) }
func (l absentLayer) DiffID() (v1.Hash, error)             { return v1.Hash{}, errNotThere }
func (l absentLayer) Compressed() (io.ReadCloser, error)   { return nil, errNotThere }
func (l absentLayer) Uncompressed() (io.ReadCloser, error) { return nil, errNotThere }
func (l absentLayer) Size() (int64, error)                 { return l.k.Size, nil }
func (l absentLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.k.MediaType), nil
}

func toHash(d digest.Digest) (v1.Hash, error) { return v1.NewHash(d.String()) }

// compress writes a layer, compressed, to a file of the transaction's. The same layer gives the same bytes.
func (p *pushRun) compress(ctx context.Context, i int, shown string) (*fileLayer, error) {
	diffID := p.img.Spec.RootFS.DiffIDs[i]
	l := &fileLayer{path: filepath.Join(p.t.dir, "push-"+diffID.Encoded()), p: p, shown: shown}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	size, err := tarSize(p.s.path(chainPath(p.img.Chain[i]), tarSplitFile))
	if err == nil {
		sum := sha256.New()
		z := gzip.NewWriter(io.MultiWriter(f, sum))
		m := &meterWriter{ctx: ctx, w: z, tell: func(n int64) { p.progress.Update(shown, "Compressing", n, size) }}
		if err = p.s.writeLayer(m, p.img.Chain[i]); err == nil {
			err = z.Close()
		}
		l.d = ocispec.Descriptor{MediaType: dockerLayerType, Digest: digest.NewDigest(digest.SHA256, sum)}
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		var st os.FileInfo
		if st, err = os.Stat(l.path); err == nil {
			l.d.Size = st.Size()
			return l, nil
		}
	}
	_ = os.Remove(l.path) // it goes with its folder
	return nil, err
}

// fileLayer is a compressed layer in a file.
type fileLayer struct {
	d     ocispec.Descriptor
	path  string
	p     *pushRun
	shown string
}

func (l *fileLayer) Digest() (v1.Hash, error)             { return toHash(l.d.Digest) }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return v1.Hash{}, errNotThere } // nobody asks
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return nil, errNotThere }
func (l *fileLayer) Size() (int64, error)                 { return l.d.Size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return types.MediaType(l.d.MediaType), nil }

// Compressed opens the file, from its beginning each time.
func (l *fileLayer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	m := &meter{ctx: context.Background(), r: f, tell: func(n int64) { l.p.progress.Update(l.shown, "Pushing", n, l.d.Size) }}
	return struct {
		io.Reader
		io.Closer
	}{m, f}, nil
}

// bytesLayer is a configuration, which registries take as they take layers.
type bytesLayer struct {
	b         []byte
	mediaType types.MediaType
	digest    digest.Digest
}

func (l bytesLayer) Digest() (v1.Hash, error) { return toHash(l.digest) }
func (l bytesLayer) DiffID() (v1.Hash, error) { return toHash(l.digest) }
func (l bytesLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.b)), nil
}
func (l bytesLayer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }
func (l bytesLayer) Size() (int64, error)                 { return int64(len(l.b)), nil }
func (l bytesLayer) MediaType() (types.MediaType, error)  { return l.mediaType, nil }

var _, _, _ v1.Layer = absentLayer{}, (*fileLayer)(nil), bytesLayer{}
