package image

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Layer is one read-only layer of the store.
type Layer struct {
	Chain   digest.Digest
	DiffID  digest.Digest
	Parent  digest.Digest // chainID; empty for the lowest
	CacheID string        // its folder in layers
	Size    int64         // bytes of its files
}

// layer reads what is known of the layer.
//
// Preconditions: the lock is held.
func (s *Store) layer(chain digest.Digest) (*Layer, error) {
	l := &Layer{Chain: chain}
	text := map[string]string{}
	for _, name := range []string{"cache-id", "diff", "size", "parent"} {
		b, err := os.ReadFile(s.path(chainPath(chain), name))
		if isNotExist(err) && name == "parent" {
			continue
		}
		if err != nil {
			return nil, l.damaged(s, name, err)
		}
		text[name] = strings.TrimSpace(string(b))
	}
	l.CacheID, l.DiffID, l.Parent = text["cache-id"], digest.Digest(text["diff"]), digest.Digest(text["parent"])
	var err error
	if l.Size, err = strconv.ParseInt(text["size"], 10, 64); err != nil {
		return nil, l.damaged(s, "size", fmt.Errorf("%q is no number", text["size"]))
	}
	if !validContainerID(l.CacheID) {
		return nil, l.damaged(s, "cache-id", fmt.Errorf("%q names no folder", l.CacheID))
	}
	for _, name := range []string{"diff", "parent"} {
		if d := digest.Digest(text[name]); d != "" && validDigest(d) != nil {
			return nil, l.damaged(s, name, fmt.Errorf("%q is no digest", text[name]))
		}
	}
	return l, nil
}

// damaged is why a file of the layer cannot be read.
func (l *Layer) damaged(s *Store, name string, err error) error {
	return damaged("layer "+shortDigest(l.Chain), "", s.path(chainPath(l.Chain), name), err)
}

// hasLayer reports whether the layer is there.
func (s *Store) hasLayer(chain digest.Digest) bool { return s.exists(chainPath(chain)) }

// layers reads those of a chain, lowest first.
func (s *Store) layers(chain []digest.Digest) ([]*Layer, error) {
	layers := make([]*Layer, len(chain))
	for i, c := range chain {
		l, err := s.layer(c)
		if err != nil {
			return nil, err
		}
		layers[i] = l
	}
	return layers, nil
}

// size is the bytes of the files of all layers of an image.
func (s *Store) size(img *Image) (int64, error) {
	layers, err := s.layers(img.Chain)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, l := range layers {
		sum += l.Size
	}
	return sum, nil
}

// link reads a layer's short link, as "l/XXXX". Where a power failure has left the file empty, it is the link that leads to the
// layer.
func (s *Store) link(cacheID string) (string, error) {
	b, err := os.ReadFile(s.path(layerPath(cacheID), "link"))
	if err != nil {
		return "", err
	}
	if validLink(string(b)) {
		return "l/" + string(b), nil
	}
	names, err := s.names("layers/l")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if to, err := os.Readlink(s.path(linkPath(name))); err == nil && to == "../"+cacheID+"/diff" {
			return "l/" + name, nil
		}
	}
	return "", fmt.Errorf("layer %s: its short link is damaged", short(cacheID))
}

// lower is what the file lower of a layer above cacheID says: the short links of it and of all below, topmost first.
func (s *Store) lower(cacheID string) (string, error) {
	link, err := s.link(cacheID)
	if err != nil {
		return "", err
	}
	below, err := os.ReadFile(s.path(layerPath(cacheID), "lower"))
	if err != nil && !isNotExist(err) {
		return "", err
	}
	if len(below) == 0 {
		return link, nil
	}
	return link + ":" + string(below), nil
}

// trashLayerFolder plans that a folder of layers goes, with its short link.
func (t *txn) trashLayerFolder(cacheID string) {
	if link, err := t.s.link(cacheID); err == nil && t.s.exists("layers/"+link) {
		t.trash("layers/" + link)
	}
	if t.s.exists(layerPath(cacheID)) {
		t.trash(layerPath(cacheID))
	}
}
