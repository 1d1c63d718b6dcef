package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Format is how Save writes images.
type Format string

const (
	// DockerArchive is what docker save writes since 25.0: a docker-archive that is an OCI layout as well.
	DockerArchive Format = "docker-archive"
	// OCIArchive is the tar of an OCI layout.
	OCIArchive Format = "oci-archive"
)

// SaveOptions say what Save writes.
type SaveOptions struct {
	Images []string // names, of which one without a tag stands for all tags; or IDs, which are saved without names
	Format Format   // default: DockerArchive
	Output io.Writer

	Progress Progress // nil is silent
}

// Save writes images to one archive. Layers are those that were loaded, bit for bit, and not compressed, so that their
// digests are their diffIDs. Saving the same images gives the same archive.
func (s *Store) Save(ctx context.Context, o SaveOptions) error {
	if err := s.save(ctx, o); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, o SaveOptions) (err error) {
	if o.Format == "" {
		o.Format = DockerArchive
	}
	if o.Format != DockerArchive && o.Format != OCIArchive {
		return fmt.Errorf("unknown format %q: it is %s or %s", o.Format, DockerArchive, OCIArchive)
	}
	if len(o.Images) == 0 {
		return errors.New("no image is named")
	}
	var images []*stagedImage
	t, err := s.begin(func(t *txn) error {
		images, err = s.toSave(o.Images)
		for _, img := range images {
			if err == nil && len(img.Chain) > 0 {
				err = t.hold(img.Layer())
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	defer t.end()
	w := &archiveWriter{s: s, ctx: ctx, tar: tar.NewWriter(o.Output), progress: orSilent(o.Progress), done: map[digest.Digest]bool{}}
	if err := w.write(images, o.Format); err != nil {
		return err
	}
	return w.tar.Close()
}

// toSave resolves names: each image once, with the names that were asked for.
//
// Preconditions: the lock is held.
func (s *Store) toSave(names []string) ([]*stagedImage, error) {
	r, err := s.readRepositories()
	if err != nil {
		return nil, err
	}
	byID := map[digest.Digest]*stagedImage{}
	var images []*stagedImage
	add := func(img *Image, ref reference.Named) {
		st, ok := byID[img.ID]
		if !ok {
			st = &stagedImage{Image: img}
			byID[img.ID] = st
			images = append(images, st)
		}
		if _, ok := ref.(reference.NamedTagged); !ok {
			return
		}
		for _, have := range st.refs {
			if have.String() == ref.String() {
				return
			}
		}
		st.refs = append(st.refs, ref)
	}
	for _, name := range names {
		if ref, err := reference.ParseNormalizedNamed(name); err == nil && reference.IsNameOnly(ref) {
			if all := r.named(ref); len(all) > 0 {
				for _, ref := range all {
					id, _ := r.get(ref)
					img, err := s.read(id)
					if err != nil {
						return nil, err
					}
					add(img, ref)
				}
				continue
			}
		}
		img, err := s.find(name)
		if err != nil {
			return nil, err
		}
		var ref reference.Named
		if !isIDPrefix(img.ID, name) {
			ref, _ = reference.ParseNormalizedNamed(name) // find has parsed it
		}
		add(img, ref)
	}
	return images, nil
}

// archiveWriter writes one archive. What describes the rest comes first, so that a reader of a stream knows at once
// what it needs.
type archiveWriter struct {
	s        *Store
	ctx      context.Context
	tar      *tar.Writer
	progress Progress
	done     map[digest.Digest]bool // blobs that are written
}

func (w *archiveWriter) write(images []*stagedImage, format Format) error {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Versioned: specs.Versioned{SchemaVersion: 2}}
	var docker []dockerManifest
	legacy := map[string]map[string]string{}
	manifests := make([][]byte, len(images))
	for i, img := range images {
		text, err := w.manifest(img.Image)
		if err != nil {
			return err
		}
		manifests[i] = text
		index.Manifests = append(index.Manifests, descriptors(img, text, format)...)
		m := dockerManifest{Config: blobName(img.ID), Layers: []string{}, Parent: w.parentAmong(img, images)}
		for _, d := range img.Spec.RootFS.DiffIDs {
			m.Layers = append(m.Layers, blobName(d))
		}
		for _, ref := range img.refs {
			m.RepoTags = append(m.RepoTags, reference.FamiliarString(ref))
			name := reference.FamiliarName(ref)
			if n := len(img.Chain); n > 0 {
				if legacy[name] == nil {
					legacy[name] = map[string]string{}
				}
				legacy[name][ref.(reference.NamedTagged).Tag()] = img.Spec.RootFS.DiffIDs[n-1].Encoded()
			}
		}
		docker = append(docker, m)
	}
	if err := w.json("oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := w.json("index.json", index); err != nil {
		return err
	}
	if format == DockerArchive {
		if err := w.json("manifest.json", docker); err != nil {
			return err
		}
		if len(legacy) > 0 {
			if err := w.json("repositories", legacy); err != nil {
				return err
			}
		}
	}
	return w.blobs(images, manifests)
}

// parentAmong is the image that another was made from, where it is saved with it.
func (w *archiveWriter) parentAmong(img *stagedImage, images []*stagedImage) digest.Digest {
	parent := w.s.parent(img.ID)
	for _, other := range images {
		if other.ID == parent {
			return parent
		}
	}
	return ""
}

// manifest makes the OCI manifest of an image whose layers are not compressed.
func (w *archiveWriter) manifest(img *Image) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: img.ID, Size: int64(len(img.RawConfig))},
		Layers:    []ocispec.Descriptor{},
	}
	for i, c := range img.Chain {
		size, err := tarSize(w.s.path(chainPath(c), tarSplitFile))
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Digest: img.Spec.RootFS.DiffIDs[i], Size: size,
		})
	}
	return json.Marshal(m)
}

// descriptors are the items of index.json for an image: one for each name.
func descriptors(img *stagedImage, manifest []byte, format Format) []ocispec.Descriptor {
	d := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Platform: &ocispec.Platform{OS: img.Spec.OS, Architecture: img.Spec.Architecture, Variant: img.Spec.Variant},
	}
	if d.Platform.OS == "" || d.Platform.Architecture == "" {
		d.Platform = nil
	}
	if len(img.refs) == 0 {
		return []ocispec.Descriptor{d}
	}
	var all []ocispec.Descriptor
	for _, ref := range img.refs {
		name := ref.String() // as podman and skopeo have it, who look it up by the whole
		if format == DockerArchive {
			name = ref.(reference.NamedTagged).Tag() // as docker has it
		}
		tagged := d
		tagged.Annotations = map[string]string{imageNameAnnotation: ref.String(), ocispec.AnnotationRefName: name}
		all = append(all, tagged)
	}
	return all
}

func (w *archiveWriter) blobs(images []*stagedImage, manifests [][]byte) error {
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	for i, img := range images {
		for _, text := range [][]byte{manifests[i], img.RawConfig} {
			if d := digest.FromBytes(text); !w.done[d] {
				w.done[d] = true
				if err := w.file(blobName(d), text); err != nil {
					return err
				}
			}
		}
	}
	for _, img := range images {
		for i, c := range img.Chain {
			diffID := img.Spec.RootFS.DiffIDs[i]
			if w.done[diffID] {
				continue
			}
			w.done[diffID] = true
			if err := w.layer(c, diffID); err != nil {
				return fmt.Errorf("layer %s (%d of %d): %w", shortDigest(diffID), i+1, len(img.Chain), err)
			}
		}
	}
	return nil
}

func (w *archiveWriter) json(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.file(name, text)
}

func (w *archiveWriter) file(name string, text []byte) error {
	if err := w.header(name, int64(len(text))); err != nil {
		return err
	}
	_, err := w.tar.Write(text)
	return err
}

func (w *archiveWriter) header(name string, size int64) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

func (w *archiveWriter) layer(chain, diffID digest.Digest) error {
	size, err := tarSize(w.s.path(chainPath(chain), tarSplitFile))
	if err != nil {
		return err
	}
	if err := w.header(blobName(diffID), size); err != nil {
		return err
	}
	name := shortDigest(diffID)
	m := &meterWriter{ctx: w.ctx, w: w.tar, tell: func(n int64) { w.progress.Update(name, "Saving layer", n, size) }}
	if err := w.s.writeLayer(m, chain); err != nil {
		return err
	}
	w.progress.Update(name, "Saved layer", size, size)
	return nil
}

// writeLayer writes a layer's tar, and verifies that it is what was loaded.
//
// Preconditions: the layer is held.
func (s *Store) writeLayer(w io.Writer, chain digest.Digest) error {
	l, err := s.layer(chain)
	if err != nil {
		return err
	}
	dir, err := os.Open(s.path(layerPath(l.CacheID), "diff"))
	if err != nil {
		return err
	}
	defer dir.Close()
	sum := sha256.New()
	if err := writeTar(io.MultiWriter(w, sum), s.path(chainPath(chain), tarSplitFile), int(dir.Fd())); err != nil {
		return err
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != l.DiffID {
		return fmt.Errorf("its files are not those that were loaded: they give %s, not %s", got, l.DiffID)
	}
	return nil
}

// meterWriter is meter for writing.
type meterWriter struct {
	ctx     context.Context
	w       io.Writer
	n, told int64
	tell    func(n int64)
}

func (m *meterWriter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.w.Write(p)
	m.n += int64(n)
	if m.n-m.told >= toldEvery {
		m.told = m.n
		m.tell(m.n)
	}
	return n, err
}
