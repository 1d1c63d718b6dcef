package sys

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// NoRoom tells whether something could not be written for want of room alone: the disk is full, or a quota used up.
func NoRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// OfFile returns what an error of reading a file says of the file, without its path. ok is false for one that says something
// of this process or the machine: no descriptors or no memory are left.
func OfFile(err error) (why error, ok bool) {
	for _, ours := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, ours) {
			return err, false
		}
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err, true
	}
	return err, true
}
