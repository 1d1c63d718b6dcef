package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Media types of layers, of manifests that are Docker's.
const (
	dockerLayerType     = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerPlainType     = "application/vnd.docker.image.rootfs.diff.tar"
	dockerZstdLayerType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// uploadsAtOnce is how many layers are compressed and uploaded at a time.
const uploadsAtOnce = 3

// PushOptions say how Push works.
type PushOptions struct {
	RegistryOptions
	AllTags  bool     // push all tags of the repository
	Progress Progress // nil is silent
}

// Pushed is an image that the registry has now.
type Pushed struct {
	Ref    reference.NamedTagged
	Digest digest.Digest // of its manifest
	Size   int64         // of its manifest, in bytes
}

// Push sends an image to the registry that its name says, under that name; "latest" where it has no tag.
//
// Layers that the registry is known to have, in this repository or in another, are not sent. An image that came from a
// registry goes back with the manifest that it came with, as far as its layers are had in that form; layers are
// otherwise compressed with gzip. The tar in it is the one that was loaded, bit for bit.
//
// Errors: ErrNotFound; they name the layer that could not be sent.
func (s *Store) Push(ctx context.Context, nameOfImage string, o PushOptions) ([]Pushed, error) {
	ref, err := reference.ParseNormalizedNamed(nameOfImage)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", nameOfImage, err)
	}
	refs, err := s.toPush(ref, o.AllTags)
	if err != nil {
		return nil, err
	}
	r, err := newRepository(ref, o.RegistryOptions)
	if err != nil {
		return nil, err
	}
	pusher, err := remote.NewPusher(remote.WithTransport(r.base), remote.WithAuthFromKeychain(r.o.Keychain), remote.WithUserAgent(userAgent),
		remote.WithRetryBackoff(retryBackoff), remote.WithRetryPredicate(isTransient))
	if err != nil {
		return nil, err
	}
	tr, err := r.login(ctx, transport.PushScope)
	if err != nil {
		return nil, fmt.Errorf("push %s: %w", reference.FamiliarName(ref), denied(err, ref, "push"))
	}
	var pushed []Pushed
	for _, ref := range refs {
		p := &pushRun{s: s, repository: r, pusher: pusher, transport: tr, ref: ref, progress: orSilent(o.Progress)}
		one, err := p.run(ctx)
		if err != nil {
			return pushed, fmt.Errorf("push %s: %w", reference.FamiliarString(ref), denied(err, ref, "push"))
		}
		pushed = append(pushed, *one)
	}
	return pushed, nil
}

// toPush lists the names to push, which all exist.
func (s *Store) toPush(ref reference.Named, all bool) (refs []reference.NamedTagged, err error) {
	if _, digested := ref.(reference.Digested); digested {
		return nil, errors.New("cannot push a digest reference")
	}
	if all && !reference.IsNameOnly(ref) {
		return nil, errors.New("tag can't be used with --all-tags/-a")
	}
	err = s.shared(func() error {
		r, err := s.readRepositories()
		if err != nil {
			return err
		}
		names := []reference.Named{reference.TagNameOnly(ref)}
		if all {
			names = r.named(ref)
		}
		for _, n := range names {
			tagged, ok := n.(reference.NamedTagged)
			if _, digested := n.(reference.Digested); !ok || digested {
				continue
			}
			if _, ok := r.get(tagged); !ok {
				return fmt.Errorf("%w: An image does not exist locally with the tag: %s", ErrNotFound, reference.FamiliarName(ref))
			}
			refs = append(refs, tagged)
		}
		if len(refs) == 0 {
			return fmt.Errorf("%w: An image does not exist locally with the tag: %s", ErrNotFound, reference.FamiliarName(ref))
		}
		return nil
	})
	return refs, err
}

// pushRun is the push of one image under one name.
type pushRun struct {
	s *Store
	*repository
	pusher    *remote.Pusher
	transport http.RoundTripper // logged in
	ref       reference.NamedTagged
	progress  Progress

	t    *txn
	img  *Image
	from *manifest // which it came with; nil where not known
}

func (p *pushRun) run(ctx context.Context) (_ *Pushed, err error) {
	p.t, err = p.s.begin(func(t *txn) error {
		var err error
		if p.img, err = p.s.find(p.ref.String()); err == nil && len(p.img.Chain) > 0 {
			err = t.hold(p.img.Layer())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.t.end()) }()
	p.from = p.s.knownManifest(p.img.ID)
	layers, err := p.layers(ctx)
	if err != nil {
		return nil, err
	}
	config := bytesLayer{p.img.RawConfig, types.DockerConfigJSON, p.img.ID}
	if err := p.pusher.Upload(ctx, p.repo, config); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	m, err := p.manifest(layers)
	if err != nil {
		return nil, err
	}
	if err := p.pusher.Put(ctx, p.repo.Tag(p.ref.Tag()), rawManifest{m}); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := p.s.remember(p.repo, p.img, m); err != nil {
		return nil, err
	}
	d := digest.FromBytes(m.raw)
	return &Pushed{Ref: p.ref, Digest: d, Size: int64(len(m.raw))}, p.s.addDigest(p.ref, d, p.img.ID)
}

// layers sees that the registry has all layers, and returns what they are there.
func (p *pushRun) layers(ctx context.Context) ([]ocispec.Descriptor, error) {
	layers := make([]ocispec.Descriptor, len(p.img.Chain))
	names := make([]string, len(layers))
	first := map[digest.Digest]int{} // of layers that are the same
	for i, diffID := range p.img.Spec.RootFS.DiffIDs {
		names[i] = shortDigest(diffID)
		if _, again := first[diffID]; !again {
			first[diffID] = i
			p.progress.Update(names[i], "Preparing", 0, 0)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadsAtOnce)
	for i, diffID := range p.img.Spec.RootFS.DiffIDs {
		if first[diffID] != i {
			continue
		}
		g.Go(func() error {
			var err error
			if layers[i], err = p.layer(ctx, i, names[i]); err != nil {
				return fmt.Errorf("layer %s (%d of %d): %w", names[i], i+1, len(layers), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, diffID := range p.img.Spec.RootFS.DiffIDs {
		layers[i] = layers[first[diffID]]
	}
	return layers, nil
}

// manifest makes the manifest: the one the image came with, where it says the same, else one of that kind, else
// Docker's.
func (p *pushRun) manifest(layers []ocispec.Descriptor) (*manifest, error) {
	if p.from != nil && sameBlobs(p.from.Layers, layers) {
		return p.from, nil
	}
	oci := p.from != nil && p.from.mediaType == ocispec.MediaTypeImageManifest
	for _, l := range layers {
		oci = oci || isZstd(l.MediaType) // which Docker's manifests cannot say
	}
	m := &manifest{mediaType: dockerManifestType}
	m.Config = ocispec.Descriptor{MediaType: dockerConfigType, Digest: p.img.ID, Size: int64(len(p.img.RawConfig))}
	if oci {
		m.mediaType, m.Config.MediaType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	}
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, m.mediaType
	m.Manifest.MediaType = m.mediaType
	m.Manifest.Layers = []ocispec.Descriptor{}
	for _, l := range layers {
		l.MediaType = layerType(l.MediaType, oci)
		m.Manifest.Layers = append(m.Manifest.Layers, ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	var err error
	m.raw, err = json.MarshalIndent(m.Manifest, "", "   ") // as Docker and its registry do
	return m, err
}

func sameBlobs(a, b []ocispec.Descriptor) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Digest != b[i].Digest {
			return false
		}
	}
	return true
}

func isZstd(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageLayerZstd || mediaType == dockerZstdLayerType
}

// layerType is how a manifest of the one or the other kind calls a layer.
func layerType(mediaType string, oci bool) string {
	plain := mediaType == ocispec.MediaTypeImageLayer || mediaType == dockerPlainType
	switch {
	case isZstd(mediaType):
		return ocispec.MediaTypeImageLayerZstd
	case plain && oci:
		return ocispec.MediaTypeImageLayer
	case plain:
		return dockerPlainType
	case oci:
		return ocispec.MediaTypeImageLayerGzip
	}
	return dockerLayerType
}

// rawManifest is a manifest as the registry library takes it.
type rawManifest struct{ m *manifest }

// RawManifest implements remote.Taggable.
func (r rawManifest) RawManifest() ([]byte, error) { return r.m.raw, nil }

// MediaType says how it is sent.
func (r rawManifest) MediaType() (types.MediaType, error) { return types.MediaType(r.m.mediaType), nil }

var _ remote.Taggable = rawManifest{}

// addDigest gives an image the name of its digest in a registry.
func (s *Store) addDigest(ref reference.Named, d digest.Digest, id digest.Digest) error {
	c, err := reference.WithDigest(reference.TrimNamed(ref), d)
	if err != nil {
		return err
	}
	t, err := s.begin(nil)
	if err != nil {
		return err
	}
	defer t.end()
	return t.commit(func() error {
		if !s.exists(contentPath(id)) {
			return nil // removed meanwhile
		}
		r, err := s.readRepositories()
		if err != nil {
			return err
		}
		r.set(c, id)
		return t.writeRepositories(r)
	})
}
