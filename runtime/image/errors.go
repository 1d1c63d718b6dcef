package image

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// ErrNotFound is returned, wrapped in a [*NotFoundError], when there is no such image.
var ErrNotFound = errors.New("not found")

// NotFoundError says which image is not there.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return "No such image: " + e.Name }

// Is answers for ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

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
