package sys

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOfFile(t *testing.T) {
	bad := errors.New("unexpected end of JSON input")
	for _, tt := range []struct {
		err, why error
		ok       bool
	}{
		{&fs.PathError{Op: "open", Path: "/f", Err: unix.EIO}, unix.EIO, true},
		{bad, bad, true},
		{unix.ENOMEM, unix.ENOMEM, false},
	} {
		if why, ok := OfFile(tt.err); why != tt.why || ok != tt.ok {
			t.Errorf("%v: %v, %t", tt.err, why, ok)
		}
	}
	if _, ok := OfFile(&fs.PathError{Op: "open", Path: "/f", Err: unix.EMFILE}); ok {
		t.Error("no descriptors are left: a fault of the file")
	}
}

func TestNoRoom(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOSPC: true, unix.EDQUOT: true, unix.EROFS: false} {
		if got := NoRoom(&fs.PathError{Op: "write", Path: "/f", Err: err}); got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}
