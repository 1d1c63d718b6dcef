package image

import (
	"errors"
	"slices"

	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
)

// PruneOptions say what Prune removes.
type PruneOptions struct {
	All     bool    // images without a container, not only those without a tag
	Filters Filters // until, label, label!
}

// PruneReport is what was removed.
type PruneReport struct {
	ImagesDeleted  []imagetypes.DeleteResponse
	SpaceReclaimed uint64 // bytes
}

// Prune removes images that no container uses.
// Source: moby daemon/images/image_prune.go, ImagesPrune.
func (s *Store) Prune(o PruneOptions) (*PruneReport, error) {
	var r *removal
	containers, err := s.containers()
	if err != nil {
		return nil, err
	}
	t, err := s.begin(nil)
	if err != nil {
		return nil, err
	}
	err = t.commit(func() error {
		f, err := s.filter(o.Filters, "until", "label", "label!")
		if err != nil {
			return err
		}
		if r, err = s.newRemoval(containers); err != nil {
			return err
		}
		all, err := s.readable()
		if err != nil {
			return err
		}
		for before := -1; before != len(r.gone); { // one that goes may have been what kept another
			before = len(r.gone)
			for _, img := range all {
				if !r.gone[img.ID] && f.matches(img) && r.prunable(img, o.All) {
					r.untagAll(img.ID)
					if err := r.removeImage(img.ID, false, true, true); err != nil {
						return err
					}
				}
			}
		}
		return r.plan(t)
	})
	if err = errors.Join(err, t.end()); err != nil {
		return nil, err
	}
	return &PruneReport{r.records, uint64(r.freed)}, nil
}

// prunable reports whether an image may go: nothing uses it, and, unless all may go, it has no tag.
func (r *removal) prunable(img *Image, all bool) bool {
	if r.children[img.ID] > 0 || r.user(img.ID, nil) != nil {
		return false
	}
	return all || !slices.ContainsFunc(r.refs.of(img.ID), func(ref reference.Named) bool {
		_, ok := ref.(reference.Canonical)
		return !ok
	})
}
