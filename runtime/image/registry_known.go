package image

import (
	"encoding/json"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What registries are known to have, as Docker keeps it:
//
//	distribution/v2metadata-by-diffid/sha256/<diffID>     the blobs that a layer is, compressed, and where they were seen
//	distribution/diffid-by-digest/sha256/<digest>         the reverse
//	distribution/manifest-by-image/sha256/<imageID>       (ours) the manifest that the image came with
//
// It is a hint, and nothing depends on it: a registry is always asked. It makes push send nothing that is there, and
// give an image back under the digest it came with.
// Source: moby distribution/metadata, v2_metadata_service.go.

// knownBlob is an item of v2metadata-by-diffid. Docker has no size and no media type there.
type knownBlob struct {
	Digest           digest.Digest
	SourceRepository string // as reference.Named has it
	Size             int64  `json:",omitempty"`
	MediaType        string `json:",omitempty"`
}

// knownManifest is what manifest-by-image holds.
type knownManifest struct {
	MediaType string
	Manifest  []byte
}

// maxKnown is how many blobs are remembered of a layer: Docker's maxMetadata.
const maxKnown = 50

func knownPath(diffID digest.Digest) string {
	return "distribution/v2metadata-by-diffid/sha256/" + diffID.Encoded()
}
func diffIDPath(blob digest.Digest) string {
	return "distribution/diffid-by-digest/sha256/" + blob.Encoded()
}
func manifestPath(id digest.Digest) string {
	return "distribution/manifest-by-image/sha256/" + id.Encoded()
}

// known lists the blobs that a layer is known to be, the latest seen first. What cannot be read is not known.
func (s *Store) known(diffID digest.Digest) []knownBlob {
	text, err := os.ReadFile(s.path(knownPath(diffID)))
	if err != nil {
		return nil
	}
	var all, good []knownBlob
	if json.Unmarshal(text, &all) != nil {
		return nil
	}
	for i := len(all) - 1; i >= 0; i-- {
		if validDigest(all[i].Digest) == nil {
			good = append(good, all[i])
		}
	}
	return good
}

// knownManifest returns the manifest that the image came with, nil where there is none.
func (s *Store) knownManifest(id digest.Digest) *manifest {
	text, err := os.ReadFile(s.path(manifestPath(id)))
	if err != nil {
		return nil
	}
	var k knownManifest
	if json.Unmarshal(text, &k) != nil || !isManifest(k.MediaType) {
		return nil
	}
	m := &manifest{raw: k.Manifest, mediaType: k.MediaType}
	if json.Unmarshal(k.Manifest, &m.Manifest) != nil || m.check() != nil || m.Config.Digest != id {
		return nil
	}
	return m
}

// remember notes that the repository has the image, with the manifest.
func (s *Store) remember(repo name.Repository, img *Image, m *manifest) error {
	t, err := s.begin(nil)
	if err != nil {
		return err
	}
	defer t.end()
	return t.commit(func() error {
		text, err := json.Marshal(knownManifest{m.mediaType, m.raw})
		if err != nil {
			return err
		}
		if err := t.show("manifest", text, manifestPath(img.ID)); err != nil {
			return err
		}
		seen := map[digest.Digest]bool{}
		for i, l := range m.Layers {
			diffID := img.Spec.RootFS.DiffIDs[i]
			if seen[diffID] {
				continue
			}
			seen[diffID] = true
			if err := t.rememberBlob(diffID, l, repo.Name()); err != nil {
				return err
			}
		}
		return nil
	})
}

// rememberBlob plans that a layer is known to be the blob. One that is known already becomes the latest.
func (t *txn) rememberBlob(diffID digest.Digest, l ocispec.Descriptor, repo string) error {
	blob := knownBlob{l.Digest, repo, l.Size, l.MediaType}
	var all []knownBlob
	for _, k := range t.s.known(diffID) {
		if k.Digest != blob.Digest || k.SourceRepository != repo {
			all = append([]knownBlob{k}, all...)
		}
	}
	all = append(all, blob)
	text, err := json.Marshal(all[max(0, len(all)-maxKnown):])
	if err != nil {
		return err
	}
	if err := t.show("known/"+diffID.Encoded(), text, knownPath(diffID)); err != nil {
		return err
	}
	return t.show("diffid/"+l.Digest.Encoded(), []byte(diffID), diffIDPath(l.Digest))
}

// show stages a file, and plans that it is moved to its place in the store.
func (t *txn) show(name string, content []byte, to string) error {
	if err := t.stage(name, content); err != nil {
		return err
	}
	t.move(name, to)
	return nil
}
