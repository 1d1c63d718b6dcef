package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const repositoriesFile = "repositories.json"

// repositories is what repositories.json says: name -> reference -> image, both as Docker shows them.
type repositories struct {
	Repositories map[string]map[string]digest.Digest
}

// readRepositories reads all names.
//
// Preconditions: the lock is held.
func (s *Store) readRepositories() (*repositories, error) {
	r := &repositories{map[string]map[string]digest.Digest{}}
	text, err := os.ReadFile(s.path(repositoriesFile))
	if isNotExist(err) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(repositoriesFile), err)
	}
	if r.Repositories == nil {
		r.Repositories = map[string]map[string]digest.Digest{}
	}
	return r, nil
}

// get returns the image that ref names.
func (r *repositories) get(ref reference.Named) (digest.Digest, bool) {
	refs := r.Repositories[reference.FamiliarName(ref)]
	if both, ok := ref.(reference.Canonical); ok {
		// name:tag@digest is kept as name@digest.
		if c, err := reference.WithDigest(reference.TrimNamed(ref), both.Digest()); err == nil {
			ref = c
		}
	}
	id, ok := refs[reference.FamiliarString(reference.TagNameOnly(ref))]
	return id, ok
}

// set gives the image a name, which it takes away from another.
func (r *repositories) set(ref reference.Named, id digest.Digest) {
	ref = reference.TagNameOnly(ref)
	name := reference.FamiliarName(ref)
	if r.Repositories[name] == nil {
		r.Repositories[name] = map[string]digest.Digest{}
	}
	r.Repositories[name][reference.FamiliarString(ref)] = id
}

// delete takes a name away.
func (r *repositories) delete(ref reference.Named) {
	name := reference.FamiliarName(ref)
	delete(r.Repositories[name], reference.FamiliarString(reference.TagNameOnly(ref)))
	if len(r.Repositories[name]) == 0 {
		delete(r.Repositories, name)
	}
}

// of lists the names of an image, sorted.
func (r *repositories) of(id digest.Digest) []reference.Named {
	var texts []string
	for _, refs := range r.Repositories {
		for text, to := range refs {
			if to == id {
				texts = append(texts, text)
			}
		}
	}
	return parseAll(texts)
}

// named lists the references that a repository has, sorted.
func (r *repositories) named(name reference.Named) []reference.Named {
	return parseAll(slices.Collect(maps.Keys(r.Repositories[reference.FamiliarName(name)])))
}

func parseAll(texts []string) []reference.Named {
	slices.Sort(texts)
	var refs []reference.Named
	for _, text := range texts {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			refs = append(refs, ref)
		}
	}
	return refs
}

// tags and digests are the names as Docker shows them.
func tagsAndDigests(refs []reference.Named) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, ref := range refs {
		switch ref.(type) {
		case reference.Canonical:
			digests = append(digests, reference.FamiliarString(ref))
		case reference.NamedTagged:
			tags = append(tags, reference.FamiliarString(ref))
		}
	}
	return tags, digests
}

// writeRepositories plans that r replaces repositories.json.
func (t *txn) writeRepositories(r *repositories) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := t.stageSynced(repositoriesFile, text); err != nil {
		return err
	}
	t.move(repositoriesFile, repositoriesFile)
	return nil
}

// ParseTag reads a name that an image is to get: no digest, "latest" where it has no tag.
func ParseTag(name string) (reference.NamedTagged, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return nil, fmt.Errorf("%q: refusing to create a tag with a digest reference", name)
	}
	tagged, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if !ok {
		return nil, fmt.Errorf("%q is no name for an image", name)
	}
	if reference.FamiliarName(ref) == string(digest.Canonical) {
		return nil, fmt.Errorf("%q: refusing to create an ambiguous tag using digest algorithm as name", name)
	}
	return tagged, nil
}

// Tag gives an image a further name. The image that has it until now is left without.
func (s *Store) Tag(nameOrID, name string) error {
	ref, err := ParseTag(name)
	if err != nil {
		return err
	}
	t, err := s.begin(nil)
	if err != nil {
		return err
	}
	defer t.end()
	return t.commit(func() error {
		img, err := s.find(nameOrID)
		if err != nil {
			return err
		}
		return t.planTags(img.ID, ref)
	})
}

// planTags plans that the image gets names.
//
// Preconditions: the exclusive lock is held; it is called once in a transaction for all images.
func (t *txn) planTags(id digest.Digest, refs ...reference.NamedTagged) error {
	r, err := t.s.readRepositories()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		r.set(ref, id)
	}
	if err := t.tagged(id); err != nil {
		return err
	}
	return t.writeRepositories(r)
}

// tagged plans that the time of the image's last tagging is now.
func (t *txn) tagged(id digest.Digest) error {
	name := "lastUpdated." + id.Encoded()
	if err := t.stage(name, []byte(time.Now().UTC().Format(time.RFC3339Nano))); err != nil {
		return err
	}
	t.move(name, metadataPath(id)+"/lastUpdated")
	return nil
}

// References lists the names of an image, sorted by their familiar form.
func (s *Store) References(id digest.Digest) (refs []reference.Named, err error) {
	err = s.shared(func() error {
		r, err := s.readRepositories()
		if err == nil {
			refs = r.of(id)
		}
		return err
	})
	return refs, err
}
