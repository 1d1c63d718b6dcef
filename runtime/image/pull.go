package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions say what Pull fetches, and how.
type PullOptions struct {
	RegistryOptions

	// Platform is OS[/ARCH[/VARIANT]], or ARCH. Default: this machine's, and where an image is for one platform only,
	// whatever that is.
	Platform string

	Progress Progress // nil is silent

	// MaxSize bounds, in bytes, each layer, decompressed. Default: nine tenths of the free space.
	MaxSize int64
}

// Pulled is an image that was pulled.
type Pulled struct {
	ID     digest.Digest
	Ref    reference.Named // the name, with its tag or digest
	Digest digest.Digest   // of what the registry has under that name: a manifest or an index

	// UpToDate says that the name had the same image already.
	UpToDate bool
}

// Pull fetches an image from its registry: name[:tag], "latest" where there is no tag, or name@digest. The image gets
// the name, and name@digest too.
//
// What a layer's download breaks off at is taken up again; layers that are there are not fetched. Layers are downloaded
// at once, verified, and then decompressed and unpacked in order. Nothing shows before all of it is verified.
//
// Errors name the layer that is bad; nothing is left of the image then.
func (s *Store) Pull(ctx context.Context, nameOfImage string, o PullOptions) (*Pulled, error) {
	ref, err := reference.ParseNormalizedNamed(nameOfImage)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", nameOfImage, err)
	}
	p, err := s.pull(ctx, reference.TagNameOnly(ref), o)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", reference.FamiliarString(reference.TagNameOnly(ref)), err)
	}
	return p, nil
}

// Tags lists the tags that a repository has in its registry, sorted.
func (s *Store) Tags(ctx context.Context, repositoryName string, o RegistryOptions) ([]string, error) {
	ref, err := reference.ParseNormalizedNamed(repositoryName)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", repositoryName, err)
	}
	r, err := newRepository(ref, o)
	if err != nil {
		return nil, err
	}
	tags, err := remote.List(r.repo, remote.WithContext(ctx), remote.WithTransport(r.base), remote.WithAuthFromKeychain(r.o.Keychain))
	slices.Sort(tags)
	return tags, denied(err, ref, "pull")
}

func (s *Store) pull(ctx context.Context, ref reference.Named, o PullOptions) (*Pulled, error) {
	p := &puller{s: s, ref: ref, progress: orSilent(o.Progress)}
	if o.Platform != "" {
		platform, err := platforms.Parse(o.Platform)
		if err != nil {
			return nil, fmt.Errorf("platform: %w", err)
		}
		p.platform = &platform
	}
	var err error
	if p.repository, err = newRepository(ref, o.RegistryOptions); err != nil {
		return nil, err
	}
	before, err := s.Get(ref.String())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if p.transport, err = p.login(ctx, transport.PullScope); err != nil {
		return nil, denied(err, ref, "pull")
	}
	m, err := p.resolve(ctx)
	if err != nil {
		return nil, denied(err, ref, "pull")
	}
	img, err := p.add(ctx, m, s.fill(addOptions{progress: o.Progress, unpacking: "Extracting", maxSize: o.MaxSize}))
	if err != nil {
		return nil, err
	}
	return &Pulled{ID: img.ID, Ref: ref, Digest: p.digest, UpToDate: before != nil && before.ID == img.ID}, nil
}

// puller is one Pull.
type puller struct {
	*repository
	s         *Store
	ref       reference.Named
	platform  *ocispec.Platform // nil for this machine's
	progress  Progress
	transport http.RoundTripper // logged in
	digest    digest.Digest     // of what the name stands for
	chosen    bool              // by its platform, from an index
}

// manifest is an image's manifest, as the registry has it.
type manifest struct {
	ocispec.Manifest
	raw       []byte
	mediaType string
}

// resolve finds the manifest for our platform.
func (p *puller) resolve(ctx context.Context) (*manifest, error) {
	at := p.reference(p.ref)
	var want *ocispec.Descriptor // what an index says of it
	for depth := 0; depth <= maxIndexDepth; depth++ {
		d, err := p.get(ctx, at, want)
		if err != nil {
			return nil, err
		}
		if p.digest == "" {
			p.digest = digest.Digest(d.Digest.String())
		}
		mediaType := string(d.MediaType)
		switch {
		case isIndex(mediaType):
			var index ocispec.Index
			if err := json.Unmarshal(d.Manifest, &index); err != nil {
				return nil, fmt.Errorf("index %s: %w", shortDigest(p.digest), err)
			}
			next, err := choose(index.Manifests, p.platform)
			if err != nil {
				return nil, err
			}
			if err := validDigest(next.Digest); err != nil {
				return nil, fmt.Errorf("index %s: %w", shortDigest(p.digest), err)
			}
			p.chosen = true
			want, at = &next, p.repo.Digest(next.Digest.String())
		case isManifest(mediaType):
			m := &manifest{raw: d.Manifest, mediaType: mediaType}
			err := json.Unmarshal(d.Manifest, &m.Manifest)
			var both struct{ Manifests json.RawMessage }
			if err == nil && json.Unmarshal(d.Manifest, &both) == nil && both.Manifests != nil {
				err = errors.New("it is an index as well") // and others might take it for that
			}
			if err != nil {
				return nil, fmt.Errorf("manifest %s: %w", shortDigest(digest.Digest(d.Digest.String())), err)
			}
			return m, m.check()
		case d.MediaType.IsSchema1():
			return nil, errors.New("the registry has this image as schema 1 only, which was given up in 2017; push it again")
		default:
			return nil, fmt.Errorf("%q is no image", mediaType)
		}
	}
	return nil, errors.New("too many indexes, one in the other")
}

// get fetches a manifest or an index. By digest it is verified by the library, and here by what an index says of it.
func (p *puller) get(ctx context.Context, at name.Reference, want *ocispec.Descriptor) (*remote.Descriptor, error) {
	d, err := remote.Get(at, remote.WithContext(ctx), remote.WithTransport(p.transport))
	if err != nil {
		return nil, err
	}
	if want != nil && want.Size != d.Size {
		return nil, fmt.Errorf("manifest %s has %d bytes, not %d as the index says", shortDigest(want.Digest), d.Size, want.Size)
	}
	// A registry, or a file server that stands in for one, may call it text: what it is stands in it too.
	if t := string(d.MediaType); !isIndex(t) && !isManifest(t) {
		var m struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(d.Manifest, &m) == nil && m.MediaType != "" {
			d.MediaType = types.MediaType(m.MediaType)
		}
	}
	return d, nil
}

// check refuses what is no image that can be unpacked.
func (m *manifest) check() error {
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfigType {
		return fmt.Errorf("it is no image, its configuration is %q", t)
	}
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("%d layers, more than %d", len(m.Layers), maxLayers)
	}
	if m.Config.Size > maxConfig {
		return fmt.Errorf("its configuration has %d bytes, more than %d", m.Config.Size, maxConfig)
	}
	for i, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		err := validDigest(d.Digest)
		if err == nil && d.Size < 0 {
			err = fmt.Errorf("its size is %d", d.Size)
		}
		if err != nil && i == 0 {
			return fmt.Errorf("configuration: %w", err)
		}
		if err != nil {
			return fmt.Errorf("layer %d of %d: %w", i, len(m.Layers), err)
		}
	}
	return nil
}

// choose finds the manifest for a platform in an index, nil for this machine's.
func choose(all []ocispec.Descriptor, platform *ocispec.Platform) (ocispec.Descriptor, error) {
	if platform == nil {
		return ours(all)
	}
	match := platforms.OnlyStrict(*platform)
	best := -1
	var others []string
	for i, d := range all {
		if isAttestation(d) || d.Platform == nil {
			continue
		}
		others = append(others, platforms.Format(*d.Platform))
		if match.Match(*d.Platform) && (best < 0 || match.Less(*d.Platform, *all[best].Platform)) {
			best = i
		}
	}
	if best < 0 {
		return ocispec.Descriptor{}, fmt.Errorf("no image for %s, only for %s", platforms.Format(*platform), strings.Join(others, ", "))
	}
	return all[best], nil
}

// add downloads, unpacks and shows the image.
func (p *puller) add(ctx context.Context, m *manifest, o *addOptions) (_ *Image, err error) {
	t, err := p.s.begin(nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.end()) }()
	src := &imageSource{refs: p.names()}
	if src.config, err = p.config(ctx, m.Config); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", shortDigest(m.Config.Digest), err)
	}
	img, err := parseConfig(src.config)
	if err != nil {
		return nil, err
	}
	if err := p.rightPlatform(img); err != nil {
		return nil, err
	}
	if len(m.Layers) != len(img.Chain) {
		return nil, fmt.Errorf("%d layers in its manifest, and %d in its configuration", len(m.Layers), len(img.Chain))
	}
	first, err := t.reuse(img.Chain)
	if err != nil {
		return nil, err
	}
	d := p.newDownloads(ctx, t, o.maxSize)
	defer d.end()
	for i, l := range m.Layers {
		src.layers = append(src.layers, d.layer(l, i >= first))
	}
	d.start()
	if _, err := t.addImage(ctx, src, o); err != nil {
		return nil, err
	}
	if err := t.commitImages(); err != nil {
		return nil, err
	}
	if err := p.s.remember(p.repo, img, m); err != nil {
		return nil, err
	}
	return img, nil
}

// names are those that the image gets: the one it was asked for by, and its digest.
func (p *puller) names() []reference.Named {
	refs := []reference.Named{p.ref}
	if c, err := reference.WithDigest(reference.TrimNamed(p.ref), p.digest); err == nil && c.String() != p.ref.String() {
		refs = append(refs, c)
	}
	if both, ok := p.ref.(reference.Canonical); ok {
		if _, tagged := p.ref.(reference.Tagged); tagged { // name:tag@digest: the tag may be another image by now
			c, err := reference.WithDigest(reference.TrimNamed(p.ref), both.Digest())
			if err == nil {
				refs = []reference.Named{c}
			}
		}
	}
	return refs
}

// rightPlatform checks an image that no index chose.
func (p *puller) rightPlatform(img *Image) error {
	if p.platform == nil || p.chosen || img.Spec.Architecture == "" {
		return nil
	}
	is := platforms.Normalize(img.Spec.Platform)
	if !platforms.OnlyStrict(*p.platform).Match(is) {
		return fmt.Errorf("no image for %s, only for %s", platforms.Format(*p.platform), platforms.Format(is))
	}
	return nil
}
