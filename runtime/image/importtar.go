package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/laminafs/lamina/internal/jsontext"
)

// emptyTar is the digest of a tar without entries, 1024 bytes of zeros: a layer that is none.
var emptyTar = digest.FromBytes(make([]byte, 1024))

// ImportOptions say what Import makes an image of.
type ImportOptions struct {
	// Path is a tar of a root filesystem, plain or compressed by gzip or zstd. Empty to read it from Stdin.
	Path  string
	Stdin io.Reader

	Ref      string // the image's name, may be empty
	Message  string // of the history; default "Imported from " and Path, or "-"
	Config   dockerspec.DockerOCIImageConfig
	Platform ocispec.Platform // default: this machine's

	Progress Progress // nil is silent
	MaxSize  int64    // as in LoadOptions
}

// Import makes an image with one layer of a tar.
func (s *Store) Import(ctx context.Context, o ImportOptions) (_ *Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("import: %w", err)
		}
	}()
	refs, err := parseRef(o.Ref)
	if err != nil {
		return nil, err
	}
	t, err := s.begin(nil)
	if err != nil {
		return nil, err
	}
	defer t.end()
	opts := s.fill(addOptions{progress: o.Progress, maxSize: o.MaxSize, unpacking: "Importing"})
	src, err := importSource(ctx, &o, t.dir, opts.maxSize)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	img := dockerspec.DockerOCIImage{Config: o.Config}
	img.Platform = o.Platform
	if o.Message == "" {
		o.Message = "Imported from " + strings.ToValidUTF8(orDash(o.Path), "\uFFFD")
	}
	return t.addNew(ctx, &newImage{
		spec: img, layer: src, refs: refs, created: now,
		history: ocispec.History{Created: &now, Comment: o.Message},
	}, opts)
}

func orDash(path string) string {
	if path == "" {
		return "-"
	}
	return path
}

func parseRef(name string) ([]reference.Named, error) {
	if name == "" {
		return nil, nil
	}
	ref, err := ParseTag(name)
	if err != nil {
		return nil, err
	}
	return []reference.Named{ref}, nil
}

// importSource is the tar, which can be read twice: what comes from a pipe is kept.
func importSource(ctx context.Context, o *ImportOptions, scratch string, maxSize int64) (*layerSource, error) {
	var f *os.File
	if o.Path != "" {
		var err error
		if f, err = os.Open(o.Path); err != nil {
			return nil, err
		}
		defer f.Close()
	} else if in, ok := o.Stdin.(*os.File); ok {
		f = in
	}
	name := orDash(o.Path)
	if f != nil && seekable(f) {
		// Descriptors of their own: each reads from the beginning.
		path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		kept, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		st, err := kept.Stat()
		if err != nil {
			_ = kept.Close() // read only
			return nil, err
		}
		return fileSource(name, kept, st.Size()), nil
	}
	in := o.Stdin
	if f != nil {
		in = f
	}
	if in == nil {
		return nil, errors.New("nothing to read from")
	}
	kept, err := spoolTo(ctx, scratch, in, maxSize)
	if err != nil {
		return nil, err
	}
	st, err := kept.Stat()
	if err != nil {
		return nil, err
	}
	return fileSource(name, kept, st.Size()), nil
}

// fileSource is a layer that is a file. It takes f over.
func fileSource(name string, f *os.File, size int64) *layerSource {
	return &layerSource{name: name, size: size, open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, size)), nil
	}, close: f.Close}
}

// newImage is an image that is made here.
type newImage struct {
	spec    dockerspec.DockerOCIImage // but for created, rootfs and history
	below   *Image                    // the image that it is made from; nil for none
	layer   *layerSource
	refs    []reference.Named
	created time.Time
	history ocispec.History // of its layer
}

// addNew stages an image of one new layer and shows it.
func (t *txn) addNew(ctx context.Context, n *newImage, o *addOptions) (*Image, error) {
	if n.layer.close != nil {
		defer n.layer.close()
	}
	spec := n.spec
	var parent, parentID digest.Digest
	spec.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	spec.History = nil
	before := 0
	if n.below != nil {
		parent, parentID, before = n.below.Layer(), n.below.ID, len(n.below.Chain)
		spec.RootFS.DiffIDs = append(spec.RootFS.DiffIDs, n.below.Spec.RootFS.DiffIDs...)
		spec.History = append(spec.History, n.below.Spec.History...)
	}
	if err := t.unpackAll(ctx, []*layerSource{n.layer}, parent, before, before+1, o); err != nil {
		return nil, err
	}
	staged := t.order[len(t.order)-1]
	if n.history.EmptyLayer = staged.DiffID == emptyTar; n.history.EmptyLayer {
		delete(t.chain, staged.Chain)
		t.order = t.order[:len(t.order)-1]
	} else {
		spec.RootFS.DiffIDs = append(spec.RootFS.DiffIDs, staged.DiffID)
	}
	spec.History = append(spec.History, n.history)
	spec.Created = &n.created
	if spec.OS == "" {
		spec.OS = goruntime.GOOS
	}
	if spec.Architecture == "" {
		spec.Architecture = goruntime.GOARCH
	}
	if err := jsontext.Check(spec); err != nil {
		return nil, fmt.Errorf("the image's configuration: %w", err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	img, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	t.addStaged(img, n.refs, parentID)
	return img, t.commitImages()
}
