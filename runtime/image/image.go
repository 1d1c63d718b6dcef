package image

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// maxConfig bounds what is read as an image's configuration or as a manifest, in bytes.
const maxConfig = 8 << 20

// maxLayers bounds the layers of an image.
const maxLayers = 1000

// Image is one image.
type Image struct {
	ID        digest.Digest
	Config    dockerspec.DockerOCIImageConfig // what a container is run with
	Spec      dockerspec.DockerOCIImage       // all of the configuration: platform, author, history, ...
	RawConfig []byte                          // as stored; its digest is ID
	Chain     []digest.Digest                 // chainIDs of the layers, lowest first
}

// Layer is the chainID of the topmost layer, empty for an image without layers.
func (img *Image) Layer() digest.Digest {
	if len(img.Chain) == 0 {
		return ""
	}
	return img.Chain[len(img.Chain)-1]
}

// parseConfig reads a configuration, which may come from anywhere.
func parseConfig(raw []byte) (*Image, error) {
	img := &Image{ID: digest.FromBytes(raw), RawConfig: raw}
	if err := parse(raw, &img.Spec); err != nil {
		return nil, fmt.Errorf("image configuration: %w", err)
	}
	img.Config = img.Spec.Config
	if os := img.Spec.OS; os != "" && os != goruntime.GOOS {
		return nil, fmt.Errorf("cannot load %s image on %s", os, goruntime.GOOS)
	}
	diffIDs := img.Spec.RootFS.DiffIDs
	if len(diffIDs) == 0 {
		if err := hasRootFS(raw); err != nil {
			return nil, err
		}
	}
	if len(diffIDs) > maxLayers {
		return nil, fmt.Errorf("image configuration: %d layers, more than %d", len(diffIDs), maxLayers)
	}
	for i, d := range diffIDs {
		if err := validDigest(d); err != nil {
			return nil, fmt.Errorf("image configuration: layer %d of %d: %w", i+1, len(diffIDs), err)
		}
	}
	img.Chain = chainIDs(diffIDs)
	return img, nil
}

// hasRootFS tells an image without layers from what is no image's configuration.
// Source: moby image/image.go, NewFromJSON.
func hasRootFS(raw []byte) error {
	var c struct {
		RootFS *struct{} `json:"rootfs"`
	}
	if err := parse(raw, &c); err != nil {
		return fmt.Errorf("image configuration: %w", err)
	}
	if c.RootFS == nil {
		return errors.New("invalid image JSON, no RootFS key")
	}
	return nil
}

// validDigest checks a digest that comes from outside: it names files here.
func validDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: only sha256 is supported", string(d))
	}
	return nil
}

func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	if len(diffIDs) == 0 {
		return nil
	}
	chain := make([]digest.Digest, len(diffIDs))
	copy(chain, diffIDs)
	return identity.ChainIDs(chain)
}

// read returns the image id.
//
// Preconditions: the lock is held.
//
// Errors: ErrNotFound, *DamagedError.
func (s *Store) read(id digest.Digest) (*Image, error) {
	raw, err := os.ReadFile(s.path(contentPath(id)))
	if isNotExist(err) {
		return nil, &NotFoundError{string(id)}
	}
	var img *Image
	if err == nil {
		img, err = parseConfig(raw)
	}
	if err == nil && img.ID != id {
		err = fmt.Errorf("it is the configuration of %s", img.ID)
	}
	if err != nil {
		return nil, damaged("image "+short(id.Encoded()), id, s.path(contentPath(id)), err)
	}
	return img, nil
}

// all lists the images, by ID, and says why others cannot be read.
//
// Preconditions: the lock is held.
func (s *Store) all() (images []*Image, bad []*DamagedError, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		img, err := s.read(id)
		var d *DamagedError
		switch {
		case err == nil:
			images = append(images, img)
		case errors.As(err, &d):
			bad = append(bad, d)
		default:
			return nil, nil, err
		}
	}
	return images, bad, nil
}

// readable lists the images, by ID, and tells of those that cannot be read.
//
// Preconditions: the lock is held.
func (s *Store) readable() ([]*Image, error) {
	images, bad, err := s.all()
	for _, d := range bad {
		_ = s.tell(d) // nil
	}
	return images, err
}

func (s *Store) ids() ([]digest.Digest, error) {
	names, err := s.names("imagedb/content/sha256")
	if err != nil {
		return nil, err
	}
	ids := make([]digest.Digest, 0, len(names))
	for _, name := range names {
		if id := digest.NewDigestFromEncoded(digest.SHA256, name); id.Validate() == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Get returns the image that is called by its name (name[:tag], "latest" where there is no tag, or name@digest), its
// ID or the beginning of it.
//
// Errors: ErrNotFound; *AmbiguousError.
func (s *Store) Get(nameOrID string) (img *Image, err error) {
	err = s.shared(func() error {
		img, err = s.find(nameOrID)
		return err
	})
	return img, err
}

// find is Get.
//
// Preconditions: the lock is held.
func (s *Store) find(nameOrID string) (*Image, error) {
	ref, err := reference.ParseAnyReference(nameOrID)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", nameOrID, err)
	}
	missing := &NotFoundError{nameOrID}
	named, ok := ref.(reference.Named)
	if !ok {
		digested, ok := ref.(reference.Digested)
		if !ok || validDigest(digested.Digest()) != nil {
			return nil, missing
		}
		img, err := s.read(digested.Digest())
		if err != nil && isNotFound(err) {
			return nil, missing
		}
		return img, err
	}
	r, err := s.readRepositories()
	if err != nil {
		return nil, err
	}
	if id, ok := r.get(named); ok {
		return s.read(id)
	}
	id, err := s.byPrefix(nameOrID)
	if err != nil {
		return nil, err
	}
	if id == "" {
		missing.Name = reference.FamiliarString(reference.TagNameOnly(named))
		return nil, missing
	}
	return s.read(id)
}

// byPrefix returns the image whose ID begins so, or "".
func (s *Store) byPrefix(prefix string) (digest.Digest, error) {
	hex := strings.TrimPrefix(prefix, "sha256:")
	if hex == "" || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", nil
	}
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	var found digest.Digest
	for _, id := range ids {
		if strings.HasPrefix(id.Encoded(), hex) {
			if found != "" {
				return "", &AmbiguousError{prefix}
			}
			found = id
		}
	}
	return found, nil
}

// parent is the image that another was committed from, "" where that is not known.
func (s *Store) parent(id digest.Digest) digest.Digest {
	text, err := os.ReadFile(s.path(metadataPath(id), "parent"))
	if err != nil {
		return ""
	}
	p := digest.Digest(strings.TrimSpace(string(text)))
	if validDigest(p) != nil || !s.exists(contentPath(p)) {
		return ""
	}
	return p
}
