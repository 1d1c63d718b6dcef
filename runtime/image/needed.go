package image

import (
	"bytes"
	"errors"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// needed lists the layers that somebody needs: images, but for those in without; mounts, but for the one of the
// container gone; and living transactions.
//
// Preconditions: the exclusive lock is held.
func (s *Store) needed(without map[digest.Digest]bool, gone string) (map[digest.Digest]bool, error) {
	need := map[digest.Digest]bool{}
	images, bad, err := s.all()
	if err != nil {
		return nil, err
	}
	for _, d := range bad {
		if !without[d.ID] {
			return s.everyLayer() // it may need any
		}
	}
	for _, img := range images {
		if !without[img.ID] {
			for _, c := range img.Chain {
				need[c] = true
			}
		}
	}
	tops, err := s.mounted(gone)
	if err != nil {
		return nil, err
	}
	held, err := s.held()
	if err != nil {
		return nil, err
	}
	for _, top := range append(tops, held...) {
		for c := top; c != "" && !need[c]; {
			l, err := s.layer(c)
			if err != nil {
				return nil, err
			}
			need[c] = true
			c = l.Parent
		}
	}
	return need, nil
}

// everyLayer needs all layers that there are.
func (s *Store) everyLayer() (map[digest.Digest]bool, error) {
	names, err := s.names("layerdb/sha256")
	if err != nil {
		return nil, err
	}
	need := map[digest.Digest]bool{}
	for _, name := range names {
		need[digest.NewDigestFromEncoded(digest.SHA256, name)] = true
	}
	return need, nil
}

// mounted lists the topmost layers that containers are mounted on.
func (s *Store) mounted(gone string) ([]digest.Digest, error) {
	ids, err := s.names("layerdb/mounts")
	if err != nil {
		return nil, err
	}
	var tops []digest.Digest
	for _, id := range ids {
		if id == gone {
			continue
		}
		top, err := s.mountParent(id)
		if err != nil {
			return nil, err
		}
		if top != "" {
			tops = append(tops, top)
		}
	}
	return tops, nil
}

// mountParent is the layer that the container's init layer is on, "" where there is none.
func (s *Store) mountParent(containerID string) (digest.Digest, error) {
	b, err := os.ReadFile(s.path(mountPath(containerID), "parent"))
	if isNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	d := digest.Digest(strings.TrimSpace(string(b)))
	return d, validDigest(d)
}

// held lists the layers that living transactions hold.
func (s *Store) held() ([]digest.Digest, error) {
	ids, err := s.names("tmp")
	if err != nil {
		return nil, err
	}
	var tops []digest.Digest
	for _, id := range ids {
		names, err := s.names(transactionPath(id) + "/hold")
		if err != nil || len(names) == 0 || !s.alive(id) {
			continue // it holds nothing, or is over
		}
		for _, name := range names {
			if c := digest.NewDigestFromEncoded(digest.SHA256, name); validDigest(c) == nil && s.hasLayer(c) {
				tops = append(tops, c)
			}
		}
	}
	return tops, nil
}

// alive reports whether a process holds the transaction.
func (s *Store) alive(id string) bool {
	f, err := os.Open(s.path(transactionPath(id)))
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, unix.LOCK_SH|unix.LOCK_NB) != nil
}

// imageHas reports whether the layer is one of an image's. It reads configurations until it finds one: the price of
// ending a container must not grow with the number of layers.
//
// Preconditions: the lock is held.
func (s *Store) imageHas(chain digest.Digest) (bool, error) {
	l, err := s.layer(chain)
	if err != nil {
		return false, err
	}
	ids, err := s.ids()
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		raw, err := os.ReadFile(s.path(contentPath(id)))
		if err != nil {
			return false, err
		}
		if !bytes.Contains(raw, []byte(l.DiffID)) {
			continue
		}
		img, err := s.read(id)
		var d *DamagedError
		if errors.As(err, &d) {
			return true, nil // as far as one can tell
		}
		if err != nil {
			return false, err
		}
		for _, c := range img.Chain {
			if c == chain {
				return true, nil
			}
		}
	}
	return false, nil
}

// trashUnneeded plans that the layers go that nobody needs, topmost first, and lists them.
//
// Preconditions: as needed.
func (t *txn) trashUnneeded(without map[digest.Digest]bool, gone string) ([]*Layer, error) {
	need, err := t.s.needed(without, gone)
	if err != nil {
		return nil, err
	}
	names, err := t.s.names("layerdb/sha256")
	if err != nil {
		return nil, err
	}
	var layers []*Layer
	for _, name := range names {
		c := digest.NewDigestFromEncoded(digest.SHA256, name)
		if need[c] || validDigest(c) != nil {
			continue
		}
		l, err := t.s.layer(c)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	layers = topmostFirst(layers)
	for _, l := range layers {
		t.trash(chainPath(l.Chain))
		t.trashLayerFolder(l.CacheID)
	}
	return layers, nil
}

// topmostFirst orders layers so that each comes before its parent.
func topmostFirst(layers []*Layer) []*Layer {
	byChain := map[digest.Digest]*Layer{}
	for _, l := range layers {
		byChain[l.Chain] = l
	}
	var lowestFirst []*Layer
	done := map[digest.Digest]bool{}
	for _, l := range layers {
		var path []*Layer // from l down to one that is done
		for at := l; at != nil && !done[at.Chain]; at = byChain[at.Parent] {
			done[at.Chain] = true
			path = append(path, at)
		}
		for i := len(path) - 1; i >= 0; i-- {
			lowestFirst = append(lowestFirst, path[i])
		}
	}
	for i, j := 0, len(lowestFirst)-1; i < j; i, j = i+1, j-1 {
		lowestFirst[i], lowestFirst[j] = lowestFirst[j], lowestFirst[i]
	}
	return lowestFirst
}
