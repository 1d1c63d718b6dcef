package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/laminafs/lamina/runtime/container"
)

// Exit statuses of our own, as Docker's. A container's command has all others.
const (
	exitError  = 1
	exitLamina = 125 // run failed before the command did, or a flag is wrong
)

// exitStatus ends the program with a status. Without an error nothing is said: the command in the container has.
type exitStatus struct {
	code int
	err  error
}

func (e *exitStatus) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitStatus) Unwrap() error { return e.err }

// status makes an exit status of how a container's command ended; nil for 0.
func status(code int) error {
	if code == 0 {
		return nil
	}
	return &exitStatus{code: code}
}

// failed gives err the status of run: that of the container's package, or 125.
func failed(err error) error {
	var e *exitStatus
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &exitStatus{container.ExitCode(err), err}
}

// usageError is shown as it is, in several lines.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// report says what went wrong, one line for each thing that did, and gives the exit status.
func report(w io.Writer, err error) int {
	code := exitError
	var st *exitStatus
	var run *container.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &st):
		if code, err = st.code, st.err; err == nil {
			return code
		}
	case errors.As(err, &run):
		code = run.Code
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(w, usage.text)
		return code
	}
	for _, e := range parts(err) {
		fmt.Fprintln(w, "Error: "+oneLine(e))
	}
	return code
}

// parts takes apart what errors.Join put together.
func parts(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		var list []error
		for _, e := range j.Unwrap() {
			list = append(list, parts(e)...)
		}
		return list
	}
	return []error{err}
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", `\n`)
}

// each calls f for every name, whatever becomes of the others, and prints the names for which it did.
func (a *app) each(names []string, f func(name string) error) error {
	var errs []error
	for _, n := range names {
		if err := f(n); err != nil {
			errs = append(errs, err)
			continue
		}
		a.println(n)
	}
	return errors.Join(errs...)
}
