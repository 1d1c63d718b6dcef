package unionfs

import (
	"fmt"
	"log"
	"time"

	"github.com/laminafs/lamina/whiteout"
)

// Config is what a union is made of. The zero value of every field is its default.
type Config struct {
	// Lowers are the paths of the read-only layers, topmost first. At least one.
	Lowers []string

	// Upper and Work are the paths of the writable layer and of a directory on the same filesystem that the union
	// keeps for itself. Without them the union is read-only.
	Upper, Work string

	// Whiteout is the format in which deletions are written to Upper.
	Whiteout whiteout.Format

	// RedirectDir makes the rename of a directory with lower content one xattr instead of a copy of the subtree.
	RedirectDir bool

	// NoIndex gives up the identity of a lower file's hard links over copy-up, so that Work needs no index.
	NoIndex bool

	// NoXino gives inode numbers as the layers have them, even where layers lie on several devices and two objects
	// may then show the same number.
	NoXino bool

	// UIDMap and GIDMap translate the ids stored in the layers (Container) to those shown (Host): a store keeps its
	// layers with the ids of the container, and mounts them for a user namespace. Ids outside every range are shown
	// as the overflow id 65534, and cannot be given to a file (EINVAL). Empty maps change nothing.
	UIDMap, GIDMap IDMap

	// SquashToRoot shows every object as owned by 0:0, SquashToUID and SquashToGID by another id.
	SquashToRoot bool
	SquashToUID  *uint32
	SquashToGID  *uint32

	// XattrPermissions keeps owners and modes in an xattr instead of the inode: 1 in
	// security.fuseoverlayfs.override_stat, 2 in user.containers.override_stat. 0 does not.
	XattrPermissions int

	// StaticNlink shows a directory's link count as 1, which find(1) and others take as "unknown".
	StaticNlink bool

	NoACL   bool // POSIX ACLs are neither kept nor enforced
	NoXattr bool // the merged tree has no extended attributes: ENOTSUP
	NoAtime bool // reads do not move the access time of upper objects

	// Volatile gives up fsync: after a crash of the machine the upper may hold anything.
	Volatile bool

	// Syncing is called after the last request, when nothing is left to be done but to wait for the upper's disk. It may be nil.
	Syncing func()

	// Timeout is for how long the kernel may keep what it was told of names and attributes. 0 is practically for
	// ever: nothing changes behind our back. What is negative is not at all.
	Timeout time.Duration

	// WritebackCache lets the kernel collect small writes. It costs a request after every close and is off.
	WritebackCache bool

	// SingleThreaded says that requests are handled one at a time: none may wait for another.
	SingleThreaded bool

	// Passthrough lets the kernel read and write files by itself, where it can: a file is then opened by request.
	Passthrough bool

	// Log receives what an administrator should know. Default: the standard logger.
	Log *log.Logger
}

// IDRange is a run of Size ids, beginning with Container as stored and Host as shown.
type IDRange struct{ Container, Host, Size uint32 }

// IDMap is a list of ranges; the first that holds an id decides.
type IDMap []IDRange

// ConfigError says which option of a mount is wrong, and for which path.
type ConfigError struct {
	Option string // as the user gave it: lowerdir, upperdir, workdir
	Path   string
	Err    error
}

func (e *ConfigError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.Option, e.Err)
	}
	return fmt.Sprintf("%s=%s: %v", e.Option, e.Path, e.Err)
}

func (e *ConfigError) Unwrap() error { return e.Err }
