package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/laminafs/lamina/runtime/layertar"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// layersAtOnce is how many layers are read, verified and unpacked at once.
const layersAtOnce = 3

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
// Several layers are read, verified and unpacked at once. One that needs to know what its directories are like in those
// below, since its tar does not say it, waits for them.
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
//
// An error ends the layers above, too; those below go on, and an error of theirs is what is returned: always the same,
// whichever is faster.
func (t *txn) unpackAll(ctx context.Context, layers []*layerSource, parent digest.Digest, before, all int, o *addOptions) error {
	named := func(i int, err error) error {
		return fmt.Errorf("layer %s (%d of %d): %w", layers[i].name, before+i+1, all, truncated(err))
	}
	var staged []*stagedLayer
	var running sync.WaitGroup
	errs := make([]error, len(layers))
	turns := semaphore.NewWeighted(layersAtOnce)
	var last *layerStream
	above := ctx // of a layer and of all above it
	for i, src := range layers {
		if turns.Acquire(above, 1) != nil {
			break
		}
		layerCtx, cancel := context.WithCancel(above)
		defer cancel()
		above = layerCtx
		l := &stagedLayer{Layer: Layer{CacheID: newCacheID()}, unpacked: make(chan struct{})}
		lowers := stagedLowers{t, staged, parent}
		staged = append(staged, l)
		in := t.stream(layerCtx, src, o, o.unpacking, last)
		last = in
		running.Go(func() {
			defer turns.Release(1)
			defer in.Close() // at its end, or ends it
			if err := t.unpack(layerCtx, l, in, lowers, o); err != nil {
				errs[i] = named(i, err)
				cancel()
				return
			}
			close(l.unpacked)
			if !l.lossy {
				o.progress.Update(src.name, o.done(), src.size, src.size)
			}
		})
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, l := range staged {
		l.Parent = parent
		if err := t.finish(ctx, layers[i], l, o); err != nil {
			return named(i, err)
		}
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
