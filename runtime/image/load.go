package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// LoadOptions say what Load reads, and how.
type LoadOptions struct {
	// Path is a docker-archive, an OCI archive, or the directory of an OCI layout; the archives plain or compressed
	// by gzip or zstd. Empty to read an archive from Stdin.
	Path  string
	Stdin io.Reader

	Progress Progress // nil is silent

	// MaxSize bounds, in bytes, each layer and the archive, decompressed. Default: nine tenths of the free space.
	MaxSize int64
}

// Loaded is an image that was loaded.
type Loaded struct {
	ID   digest.Digest
	Tags []string // the names it was given, as Docker shows them
	// Renamed are names of Tags that another image had, with its ID: it has lost them.
	Renamed map[string]digest.Digest
}

// Load adds the images of an archive, all or none. Names in the archive move to them.
//
// Errors name the layer that is bad; nothing is left of any of the images then.
func (s *Store) Load(ctx context.Context, o LoadOptions) (_ []Loaded, err error) {
	t, err := s.begin(nil)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer t.end()
	opts := s.fill(addOptions{progress: o.Progress, maxSize: o.MaxSize})
	a, err := openArchive(ctx, o.Path, o.Stdin, t.dir, opts.maxSize)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer a.close()
	if err := t.addArchive(ctx, a, opts); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	renamed, err := s.renamed(t.images)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := t.commitImages(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var loaded []Loaded
	for _, img := range t.images {
		l := Loaded{ID: img.ID, Renamed: map[string]digest.Digest{}}
		for _, ref := range img.refs {
			tag := reference.FamiliarString(ref)
			l.Tags = append(l.Tags, tag)
			if old, ok := renamed[tag]; ok && old != img.ID {
				l.Renamed[tag] = old
			}
		}
		loaded = append(loaded, l)
	}
	return loaded, nil
}

// renamed says which images have the names that others are to get.
func (s *Store) renamed(images []*stagedImage) (had map[string]digest.Digest, err error) {
	had = map[string]digest.Digest{}
	err = s.shared(func() error {
		r, err := s.readRepositories()
		if err != nil {
			return err
		}
		for _, img := range images {
			for _, ref := range img.refs {
				if id, ok := r.get(ref); ok {
					had[reference.FamiliarString(ref)] = id
				}
			}
		}
		return nil
	})
	return had, err
}

// addArchive stages the images of an archive, of whatever kind it is.
func (t *txn) addArchive(ctx context.Context, a archive, o *addOptions) error {
	switch {
	case has(a, "manifest.json"):
		return t.addDockerArchive(ctx, a, o)
	case has(a, "index.json"):
		return t.addOCI(ctx, a, o)
	case has(a, "repositories"):
		return t.addLegacy(ctx, a, o)
	}
	return fmt.Errorf("this is no archive of images: it has none of manifest.json, index.json and repositories")
}
