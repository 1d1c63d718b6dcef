package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/laminafs/lamina/runtime/container"
)

func TestReport(t *testing.T) {
	one, two := errors.New("No such container: a"), errors.New("No such container: b")
	tests := []struct {
		name string
		err  error
		code int
		text string
	}{
		{"nothing", nil, 0, ""},
		{"an error", one, 1, "Error: No such container: a\n"},
		{"two errors, a line each", errors.Join(one, two), 1, "Error: No such container: a\nError: No such container: b\n"},
		{"an error of several lines is one line", errors.New("a\nb"), 1, `Error: a\nb` + "\n"},
		{"wrapped errors stay one", fmt.Errorf("x: %w, %w", one, two), 1, "Error: x: No such container: a, No such container: b\n"},
		{"the command's own status, in silence", status(3), 3, ""},
		{"run fails", failed(one), 125, "Error: No such container: a\n"},
		{"run does not find the command", failed(&container.ExitError{Code: 127, Err: one}), 127, "Error: No such container: a\n"},
		{"exec does not find the command", &container.ExitError{Code: 126, Err: two}, 126, "Error: No such container: b\n"},
		{"a status survives run", failed(status(7)), 7, ""},
		{"wrong usage is shown as it is", &exitStatus{125, &usageError{"no\n\nUsage:  x"}}, 125, "no\n\nUsage:  x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if code := report(&out, tt.err); code != tt.code || out.String() != tt.text {
				t.Errorf("status %d, %q; want %d, %q", code, out.String(), tt.code, tt.text)
			}
		})
	}
}
