package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// StageCwd is the Stage of a working directory that cannot be entered.
const StageCwd = "working directory"

// A StageError is a failure on the way into the container.
type StageError struct {
	Stage string // what was being done: "mount", "pivot_root", "seccomp", ...
	Text  string // what failed, with the mount's source, target and flags where it was a mount
	Errno syscall.Errno
}

func (e *StageError) Error() string { return e.Stage + ": " + e.Text }

// Unwrap gives the errno, where there was one.
func (e *StageError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// An ExecError is returned when the command cannot be executed. Code is what a shell's exit status would be: 127,
// not found; 126, found and not executable.
type ExecError struct {
	Code int
	Path string // the command as given
	Err  error
}

func (e *ExecError) Error() string { return fmt.Sprintf("exec %q: %v", e.Path, e.Err) }
func (e *ExecError) Unwrap() error { return e.Err }

// errNotFound is what looking for a command in $PATH ends with.
var errNotFound = errors.New("executable file not found in $PATH")

// execError tells "not found" from "not executable" as Docker does.
func execError(path string, err error) *ExecError {
	code := 126
	if errors.Is(err, errNotFound) || errors.Is(err, syscall.ENOENT) {
		code = 127
	}
	return &ExecError{Code: code, Path: path, Err: err}
}

// A failure is how an error travels from init to the parent.
type failure struct {
	Stage, Text string
	Errno       syscall.Errno
	Code        int    `json:",omitempty"` // of an ExecError
	Path        string `json:",omitempty"`
}

func newFailure(stage string, err error) *failure {
	f := &failure{Stage: stage, Text: err.Error()}
	errors.As(err, &f.Errno)
	var exec *ExecError
	if errors.As(err, &exec) {
		f.Code, f.Path, f.Text = exec.Code, exec.Path, exec.Err.Error()
	}
	return f
}

func (f *failure) error() error {
	if f.Code == 0 {
		return &StageError{Stage: f.Stage, Text: f.Text, Errno: f.Errno}
	}
	err := error(f.Errno)
	if f.Errno == 0 || !strings.HasSuffix(f.Text, f.Errno.Error()) {
		err = errors.New(f.Text)
	}
	return &ExecError{Code: f.Code, Path: f.Path, Err: err}
}
