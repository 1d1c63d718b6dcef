package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// Driver is the name that GraphDriver shows.
const Driver = "laminafs"

// Store is an image store. Its methods may be called from several goroutines, and several processes may have the
// same store open.
type Store struct {
	root string // absolute

	// Containers lists the containers that there are. Remove, Prune, List and DiskUsage ask it, while they hold no lock;
	// nil is none.
	Containers func() ([]Container, error)

	// Damaged is told of what is left out of a list, as often as that happens, with the store locked; nil is silent.
	Damaged func(*DamagedError)

	left error
}

// Container is what the store wants to know of one.
type Container struct {
	ID      string
	Image   digest.Digest // empty for one without an image
	Running bool          // paused is running too
}

// folders are made by Open. Nobody but the owner may enter: a layer's set-id programs are not for others to run.
var folders = []string{
	"imagedb/content/sha256", "imagedb/metadata/sha256", "layerdb/sha256", "layerdb/mounts", "layers/l", "tmp",
}

// Open opens the store in the folder root, which is made when it is not there. What killed processes left is
// completed or removed; see Left for what cannot be.
//
// Errors: fs.ErrPermission, where not root but an ordinary user asks and an object to remove is of another ID: he has one try
// more, with all IDs.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s := &Store{root: root}
	for _, f := range folders {
		if err := os.MkdirAll(s.path(f), 0o710); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	if err := s.cleanUp(); err != nil {
		return nil, fmt.Errorf("open image store %s: %w", root, err)
	}
	return s, nil
}

// Left says what Open could not remove of what killed processes left: an immutable file, a mount in a layer. No list has
// it and it is in nobody's way, but it takes room; the next Open tries again. Nil where nothing is left.
func (s *Store) Left() error { return s.left }

// Root is the store's folder, an absolute path.
func (s *Store) Root() string { return s.root }

// LayersDir is the folder that the short links are relative to.
func (s *Store) LayersDir() string { return s.path("layers") }

// path is a place in the store.
func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}

// Places in the store, relative to its root.
func contentPath(id digest.Digest) string  { return "imagedb/content/sha256/" + id.Encoded() }
func metadataPath(id digest.Digest) string { return "imagedb/metadata/sha256/" + id.Encoded() }
func chainPath(chain digest.Digest) string { return "layerdb/sha256/" + chain.Encoded() }
func layerPath(cacheID string) string      { return "layers/" + cacheID }
func linkPath(link string) string          { return "layers/l/" + link }
func mountPath(containerID string) string  { return "layerdb/mounts/" + containerID }
func transactionPath(id string) string     { return "tmp/" + id }

// exists reports whether there is something at the place.
func (s *Store) exists(place string) bool {
	_, err := os.Lstat(s.path(place))
	return err == nil
}

// names lists a folder of the store, sorted.
func (s *Store) names(place string) ([]string, error) {
	entries, err := os.ReadDir(s.path(place))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
