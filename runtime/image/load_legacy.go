package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// v1Image is <id>/json of an archive without manifest.json, as docker wrote until 1.9: an image for each layer.
type v1Image struct {
	Parent          string     `json:"parent"`
	OS              string     `json:"os"`
	Created         *time.Time `json:"created"`
	Author          string     `json:"author"`
	Comment         string     `json:"comment"`
	Throwaway       bool       `json:"throwaway"`
	ContainerConfig struct {
		Cmd []string `json:"Cmd"`
	} `json:"container_config"`
}

// legacyLoader loads the images of one archive.
type legacyLoader struct {
	t    *txn
	a    archive
	o    *addOptions
	done map[string]*stagedImage
}

// addLegacy stages the images that the file repositories names.
// Source: moby image/tarexport/load.go, legacyLoad; image/v1/imagev1.go, MakeConfigFromV1Config.
func (t *txn) addLegacy(ctx context.Context, a archive, o *addOptions) error {
	text, err := small(a, "repositories")
	if err != nil {
		return err
	}
	repositories := map[string]map[string]string{}
	if err := parse(text, &repositories); err != nil {
		return fmt.Errorf("repositories: %w", err)
	}
	l := &legacyLoader{t, a, o, map[string]*stagedImage{}}
	for _, name := range slices.Sorted(maps.Keys(repositories)) {
		for _, tag := range slices.Sorted(maps.Keys(repositories[name])) {
			named, err := reference.ParseNormalizedNamed(name)
			if err != nil {
				return fmt.Errorf("repositories: %q: %w", name, err)
			}
			ref, err := reference.WithTag(named, tag)
			if err != nil {
				return fmt.Errorf("repositories: %q: %w", name, err)
			}
			img, err := l.load(ctx, repositories[name][tag])
			if err != nil {
				return err
			}
			t.addStaged(img.Image, []reference.Named{ref}, img.parent)
		}
	}
	if len(t.images) == 0 {
		return errors.New("repositories: it names no image")
	}
	return nil
}

// load stages the image id of the old kind, with those below it.
func (l *legacyLoader) load(ctx context.Context, id string) (*stagedImage, error) {
	// From the image down to the lowest, or to one that is done.
	var ids []string
	var jsons [][]byte
	seen := map[string]bool{}
	for at := id; at != "" && l.done[at] == nil; {
		if seen[at] {
			return nil, fmt.Errorf("image %q is its own parent", at)
		}
		if len(ids) == maxLayers {
			return nil, fmt.Errorf("image %q has more than %d layers", id, maxLayers)
		}
		seen[at] = true
		text, err := small(l.a, at+"/json")
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", at, err)
		}
		var v1 v1Image
		if err := parse(text, &v1); err != nil {
			return nil, fmt.Errorf("%q: %w", at+"/json", err)
		}
		ids, jsons = append(ids, at), append(jsons, text)
		at = v1.Parent
		if len(ids) > 0 && l.done[at] != nil {
			break
		}
	}
	for i := len(ids) - 1; i >= 0; i-- {
		if err := l.loadOne(ctx, ids[i], jsons[i]); err != nil {
			return nil, fmt.Errorf("image %q: %w", ids[i], err)
		}
	}
	return l.done[id], nil
}

// loadOne stages one image whose parent is staged.
func (l *legacyLoader) loadOne(ctx context.Context, id string, text []byte) error {
	var v1 v1Image
	if err := parse(text, &v1); err != nil {
		return err
	}
	var diffIDs []digest.Digest
	var history []ocispec.History
	var parent digest.Digest
	top := digest.Digest("")
	if below := l.done[v1.Parent]; below != nil {
		diffIDs = slices.Clone(below.Spec.RootFS.DiffIDs)
		history = slices.Clone(below.Spec.History)
		parent, top = below.ID, below.Layer()
	}
	diffID, err := l.layer(ctx, id, top)
	if err != nil {
		return err
	}
	diffIDs = append(diffIDs, diffID)
	history = append(history, ocispec.History{
		Created: v1.Created, Author: v1.Author, Comment: v1.Comment, EmptyLayer: false,
		CreatedBy: strings.Join(v1.ContainerConfig.Cmd, " "),
	})
	var c map[string]any
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	if err := d.Decode(&c); err != nil {
		return err
	}
	for _, key := range []string{"id", "parent", "Size", "parent_id", "layer_id", "throwaway"} {
		delete(c, key)
	}
	c["rootfs"] = ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}
	c["history"] = history
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	img, err := parseConfig(raw)
	if err != nil {
		return err
	}
	l.done[id] = &stagedImage{Image: img, parent: parent}
	return nil
}

// layer stages the layer of an image, whose diffID nobody has told us, and returns it. One that is there already has to
// be read to know that it is.
func (l *legacyLoader) layer(ctx context.Context, id string, below digest.Digest) (digest.Digest, error) {
	src, err := layerIn(l.a, id+"/layer.tar")
	if err != nil {
		return "", err
	}
	src.name = short(id)
	probe := l.t.stream(ctx, src, l.o, "Verifying", nil)
	_, err = io.Copy(io.Discard, onlyReader{probe})
	_ = probe.Close() // at its end
	if err != nil {
		return "", fmt.Errorf("layer: %w", truncated(err))
	}
	chain := probe.diffID
	if below != "" {
		chain = chainIDs([]digest.Digest{below, probe.diffID})[1]
	}
	n, err := l.t.reuse([]digest.Digest{chain})
	if err != nil {
		return "", err
	}
	if n == 1 {
		l.o.progress.Update(src.name, "Already exists", 0, 0)
		return probe.diffID, nil
	}
	src.diffID = probe.diffID
	if err := l.t.unpackAll(ctx, []*layerSource{src}, below, 0, 1, l.o); err != nil {
		return "", err
	}
	return probe.diffID, nil
}
