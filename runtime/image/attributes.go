package image

import (
	"fmt"
	"os"
	"slices"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// copyAttributes gives the directory to owner, mode, extended attributes and times of the directory from. Marks of
// the union (opaque, redirect, origin) say something about from's own place and are left out; an owner that is kept
// in an attribute is not.
func copyAttributes(to, from sys.At) error {
	st, err := sys.Stat(from)
	if err != nil {
		return err
	}
	// A supplementary group of an ordinary user is one that our user namespace does not have either: whose directory it is nobody could
	// change there.
	if os.Geteuid() != 0 && int(st.Gid) != os.Getegid() {
		return fmt.Errorf("chown: %w", unix.EPERM)
	}
	// EINVAL: an owner that our user namespace does not have, as the machine's root with --rootfs /. It is ours then.
	if err := sys.Chown(to, int(st.Uid), int(st.Gid)); err != nil && err != unix.EINVAL {
		return fmt.Errorf("chown: %w", err)
	}
	names, err := sys.XattrNames(from)
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for _, name := range names {
		if whiteout.Owned(name) && !slices.Contains(override.Names, name) {
			continue
		}
		value, err := sys.XattrValue(from, name)
		if err == nil {
			err = sys.Setxattr(to, name, value, 0)
		}
		if err == unix.EPERM || err == unix.ENOTSUP || err == unix.ENODATA {
			continue // security.selinux and the like are the kernel's to give
		}
		if err != nil {
			return fmt.Errorf("copy extended attribute %s: %w", name, err)
		}
	}
	// After the ACL, which changes the mode.
	if err := sys.Chmod(to, st.Mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return sys.Utimens(to, unix.Timespec(st.Atim), unix.Timespec(st.Mtim))
}
