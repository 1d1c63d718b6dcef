package image

import (
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// DiskUsage is what images take, as docker system df shows it: TotalSize counts each layer once, Reclaimable is what
// would be free without the images that no container uses.
func (s *Store) DiskUsage() (*imagetypes.DiskUsage, error) {
	items, err := s.List(ListOptions{All: true, SharedSize: true})
	if err != nil {
		return nil, err
	}
	du := &imagetypes.DiskUsage{Items: items, TotalCount: int64(len(items))}
	err = s.shared(func() error {
		sizes := map[digest.Digest]int64{}
		used := map[digest.Digest]bool{}
		for _, item := range items {
			if item.Containers > 0 {
				du.ActiveCount++
			}
			img, err := s.read(digest.Digest(item.ID))
			if isNotFound(err) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			layers, err := s.layers(img.Chain)
			if err := s.tell(err); err != nil {
				return err
			}
			for _, l := range layers {
				sizes[l.Chain] = l.Size
				used[l.Chain] = used[l.Chain] || item.Containers > 0
			}
		}
		for c, size := range sizes {
			du.TotalSize += size
			if !used[c] {
				du.Reclaimable += size
			}
		}
		return nil
	})
	return du, err
}
