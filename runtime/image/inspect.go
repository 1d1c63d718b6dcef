package image

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

// Inspect is docker image inspect.
func (s *Store) Inspect(nameOrID string) (out *imagetypes.InspectResponse, err error) {
	err = s.shared(func() error {
		img, err := s.find(nameOrID)
		if err == nil {
			out, err = s.inspect(img)
		}
		return err
	})
	return out, err
}

func (s *Store) inspect(img *Image) (*imagetypes.InspectResponse, error) {
	refs, err := s.readRepositories()
	if err != nil {
		return nil, err
	}
	spec := &img.Spec
	out := &imagetypes.InspectResponse{
		ID: string(img.ID), Author: spec.Author, Config: &img.Config,
		Architecture: spec.Architecture, Variant: spec.Variant, Os: spec.OS, OsVersion: spec.OSVersion,
	}
	out.RepoTags, out.RepoDigests = tagsAndDigests(refs.of(img.ID))
	out.Comment = img.comment()
	if spec.Created != nil {
		out.Created = spec.Created.Format(time.RFC3339Nano)
	}
	out.RootFS.Type = spec.RootFS.Type
	for _, d := range spec.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, string(d))
	}
	if text, err := os.ReadFile(s.path(metadataPath(img.ID), "lastUpdated")); err == nil {
		out.Metadata.LastTagTime, _ = time.Parse(time.RFC3339Nano, string(text)) // else zero: never
	}
	if out.Size, err = s.size(img); err != nil {
		return nil, err
	}
	out.GraphDriver, err = s.graphDriver(img)
	return out, err
}

// graphDriver says where the layers of an image are.
func (s *Store) graphDriver(img *Image) (*storage.DriverData, error) {
	d := &storage.DriverData{Name: Driver}
	if len(img.Chain) == 0 {
		return d, nil
	}
	layers, err := s.layers(img.Chain)
	if err != nil {
		return nil, err
	}
	place := func(l *Layer, name string) string { return filepath.Join(s.path(layerPath(l.CacheID)), name) }
	top := layers[len(layers)-1]
	d.Data = map[string]string{
		"UpperDir": place(top, "diff"), "WorkDir": place(top, "work"), "MergedDir": place(top, "merged"),
	}
	var lowers []string
	for i := len(layers) - 2; i >= 0; i-- {
		lowers = append(lowers, place(layers[i], "diff"))
	}
	if len(lowers) > 0 {
		d.Data["LowerDir"] = strings.Join(lowers, ":")
	}
	return d, nil
}
