package layertar

import (
	"os"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// split takes a name of a tar apart. An absolute name begins at the layer's root, as for tar(1) and Docker; "./a//b/"
// is a/b; the root itself has no components.
//
// Errors: ErrInvalid for "..", for what cannot be a name, for a whiteout of nothing or of a directory's own entries.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, invalid("the name is longer than %d bytes", maxPath)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, invalid("the name has a component \"..\"")
		case !sys.ValidName(part):
			return nil, invalid("%q cannot be a name", part)
		}
		if deleted, is := strings.CutPrefix(part, whiteout.Prefix); is && (deleted == "" || deleted == "." || deleted == "..") {
			return nil, invalid("a whiteout of %q deletes no entry of a directory", deleted)
		}
		parts = append(parts, part)
	}
	if len(parts) > maxDepth {
		return nil, invalid("the name has more than %d components", maxDepth)
	}
	return parts, nil
}

// isMark reports whether the entry called name is a whiteout or an opaque mark.
func isMark(name string) bool {
	kind, _ := whiteout.Classify(name)
	return kind == whiteout.Deleted || kind == whiteout.Opaque
}

// Open opens for reading the regular file that Apply made of the entry called name in the layer's directory dir. It is
// how tar-split gets a file's content back.
//
// Errors: ErrInvalid, as Apply; ELOOP or ENOTDIR where the name does not lead to a file.
func Open(dir *os.File, name string) (*os.File, error) {
	f, err := open(dir, name)
	if err != nil {
		return nil, &EntryError{name, err}
	}
	return f, nil
}

func open(dir *os.File, name string) (*os.File, error) {
	parts, err := split(name)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, unix.EISDIR
	}
	parent, err := sys.Open(sys.At{Dirfd: int(dir.Fd()), Name: "."}, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { sys.Close(parent) }()
	for _, part := range parts[:len(parts)-1] {
		next, err := openChild(parent, part, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		sys.Close(parent)
		parent = next
	}
	// O_NONBLOCK: an entry that turns out to be a fifo must not wait for a writer.
	fd, err := openChild(parent, parts[len(parts)-1], unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if st, err := sys.Stat(sys.Fd(fd)); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, invalid("is no regular file")
	}
	return f, nil
}

// openChild opens the entry called name of the directory fd, and nothing else: neither what a symbolic link leads to,
// nor what is mounted there. A kernel before 5.6, or a seccomp profile, has no openat2(2); a single name that is not
// ".." does not lead out of its directory with O_NOFOLLOW either.
func openChild(fd int, name string, flags int) (int, error) {
	child, err := sys.OpenBeneath(fd, name, flags)
	if err == unix.ENOSYS {
		return sys.Open(sys.At{Dirfd: fd, Name: name}, flags, 0)
	}
	return child, err
}
