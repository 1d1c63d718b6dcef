package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types besides those of OCI.
const (
	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	dockerListType     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfigType   = "application/vnd.docker.container.image.v1+json"
)

// imageNameAnnotation is where containerd, docker and buildkit put the whole name of an image.
const imageNameAnnotation = "io.containerd.image.name"

// maxIndexDepth bounds indexes in indexes.
const maxIndexDepth = 4

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerListType
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifestType
}

// addOCI stages the images of an OCI layout.
// Source: OCI image-spec image-layout.md.
func (t *txn) addOCI(ctx context.Context, a archive, o *addOptions) error {
	text, err := small(a, "index.json")
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := parse(text, &index); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	tops, err := topmost(index.Manifests)
	if err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	for _, d := range tops {
		if err := t.addDescriptor(ctx, a, d, o); err != nil {
			return fmt.Errorf("manifest %s: %w", shortDigest(d.Digest), err)
		}
	}
	return nil
}

// topmost are the images that an index.json lists. Where manifests that are told apart by their platform only stand for
// one image, it is the one for this platform.
func topmost(all []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	byName := map[string][]ocispec.Descriptor{}
	var names []string
	for _, d := range all {
		if !isIndex(d.MediaType) && !isManifest(d.MediaType) || isAttestation(d) {
			continue
		}
		name := annotatedName(d)
		if len(byName[name]) == 0 {
			names = append(names, name)
		}
		byName[name] = append(byName[name], d)
	}
	var tops []ocispec.Descriptor
	for _, name := range names {
		same := byName[name]
		if len(same) > 1 && allHavePlatforms(same) {
			d, err := ours(same)
			if err != nil {
				return nil, err
			}
			same = []ocispec.Descriptor{d}
		}
		tops = append(tops, same...)
	}
	if len(tops) == 0 {
		return nil, errors.New("it lists no image")
	}
	return tops, nil
}

func allHavePlatforms(all []ocispec.Descriptor) bool {
	for _, d := range all {
		if d.Platform == nil || d.Platform.OS == "" {
			return false
		}
	}
	return true
}

// isAttestation reports whether a manifest says something about another image (buildkit's provenance and SBOM).
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != ""
}

// annotatedName is the name that an index gives, which may be a tag only.
func annotatedName(d ocispec.Descriptor) string {
	if name := d.Annotations[imageNameAnnotation]; name != "" {
		return name
	}
	return d.Annotations[ocispec.AnnotationRefName]
}

// ours chooses the manifest for this platform.
func ours(all []ocispec.Descriptor) (ocispec.Descriptor, error) {
	match := platforms.Default()
	best := -1
	var others []string
	for i, d := range all {
		if isAttestation(d) || d.Platform == nil {
			if d.Platform == nil && best < 0 && len(all) == 1 {
				best = i
			}
			continue
		}
		others = append(others, platforms.Format(*d.Platform))
		if match.Match(*d.Platform) && (best < 0 || match.Less(*d.Platform, *all[best].Platform)) {
			best = i
		}
	}
	if best < 0 && len(others) == 0 {
		return ocispec.Descriptor{}, fmt.Errorf("no image for %s: the index names none with its platform", platforms.Format(platforms.DefaultSpec()))
	}
	if best < 0 {
		return ocispec.Descriptor{}, fmt.Errorf("no image for %s, only for %s",
			platforms.Format(platforms.DefaultSpec()), strings.Join(others, ", "))
	}
	return all[best], nil
}

// addDescriptor stages the image that a descriptor of index.json stands for.
func (t *txn) addDescriptor(ctx context.Context, a archive, d ocispec.Descriptor, o *addOptions) error {
	name := annotatedName(d)
	for depth := 0; isIndex(d.MediaType); depth++ {
		if depth == maxIndexDepth {
			return errors.New("too many indexes, one in the other")
		}
		text, err := blob(a, d)
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		var index ocispec.Index
		if err := parse(text, &index); err != nil {
			return fmt.Errorf("index: %w", err)
		}
		if t := index.MediaType; t != "" && !isIndex(t) {
			return fmt.Errorf("it is no index, but %q", t)
		}
		if d, err = ours(index.Manifests); err != nil {
			return err
		}
	}
	if !isManifest(d.MediaType) {
		return fmt.Errorf("%q is no image", d.MediaType)
	}
	src, err := ociImage(a, d)
	if err != nil {
		return err
	}
	if name != "" {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
		if tagged, ok := reference.TagNameOnly(ref).(reference.NamedTagged); ok {
			if ref, err = reference.WithTag(reference.TrimNamed(ref), tagged.Tag()); err != nil {
				return fmt.Errorf("name %q: %w", name, err)
			}
			src.refs = append(src.refs, ref)
		}
	}
	_, err = t.addImage(ctx, src, o)
	return err
}

// ociImage reads a manifest and the configuration.
func ociImage(a archive, d ocispec.Descriptor) (*imageSource, error) {
	text, err := blob(a, d)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := parse(text, &m); err != nil {
		return nil, err
	}
	if t := m.MediaType; t != "" && !isManifest(t) {
		return nil, fmt.Errorf("it is no manifest, but %q", t)
	}
	if t := m.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfigType {
		return nil, fmt.Errorf("it is no image, its configuration is %q", t)
	}
	src := &imageSource{}
	if src.config, err = blob(a, m.Config); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	for i, l := range m.Layers {
		if err := validDigest(l.Digest); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
		}
		layer, err := layerIn(a, blobName(l.Digest))
		if errors.Is(err, errNotInArchive) {
			err = nil // it may be in the store
			layer = &layerSource{open: missing(blobName(l.Digest))}
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
		}
		if layer.size != l.Size && layer.size != 0 {
			return nil, fmt.Errorf("layer %s (%d of %d) has %d bytes, not %d as the manifest says",
				shortDigest(l.Digest), i+1, len(m.Layers), layer.size, l.Size)
		}
		layer.name, layer.digest = shortDigest(l.Digest), l.Digest
		src.layers = append(src.layers, layer)
	}
	return src, nil
}

// missing opens a layer that the archive does not have.
func missing(name string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		return nil, fmt.Errorf("%q: %w", name, errNotInArchive)
	}
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// blob reads a manifest or configuration, and verifies it.
func blob(a archive, d ocispec.Descriptor) ([]byte, error) {
	if err := validDigest(d.Digest); err != nil {
		return nil, err
	}
	b, err := small(a, blobName(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf("%s: its digest is %s", d.Digest, got)
	}
	if d.Size != int64(len(b)) {
		return nil, fmt.Errorf("%s: it has %d bytes, not %d as what names it says", d.Digest, len(b), d.Size)
	}
	return b, nil
}
