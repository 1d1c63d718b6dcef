package image

import (
	"errors"
	"fmt"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/opencontainers/go-digest"
)

// ErrNotFound is returned, wrapped in a [*NotFoundError], when there is no such image.
var ErrNotFound = errors.New("not found")

// NotFoundError says which image is not there.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return "No such image: " + e.Name }

// Is answers for ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// A DamagedError is returned for an image or a layer of which a file cannot be read. We write such files once: it was
// others, or the disk.
type DamagedError struct {
	What string        // "image ..." or "layer ..."
	ID   digest.Digest // of an image; empty for a layer
	Path string        // of the file
	Err  error         // why it cannot be read
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %s: %v", e.What, e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// damaged is err as a DamagedError. What says nothing of the file stays as it is.
func damaged(what string, id digest.Digest, path string, err error) error {
	err, ok := sys.OfFile(err) // the path is in the text once
	if !ok {
		return err
	}
	return &DamagedError{What: what, ID: id, Path: path, Err: err}
}

// tell says of what is damaged that it is left out. It returns any other error.
func (s *Store) tell(err error) error {
	var d *DamagedError
	if !errors.As(err, &d) {
		return err
	}
	if s.Damaged != nil {
		s.Damaged(d)
	}
	return nil
}

// AmbiguousError says that a prefix is one of several image IDs.
type AmbiguousError struct{ Prefix string }

func (e *AmbiguousError) Error() string {
	return "multiple IDs found with provided prefix: " + e.Prefix
}

// ConflictError says what keeps an image from being removed, in Docker's words.
type ConflictError struct {
	Message string
	Hard    bool // force does not help

	used bool // a container uses it
}

func (e *ConflictError) Error() string { return e.Message }

func conflict(id digest.Digest, hard, used bool, format string, args ...any) *ConflictError {
	force := "must be forced"
	if hard {
		force = "cannot be forced"
	}
	why := fmt.Sprintf(format, args...)
	return &ConflictError{fmt.Sprintf("conflict: unable to delete %s (%s) - %s", short(id.Encoded()), force, why), hard, used}
}

// short is an ID as lists show it.
func short(id string) string { return id[:min(12, len(id))] }

// shortDigest is a digest as messages show it: 12 digits, without the algorithm.
func shortDigest(d digest.Digest) string {
	if d.Validate() != nil {
		return string(d)
	}
	return short(d.Encoded())
}
