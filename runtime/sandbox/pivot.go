package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// pivotRoot is replaced by a test that plays a kernel which refuses.
var pivotRoot = unix.PivotRoot

// enterRoot makes the rootfs the root of the mount namespace, and lets go of the old one.
//
// The rootfs is first attached over "/": that needs no path to it, which a user namespace may not be allowed to
// walk. pivot_root(".", ".") then puts the old root on top of the new one, from where it is detached: no directory
// in the rootfs is needed for it (pivot_root(2), NOTES).
func (in *initProcess) enterRoot() error {
	newRoot := in.config.Root.Fd
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer sys.Close(old)
	if err := unix.MoveMount(newRoot, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the rootfs: %w", err)
	}
	if err := unix.Fchdir(newRoot); err != nil {
		return fmt.Errorf("enter the rootfs: %w", err)
	}
	// It brings along whatever propagation its source had.
	if err := unix.Mount("", ".", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private rootfs: %w", err)
	}
	switch err := pivotRoot(".", "."); err {
	case nil:
		if err := unix.Fchdir(old); err != nil {
			return err
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach the old root: %w", err)
		}
	case unix.EINVAL:
		// The root of the namespace is an initramfs, which cannot be moved. The rootfs lies over it already, as
		// MS_MOVE would have put it; a root directory of our own is all that is missing (switch_root(8)).
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("chroot: %w", err)
		}
	default:
		return err
	}
	return unix.Chdir("/")
}
