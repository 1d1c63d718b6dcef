package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// dockerManifest is one item of manifest.json.
// Source: moby image/tarexport/tarexport.go, manifestItem.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
	Parent   digest.Digest `json:",omitempty"`
}

// addDockerArchive stages the images of a docker-archive, of any version of docker that writes manifest.json.
func (t *txn) addDockerArchive(ctx context.Context, a archive, o *addOptions) error {
	text, err := small(a, "manifest.json")
	if err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return errors.New("manifest.json: it is one of a registry's, as in a directory that skopeo wrote (dir:), and not that of an archive")
	}
	var manifest []dockerManifest
	if err := parse(text, &manifest); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	if len(manifest) == 0 {
		return errors.New("manifest.json: it has no image")
	}
	images := make([]*Image, len(manifest))
	for i, m := range manifest {
		src, err := dockerImage(a, &m)
		if err == nil {
			images[i], err = t.addImage(ctx, src, o)
		}
		if err != nil {
			return fmt.Errorf("image %d of %d: %w", i+1, len(manifest), err)
		}
	}
	for i, m := range manifest {
		t.keepParent(t.image[images[i].ID], t.image[m.Parent])
	}
	return nil
}

func dockerImage(a archive, m *dockerManifest) (*imageSource, error) {
	src := &imageSource{}
	var err error
	if src.config, err = small(a, m.Config); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	// A name that is a digest says what is in the file.
	if want, ok := digestName(m.Config); ok && digest.FromBytes(src.config) != want {
		return nil, fmt.Errorf("configuration %q: its digest is %s", m.Config, digest.FromBytes(src.config))
	}
	img, err := parseConfig(src.config)
	if err != nil {
		return nil, err
	}
	diffIDs := img.Spec.RootFS.DiffIDs
	if len(diffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("invalid manifest, layers length mismatch: expected %d, got %d", len(m.Layers), len(diffIDs))
	}
	for i, name := range m.Layers {
		l, err := layerIn(a, name)
		if errors.Is(err, errNotInArchive) {
			err = nil // it may be in the store
			l = &layerSource{open: missing(name)}
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
		}
		l.name = shortDigest(diffIDs[i])
		src.layers = append(src.layers, l)
	}
	for _, tag := range m.RepoTags {
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag, err)
		}
		ref, ok := named.(reference.NamedTagged)
		if !ok {
			return nil, fmt.Errorf("invalid tag %q", tag)
		}
		src.refs = append(src.refs, ref)
	}
	return src, nil
}

// parse reads JSON that came from outside. Errors say what is wrong with it, not what we keep it in.
func parse(text []byte, v any) error {
	err := json.Unmarshal(text, v)
	var kind *json.UnmarshalTypeError
	if !errors.As(err, &kind) {
		return err
	}
	what, _, _ := strings.Cut(kind.Value, " ") // "number 1.5"
	article := "a"
	if strings.ContainsRune("aeiou", rune(what[0])) {
		article = "an"
	}
	where := ""
	if kind.Field != "" {
		where = " as " + kind.Field
	}
	return fmt.Errorf("it has %s %s%s, where none can be", article, what, where)
}

// digestName is the digest that a file is named after: <hex>, <hex>.json.
func digestName(name string) (digest.Digest, bool) {
	d := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(path.Base(name), ".json"))
	return d, d.Validate() == nil
}

// keepParent keeps which image was made from which, where the archive says so and has both, and it may be true.
func (t *txn) keepParent(child, parent *stagedImage) {
	if parent == nil || parent == child || !extends(child.Chain, parent.Chain) ||
		len(child.Spec.History) != len(parent.Spec.History)+1 {
		return
	}
	child.parent = parent.ID
}

// extends reports whether a chain begins with another.
func extends(chain, start []digest.Digest) bool {
	return len(start) <= len(chain) && (len(start) == 0 || chain[len(start)-1] == start[len(start)-1])
}
