// Package whiteout knows every spelling in which a layer says "nothing here" and "nothing below here": whiteouts,
// opaque marks and redirects of OCI and AUFS layers, of kernel overlayfs and of fuse-overlayfs. It is the only
// place that does.
//
// All formats are read in every layer, always. One is written, the Format of the mount:
//
//	mark                WH (AUFS, OCI)               Overlay (kernel)
//	deleted NAME        empty file ".wh.NAME"        character device 0:0 called NAME
//	opaque directory    file ".wh..wh..opq" in it    xattr overlay.opaque = "y"
//	moved directory     xattr overlay.redirect       the same
//
// A mark applies to the layers below its own only. So ".wh.NAME" and NAME may stand side by side: NAME is seen, and
// what lower layers have under it is not. The union relies on that to make changes in steps of which the last one,
// a single rename or unlink, is the one that shows.
//
// Sources: OCI image-spec layer.md "Whiteouts"; kernel overlayfs.rst "whiteouts and opaque directories" and
// "redirect_dir"; aufs.5 "Whiteout"; fuse-overlayfs(1).
package whiteout

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Format is the way in which a mount writes its marks.
type Format int

const (
	WH      Format = iota // ".wh." files, as in AUFS and OCI layers; the zero value
	Overlay               // character devices 0:0 and xattrs, as in kernel overlayfs
)

// ParseFormat reads the value of the mount option whiteout=.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "wh":
		return WH, nil
	case "overlay":
		return Overlay, nil
	}
	return 0, fmt.Errorf("unknown whiteout format %q: want wh or overlay", s)
}

func (f Format) String() string {
	if f == Overlay {
		return "overlay"
	}
	return "wh"
}

const (
	// Prefix begins the name of every whiteout file; the rest of it is the name that is gone.
	Prefix = ".wh."

	// OpaqueName is the file that makes its directory opaque.
	OpaqueName = ".wh..wh..opq"

	// legacyOpaqueName is how early fuse-overlayfs spelled it. 1.10 writes it still, beside OpaqueName.
	legacyOpaqueName = ".wh..opq"

	// internalPrefix begins names that AUFS keeps for itself in a branch (.wh..wh.aufs, .wh..wh.plnk, .wh..wh.orph).
	internalPrefix = ".wh..wh."
)

// nameMax is the longest name, in bytes (NAME_MAX).
const nameMax = 255

// MaxName is the longest name, in bytes, for which a WH whiteout can be made.
const MaxName = nameMax - len(Prefix)

// Kind is what a directory entry's name says it is.
type Kind int

const (
	Plain    Kind = iota // an ordinary name
	Deleted              // a whiteout of another name
	Opaque               // an opaque mark of the directory it is in
	Internal             // private to some union filesystem, to be ignored
)

// Classify tells what the entry called name is, and for Deleted which name is gone.
//
// A whiteout of "", "." or ".." deletes nothing that could be in a directory: it is Internal.
func Classify(name string) (Kind, string) {
	switch {
	case !strings.HasPrefix(name, Prefix):
		return Plain, ""
	case name == OpaqueName, name == legacyOpaqueName:
		return Opaque, ""
	case strings.HasPrefix(name, internalPrefix):
		return Internal, ""
	}
	switch target := name[len(Prefix):]; target {
	case "", ".", "..":
		return Internal, ""
	default:
		return Deleted, target
	}
}

// Reserved reports whether name is one that only marks may have. It is never shown, and cannot be created.
func Reserved(name string) bool { return strings.HasPrefix(name, Prefix) }

// Name returns the name of the WH whiteout for name.
//
// Errors: ENAMETOOLONG where it would exceed NAME_MAX; EPERM where it would be read as another mark. That is the
// name ".opq": its whiteout is the legacy opaque mark, and would hide all else in the directory too.
func Name(name string) (string, error) {
	if len(name) > MaxName {
		return "", unix.ENAMETOOLONG
	}
	wh := Prefix + name
	if kind, _ := Classify(wh); kind != Deleted {
		return "", unix.EPERM
	}
	return wh, nil
}

// IsDevice reports whether an object with this st_mode and st_rdev is a whiteout of kernel overlayfs.
func IsDevice(mode uint32, rdev uint64) bool {
	return mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0
}

// HasFile reports whether the directory open as fd holds the WH whiteout of name.
func HasFile(fd int, name string) bool {
	wh, err := Name(name)
	if err != nil {
		return false
	}
	_, err = sys.Stat(sys.At{Dirfd: fd, Name: wh})
	return err == nil
}

// HasOpaqueFile reports whether a file makes the directory open as fd opaque.
func HasOpaqueFile(fd int) bool {
	for _, name := range []string{OpaqueName, legacyOpaqueName} {
		if _, err := sys.Stat(sys.At{Dirfd: fd, Name: name}); err == nil {
			return true
		}
	}
	return false
}
