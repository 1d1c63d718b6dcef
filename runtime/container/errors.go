package container

import (
	"errors"
	"fmt"
)

// Sentinels; the errors that hold them name the container.
var (
	// ErrNotFound is returned when no container has that name or ID.
	ErrNotFound = errors.New("no such container")

	// ErrAmbiguous is returned when several containers have IDs that begin so.
	ErrAmbiguous = errors.New("several containers have IDs that begin so")

	// ErrConflict is returned when the container's state, or a name in use, forbids the operation.
	ErrConflict = errors.New("conflict")

	// ErrNotRunning is returned when the operation needs a running container. It is an ErrConflict too.
	ErrNotRunning = fmt.Errorf("is not running (%w)", ErrConflict)

	// ErrInvalid is returned for arguments that cannot be meant.
	ErrInvalid = errors.New("invalid argument")
)

// An ExitError is a container or an exec that could not be started, with the status that the command line ends with, as
// Docker's: 127 the command was not found, 126 it cannot be executed, 125 anything else.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode is the exit status for err: that of the ExitError in it, otherwise 125; 0 for nil.
func ExitCode(err error) int {
	var e *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return 125
}

// tagged is an error whose text is its own, and which Is what kind is.
type tagged struct {
	kind error
	text string
}

func (t *tagged) Error() string { return t.text }
func (t *tagged) Unwrap() error { return t.kind }

// fail is an error of a kind with a text of its own.
func fail(kind error, format string, args ...any) error {
	return &tagged{kind, fmt.Sprintf(format, args...)}
}
