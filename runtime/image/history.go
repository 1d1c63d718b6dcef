package image

import (
	"encoding/json"
	"errors"
	"slices"

	imagetypes "github.com/moby/moby/api/types/image"
)

// comment is the image's own, or that of its last step.
func (img *Image) comment() string {
	var old struct {
		Comment string `json:"comment"` // docker's, besides OCI's fields
	}
	if err := json.Unmarshal(img.RawConfig, &old); err == nil && old.Comment != "" {
		return old.Comment
	}
	if n := len(img.Spec.History); n > 0 {
		return img.Spec.History[n-1].Comment
	}
	return ""
}

// History lists the steps that made an image, the last one first.
// Source: moby daemon/images/image_history.go, ImageHistory.
func (s *Store) History(nameOrID string) (steps []imagetypes.HistoryResponseItem, err error) {
	err = s.shared(func() error {
		img, err := s.find(nameOrID)
		if err == nil {
			steps, err = s.history(img)
		}
		return err
	})
	return steps, err
}

func (s *Store) history(img *Image) ([]imagetypes.HistoryResponseItem, error) {
	refs, err := s.readRepositories()
	if err != nil {
		return nil, err
	}
	var steps []imagetypes.HistoryResponseItem
	n := 0 // layers so far
	for _, h := range img.Spec.History {
		step := imagetypes.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = h.Created.Unix()
		}
		if !h.EmptyLayer {
			if n == len(img.Chain) {
				return nil, errors.New("too many non-empty layers in History section")
			}
			l, err := s.layer(img.Chain[n])
			if err != nil {
				return nil, err
			}
			step.Size = l.Size
			n++
		}
		steps = append(steps, step)
	}
	slices.Reverse(steps)
	id := img.ID
	for i := range steps {
		steps[i].ID = string(id)
		steps[i].Tags, _ = tagsAndDigests(refs.of(id))
		if id = s.parent(id); id == "" {
			break
		}
	}
	return steps, nil
}
