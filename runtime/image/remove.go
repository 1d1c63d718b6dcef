package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// RemoveOptions say how Remove works.
type RemoveOptions struct {
	Force   bool
	NoPrune bool // keep untagged images that it was made from
}

// Remove takes a name from an image, and removes the image with its last name; called by its ID, the image with all
// its names. Layers that nothing else needs go with it.
//
// Errors: ErrNotFound; *ConflictError; *DamagedError, unless Force is set. The rules are those of docker rmi.
// Source: moby daemon/images/image_delete.go, ImageDelete.
func (s *Store) Remove(nameOrID string, o RemoveOptions) ([]imagetypes.DeleteResponse, error) {
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
		if r, err = s.newRemoval(containers); err != nil {
			return err
		}
		img, err := s.find(nameOrID)
		var d *DamagedError
		if o.Force && errors.As(err, &d) && d.ID != "" {
			img, err = &Image{ID: d.ID}, nil // it goes all the same
		}
		if err != nil {
			return err
		}
		if err := r.remove(img, nameOrID, o); err != nil {
			return err
		}
		return r.plan(t)
	})
	if err = errors.Join(err, t.end()); err != nil {
		return nil, err
	}
	return r.records, nil
}

// removal is what is to be removed by one transaction.
type removal struct {
	s          *Store
	refs       *repositories
	images     map[digest.Digest]*Image
	children   map[digest.Digest]int
	parents    map[digest.Digest]digest.Digest
	containers []Container

	gone    map[digest.Digest]bool
	records []imagetypes.DeleteResponse
	freed   int64 // bytes of layers
	changed bool
}

// newRemoval looks at all that decides what may be removed. containers were asked for without a lock: whoever makes one
// may hold locks of his own while he waits for ours. The layers of one that is made meanwhile stay in any case.
//
// Preconditions: the exclusive lock is held.
func (s *Store) newRemoval(containers []Container) (*removal, error) {
	r := &removal{
		s: s, containers: containers, images: map[digest.Digest]*Image{}, children: map[digest.Digest]int{},
		parents: map[digest.Digest]digest.Digest{}, gone: map[digest.Digest]bool{},
	}
	var err error
	if r.refs, err = s.readRepositories(); err != nil {
		return nil, err
	}
	all, err := s.readable()
	if err != nil {
		return nil, err
	}
	for _, img := range all {
		r.images[img.ID] = img
		if p := s.parent(img.ID); p != "" {
			r.parents[img.ID] = p
			r.children[p]++
		}
	}
	return r, nil
}

// remove decides what goes with an image that was called so.
func (r *removal) remove(img *Image, called string, o RemoveOptions) error {
	refs := r.refs.of(img.ID)
	quiet := false
	if !isIDPrefix(img.ID, called) {
		if !o.Force && isSingleReference(refs) {
			if c := r.user(img.ID, nil); c != nil {
				return &ConflictError{Message: fmt.Sprintf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
					called, short(c.ID), short(img.ID.Encoded())), used: true}
			}
		}
		ref, err := reference.ParseNormalizedNamed(called)
		if err != nil {
			return err
		}
		r.untag(asKept(ref))
		if _, isDigest := ref.(reference.Canonical); !isDigest {
			r.untagDigests(img.ID, ref)
		}
		if len(r.refs.of(img.ID)) > 0 {
			return nil
		}
		quiet = true
	} else if isSingleReference(refs) {
		if err := r.conflict(img.ID, o.Force, false); err != nil {
			return err
		}
		r.untagAll(img.ID)
	}
	return r.removeImage(img.ID, o.Force, !o.NoPrune, quiet)
}

// asKept is the reference as repositories.json has it.
func asKept(ref reference.Named) reference.Named {
	if c, ok := ref.(reference.Canonical); ok {
		if both, err := reference.WithDigest(reference.TrimNamed(ref), c.Digest()); err == nil {
			return both
		}
	}
	return reference.TagNameOnly(ref)
}

func (r *removal) untag(ref reference.Named) {
	r.refs.delete(ref)
	r.changed = true
	r.records = append(r.records, imagetypes.DeleteResponse{Untagged: reference.FamiliarString(ref)})
}

func (r *removal) untagAll(id digest.Digest) {
	for _, ref := range r.refs.of(id) {
		r.untag(ref)
	}
}

// untagDigests takes the digests of a repository away from an image that has no tag there any more.
func (r *removal) untagDigests(id digest.Digest, gone reference.Named) {
	var digests []reference.Named
	for _, ref := range r.refs.of(id) {
		if ref.Name() != gone.Name() {
			continue
		}
		if _, ok := ref.(reference.Canonical); !ok {
			return
		}
		digests = append(digests, ref)
	}
	for _, ref := range digests {
		r.untag(ref)
	}
}

// removeImage removes an image, and then untagged ones that it was made from. quiet: a conflict is no error where
// the image has names or is used.
func (r *removal) removeImage(id digest.Digest, force, prune, quiet bool) error {
	if err := r.conflict(id, force, true); err != nil {
		dangling := len(r.refs.of(id)) == 0 && r.children[id] == 0
		if quiet && (!dangling || err.used) {
			return nil
		}
		return err
	}
	r.untagAll(id)
	r.gone[id] = true
	r.records = append(r.records, imagetypes.DeleteResponse{Deleted: string(id)})
	parent := r.parents[id]
	if parent == "" {
		return nil
	}
	delete(r.parents, id)
	r.children[parent]--
	if !prune || r.gone[parent] {
		return nil
	}
	return r.removeImage(parent, false, true, true)
}

// conflict is what keeps an image from being removed, or nil. names: further names do.
func (r *removal) conflict(id digest.Digest, force, names bool) *ConflictError {
	if r.children[id] > 0 {
		return conflict(id, true, false, "image has dependent child images")
	}
	running := func(c *Container) bool { return c.Running }
	if c := r.user(id, running); c != nil {
		return conflict(id, true, true, "image is being used by running container %s", short(c.ID))
	}
	if force {
		return nil
	}
	if names && len(r.refs.of(id)) > 0 {
		return conflict(id, false, false, "image is referenced in multiple repositories")
	}
	if c := r.user(id, nil); c != nil {
		return conflict(id, false, true, "image is being used by stopped container %s", short(c.ID))
	}
	return nil
}

// user is a container of the image.
func (r *removal) user(id digest.Digest, when func(*Container) bool) *Container {
	for i := range r.containers {
		if c := &r.containers[i]; c.Image == id && (when == nil || when(c)) {
			return c
		}
	}
	return nil
}

// plan plans all of it, with the layers that nobody needs then.
func (r *removal) plan(t *txn) error {
	if r.changed {
		if err := t.writeRepositories(r.refs); err != nil {
			return err
		}
	}
	if len(r.gone) == 0 {
		return nil
	}
	for id := range r.gone {
		t.trash(contentPath(id))
		if t.s.exists(manifestPath(id)) {
			t.trash(manifestPath(id))
		}
		if r.s.exists(metadataPath(id)) {
			t.trash(metadataPath(id))
		}
	}
	layers, err := t.trashUnneeded(r.gone, "")
	if err != nil {
		return err
	}
	for _, l := range layers {
		r.records = append(r.records, imagetypes.DeleteResponse{Deleted: string(l.Chain)})
		r.freed += l.Size
	}
	return nil
}

// isIDPrefix reports whether an image was called by its ID.
func isIDPrefix(id digest.Digest, called string) bool {
	return strings.HasPrefix(string(id), called) || strings.HasPrefix(id.Encoded(), called)
}

// isSingleReference reports whether all names are of one repository, and at most one of them is a tag.
func isSingleReference(refs []reference.Named) bool {
	if len(refs) <= 1 {
		return len(refs) == 1
	}
	tags := 0
	var names []string
	for _, ref := range refs {
		if _, ok := ref.(reference.Canonical); !ok {
			tags++
		}
		names = append(names, ref.Name())
	}
	return tags <= 1 && len(slices.Compact(names)) == 1
}
