package layertar

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// OwnersMode says where owners and modes are kept.
type OwnersMode int

const (
	// Real keeps them in the inodes. Only an object that cannot be made so, for want of privilege or of a mapped id, is
	// recorded in the override attribute.
	Real OwnersMode = iota

	// Xattr records all of them in the override attribute; the inodes belong to the caller, who can read and write them.
	Xattr
)

// Options say how Apply works. The zero value is the default.
type Options struct {
	Owners OwnersMode

	// Lowers gives the directories of the layers below, topmost first. A directory that the layer has entries in and no
	// entry for is made like theirs; without them it is 0755 and root's. It is called when they are first needed, once,
	// and may wait for them; they stay the caller's, who closes them after Apply. Default: there are none.
	Lowers func() ([]*os.File, error)

	// Root is called after all entries where none was the root directory's, and gives that, open as fd, owner, mode,
	// attributes and times. Default: it stays as it is.
	Root func(fd int) error

	// MaxSize bounds, in bytes, both the tar and the sum of the sizes of the files in it (holes count). Default: 1 TiB.
	MaxSize int64

	// MaxEntries bounds the number of entries. Default: 10 million.
	MaxEntries int64

	// Record, where not nil, is told what the tar is made of.
	Record Recorder

	// Warn is told what of an entry is lost and may be: an attribute that takes privilege, the owner of a symbolic link
	// where owners live in attributes. Default: nobody is told.
	Warn func(entry string, err error)
}

const (
	defaultMaxSize    = 1 << 40
	defaultMaxEntries = 10_000_000

	// maxDepth is how many components a name may have. Each directory on the way to an entry is held open; and who
	// removes the tree holds as many.
	maxDepth = 512

	// maxPath is the length in bytes of the longest name: PATH_MAX, less the NUL. A container can nest directories without
	// end, and each one on the way to an entry holds the name of all that it is in.
	maxPath = 4095
)

func (o Options) fill() Options {
	if o.MaxSize == 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.Warn == nil {
		o.Warn = func(string, error) {}
	}
	return o
}

var (
	// ErrInvalid is returned when an entry is none that a layer can have: its name or its link leads out of the layer or
	// through something that is no directory, its type is unknown, its numbers are out of range.
	ErrInvalid = errors.New("invalid layer entry")

	// ErrTooLarge is returned when a layer exceeds MaxSize or MaxEntries.
	ErrTooLarge = errors.New("layer is too large")
)

// EntryError says which entry of a layer could not be unpacked or packed.
type EntryError struct {
	Name string // as the tar spells it
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("layer entry %s: %v", quote(e.Name), e.Err) }
func (e *EntryError) Unwrap() error { return e.Err }

// quote makes a name from a tar fit for a message: it may be a megabyte of control characters.
func quote(name string) string {
	if len(name) > 256 {
		return fmt.Sprintf("%q...", name[:256])
	}
	return strconv.Quote(name)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
