package image

import (
	"slices"

	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// ListOptions say what List lists.
type ListOptions struct {
	All        bool    // untagged images, too, that others were made from
	Filters    Filters // dangling, label, before, since, until, reference
	SharedSize bool    // count SharedSize, which is -1 otherwise
}

// List lists images, the youngest first. Containers is -1 where the store knows of no containers.
// Source: moby daemon/images/image_list.go, Images.
func (s *Store) List(o ListOptions) (list []imagetypes.Summary, err error) {
	containers, err := s.containersByImage()
	if err != nil {
		return nil, err
	}
	err = s.shared(func() error {
		f, err := s.filter(o.Filters, "dangling", "label", "before", "since", "until", "reference")
		if err != nil {
			return err
		}
		all, err := s.readable()
		if err != nil {
			return err
		}
		refs, err := s.readRepositories()
		if err != nil {
			return err
		}
		parents := map[digest.Digest]digest.Digest{}
		isParent := map[digest.Digest]bool{}
		for _, img := range all {
			parents[img.ID] = s.parent(img.ID)
			isParent[parents[img.ID]] = true
		}
		for _, img := range all {
			sum := imagetypes.Summary{ParentID: string(parents[img.ID]), SharedSize: -1, Containers: -1}
			if !f.matches(img) || !f.names(&sum, refs.of(img.ID), isParent[img.ID], o.All) {
				continue
			}
			if err := s.summarize(&sum, img); err != nil {
				return err
			}
			if containers != nil {
				sum.Containers = containers[img.ID]
			}
			list = append(list, sum)
		}
		if o.SharedSize {
			return s.countShared(all, list)
		}
		return nil
	})
	slices.SortStableFunc(list, func(a, b imagetypes.Summary) int { return int(min(max(b.Created-a.Created, -1), 1)) })
	return list, err
}

// names puts names in a summary, and reports whether the image is to be listed.
func (f *filter) names(sum *imagetypes.Summary, refs []reference.Named, isParent, all bool) bool {
	danglingOnly := f.dangling != nil && *f.dangling
	sum.RepoTags, sum.RepoDigests = []string{}, []string{}
	for _, ref := range refs {
		if !f.matchesName(ref) {
			continue
		}
		if _, ok := ref.(reference.Canonical); ok {
			sum.RepoDigests = append(sum.RepoDigests, reference.FamiliarString(ref))
		} else {
			sum.RepoTags = append(sum.RepoTags, reference.FamiliarString(ref))
		}
	}
	if danglingOnly && (isParent || len(sum.RepoTags) > 0) {
		return false
	}
	if len(sum.RepoTags)+len(sum.RepoDigests) > 0 {
		return true
	}
	return (all || !isParent) && (f.dangling == nil || danglingOnly) && len(f.references) == 0
}

func (s *Store) summarize(sum *imagetypes.Summary, img *Image) error {
	var err error
	if sum.Size, err = s.size(img); err != nil {
		if err := s.tell(err); err != nil {
			return err
		}
	}
	sum.ID = string(img.ID)
	sum.Labels = img.Config.Labels
	if img.Spec.Created != nil {
		sum.Created = img.Spec.Created.Unix()
	}
	return nil
}

// containers lists the containers, as far as anybody told.
//
// Preconditions: no lock is held.
func (s *Store) containers() ([]Container, error) {
	if s.Containers == nil {
		return nil, nil
	}
	return s.Containers()
}

// containersByImage counts containers, nil where nobody told which there are.
func (s *Store) containersByImage() (map[digest.Digest]int64, error) {
	list, err := s.containers()
	if err != nil || s.Containers == nil {
		return nil, err
	}
	n := map[digest.Digest]int64{}
	for _, c := range list {
		n[c.Image]++
	}
	return n, nil
}

// countShared sets SharedSize: what layers take that another image has too, of all.
func (s *Store) countShared(all []*Image, list []imagetypes.Summary) error {
	users := map[digest.Digest]int{}
	byID := map[string]*Image{}
	for _, img := range all {
		byID[string(img.ID)] = img
		for _, c := range img.Chain {
			users[c]++
		}
	}
	for i := range list {
		list[i].SharedSize = 0
		for _, c := range byID[list[i].ID].Chain {
			if users[c] < 2 {
				continue
			}
			l, err := s.layer(c)
			if err == nil {
				list[i].SharedSize += l.Size
			} else if err := s.tell(err); err != nil {
				return err
			}
		}
	}
	return nil
}
