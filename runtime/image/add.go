package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/opencontainers/go-digest"
)

// layersAhead is how many layers are read and decompressed at once: the one being unpacked, and those after it.
const layersAhead = 3

// imageSource is an image as it comes from outside.
type imageSource struct {
	config []byte         // its configuration, verified
	layers []*layerSource // lowest first; their diffIDs are those of config
	refs   []reference.Named
	parent digest.Digest // the image it was made from; empty where not known
}

// stagedImage is an image that the transaction shows when it commits.
type stagedImage struct {
	*Image
	refs   []reference.Named
	parent digest.Digest
}

// addOptions are what adding an image needs to know. The zero value is the default.
type addOptions struct {
	progress  Progress
	unpacking string // what is said of a layer being read
	owners    layertar.OwnersMode
	maxSize   int64 // bytes of a tar, and of the files in it
}

func (s *Store) fill(o addOptions) *addOptions {
	o.progress = orSilent(o.progress)
	o.owners = ownersMode()
	if o.maxSize == 0 {
		o.maxSize = s.freeSpace()
	}
	if o.unpacking == "" {
		o.unpacking = "Loading layer"
	}
	return &o
}

// addImage stages an image with the layers of it that are not in the store. It can be called several times in a
// transaction: an image whose layers the transaction has already shares them.
//
// Layers are read, decompressed and verified some ahead, and unpacked one after the other: what a layer's directories
// are like may depend on those below.
func (t *txn) addImage(ctx context.Context, src *imageSource, o *addOptions) (*Image, error) {
	img, err := parseConfig(src.config)
	if err != nil {
		return nil, err
	}
	if len(src.layers) != len(img.Chain) {
		return nil, fmt.Errorf("image %s: %d layers, and %d in its configuration", short(img.ID.Encoded()), len(src.layers), len(img.Chain))
	}
	for i, l := range src.layers {
		l.diffID = img.Spec.RootFS.DiffIDs[i]
	}
	first, err := t.reuse(img.Chain)
	if err != nil {
		return nil, err
	}
	for _, l := range src.layers[:first] {
		o.progress.Update(l.name, "Already exists", 0, 0)
	}
	parent := digest.Digest("")
	if first > 0 {
		parent = img.Chain[first-1]
	}
	if err := t.unpackAll(ctx, src.layers[first:], parent, first, len(src.layers), o); err != nil {
		return nil, err
	}
	t.addStaged(img, src.refs, src.parent)
	return img, nil
}

func (t *txn) addStaged(img *Image, refs []reference.Named, parent digest.Digest) {
	st, ok := t.image[img.ID]
	if !ok {
		st = &stagedImage{Image: img}
		t.image[img.ID] = st
		t.images = append(t.images, st)
	}
	st.refs = append(st.refs, refs...)
	if parent != "" {
		st.parent = parent
	}
}

// reuse returns how many layers of a chain, from the lowest, are there already, in the transaction or in the store;
// the latter it holds.
func (t *txn) reuse(chain []digest.Digest) (n int, err error) {
	err = t.s.shared(func() error {
		for n = len(chain); n > 0; n-- {
			if _, ok := t.chain[chain[n-1]]; ok {
				return nil // and those below it are held, if they are not staged
			}
			if t.s.hasLayer(chain[n-1]) {
				return t.hold(chain[n-1])
			}
		}
		return nil
	})
	return n, err
}

// unpackAll stages layers above parent. before of all layers of the image are there already.
func (t *txn) unpackAll(ctx context.Context, layers []*layerSource, parent digest.Digest, before, all int, o *addOptions) error {
	streams := make([]*layerStream, len(layers))
	closeFrom := func(first int) {
		for _, s := range streams[first:] {
			if s != nil {
				s.cancel() // all at once, before each is waited for
			}
		}
		for i := first; i < len(streams); i++ {
			if streams[i] != nil {
				_ = streams[i].Close() // ends it
				streams[i] = nil
			}
		}
	}
	defer closeFrom(0)
	for i, src := range layers {
		for n := i; n < min(len(layers), i+layersAhead); n++ {
			if streams[n] == nil {
				var after *layerStream
				if n > i {
					after = streams[n-1]
				}
				streams[n] = t.stream(ctx, layers[n], o, o.unpacking, after)
			}
		}
		l, err := t.unpack(ctx, src, streams[i], parent, func() { closeFrom(i) }, o)
		if err != nil {
			return fmt.Errorf("layer %s (%d of %d): %w", src.name, before+i+1, all, truncated(err))
		}
		if streams[i] != nil {
			_ = streams[i].Close() // at its end
			streams[i] = nil
		}
		o.progress.Update(src.name, o.done(), src.size, src.size)
		t.chain[l.Chain] = l
		t.order = append(t.order, l)
		parent = l.Chain
	}
	return nil
}

// done is what is said of a layer that is unpacked.
func (o *addOptions) done() string {
	if o.unpacking == "Loading layer" {
		return "Loaded layer"
	}
	return "Pull complete"
}

// commitImages shows the images that were added.
func (t *txn) commitImages() error {
	return t.commit(func() error {
		if err := t.planLayers(); err != nil {
			return err
		}
		r, err := t.s.readRepositories()
		if err != nil {
			return err
		}
		for _, img := range t.images {
			if err := t.planImage(img, r); err != nil {
				return err
			}
		}
		return t.writeRepositories(r)
	})
}

// planLayers plans that the staged layers are shown, but for those that somebody else has added meanwhile.
func (t *txn) planLayers() error {
	links := map[digest.Digest]string{} // what stands in lower, by chainID of the layer above which it stands
	for _, l := range t.order {
		if t.s.hasLayer(l.Chain) {
			continue
		}
		lower := ""
		if l.Parent != "" {
			var ok bool
			if lower, ok = links[l.Parent]; !ok {
				p, err := t.s.layer(l.Parent)
				if err != nil {
					return err
				}
				if lower, err = t.s.lower(p.CacheID); err != nil {
					return err
				}
			}
			if err := t.stage("layers/"+l.CacheID+"/lower", []byte(lower)); err != nil {
				return err
			}
		}
		links[l.Chain] = strings.TrimSuffix("l/"+l.link+":"+lower, ":")
		t.move("layers/"+l.CacheID, layerPath(l.CacheID))
		t.move("l/"+l.link, linkPath(l.link))
		t.move("layerdb/"+l.CacheID, chainPath(l.Chain))
	}
	return nil
}

func (t *txn) planImage(img *stagedImage, r *repositories) error {
	if !t.s.exists(contentPath(img.ID)) {
		name := "images/" + img.ID.Encoded()
		if err := t.stage(name, img.RawConfig); err != nil {
			return err
		}
		t.move(name, contentPath(img.ID))
		if img.parent != "" {
			if err := t.stage(name+".parent", []byte(img.parent)); err != nil {
				return err
			}
			t.move(name+".parent", metadataPath(img.ID)+"/parent")
		}
	}
	if len(img.refs) == 0 {
		return nil
	}
	for _, ref := range img.refs {
		r.set(ref, img.ID)
	}
	return t.tagged(img.ID)
}

// truncated says plainly what an unexpected end of a stream is.
func truncated(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is cut short: %w", err)
	}
	return err
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }
