package image

import (
	"context"
	"fmt"
	"io"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CommitOptions say what Commit makes an image of.
type CommitOptions struct {
	Parent digest.Digest // the image below; empty for none

	// Layer writes the new layer's uncompressed tar. It may be called twice, and writes the same then.
	Layer func(io.Writer) error

	Config  dockerspec.DockerOCIImageConfig // what the image's containers are run with
	Author  string
	History ocispec.History // of the layer; Created is set to now where it is nil
	Ref     string          // the image's name, may be empty

	Progress Progress // nil is silent
}

// Commit makes an image of another and a layer. A layer without entries adds to the history only.
func (s *Store) Commit(ctx context.Context, o CommitOptions) (_ *Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("commit: %w", err)
		}
	}()
	refs, err := parseRef(o.Ref)
	if err != nil {
		return nil, err
	}
	var below *Image
	t, err := s.begin(func(t *txn) error {
		if o.Parent == "" {
			return nil
		}
		if below, err = s.read(o.Parent); err != nil || len(below.Chain) == 0 {
			return err
		}
		return t.hold(below.Layer())
	})
	if err != nil {
		return nil, err
	}
	defer t.end()
	spec := dockerspec.DockerOCIImage{Config: o.Config}
	if below != nil {
		spec.Platform = below.Spec.Platform
	}
	spec.Author = o.Author
	created := time.Now().UTC()
	if o.History.Created == nil {
		o.History.Created = &created
	}
	if o.History.Author == "" {
		o.History.Author = o.Author
	}
	src := &layerSource{name: "new", open: func(context.Context) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(o.Layer(w)) }()
		return r, nil // closing it ends Layer with an error
	}}
	opts := s.fill(addOptions{progress: o.Progress, unpacking: "Committing"})
	return t.addNew(ctx, &newImage{
		spec: spec, below: below, layer: src, refs: refs, created: *o.History.Created, history: o.History,
	}, opts)
}
