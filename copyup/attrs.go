package copyup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	// XFS lists its ACLs a second time, in its own format, to those who may see trusted attributes. Elsewhere that
	// would be a meaningless attribute, and on XFS an ACL that KeepXattr did not want (fs/xfs/xfs_xattr.c).
	xfsAccess  = "trusted.SGI_ACL_FILE"
	xfsDefault = "trusted.SGI_ACL_DEFAULT"
)

// setAttrs gives the new object dst everything but data, in the order the package comment gives reasons for, and
// returns its inode number.
func setAttrs(dst, src sys.At, m Meta, opt ObjectOptions) (ino uint64, err error) {
	st, err := sys.Stat(dst)
	if err == nil {
		err = setOwner(dst, &st, m)
	}
	if err = step("set owner", err, afterOwner); err != nil {
		return 0, err
	}

	var names []string
	if !opt.SkipXattr {
		names, err = xattrsToCopy(src, m.Mode, opt.KeepXattr)
	}
	for _, name := range names {
		if err == nil && name != aclAccess {
			err = copyXattr(dst, src, name)
		}
	}
	if err = step("copy xattrs", err, afterXattr); err != nil {
		return 0, err
	}

	if opt.Mark != nil {
		err = opt.Mark(dst, st.Ino)
	}
	if err = step("mark", err, afterMark); err != nil {
		return 0, err
	}

	acl := slices.Contains(names, aclAccess)
	if acl {
		err = copyXattr(dst, src, aclAccess)
	}
	if err == nil && m.Mode&unix.S_IFMT != unix.S_IFLNK && (acl || st.Mode&0o7777 != m.Mode&0o7777) {
		err = sys.Chmod(dst, m.Mode&0o7777)
	}
	if err = step("set mode", err, afterMode); err != nil {
		return 0, err
	}
	return st.Ino, step("set times", sys.Utimens(dst, m.Atime, m.Mtime), afterTimes)
}

// firstMode returns the permission bits that a file or directory is made with: those it will have, where nothing on the
// way depends on others. A change of the owner takes set-id bits away, and our own right to write is needed to the end.
func firstMode(m Meta, need uint32) uint32 {
	if mode := m.Mode & 0o7777; mode&^0o777 == 0 && mode&need == need {
		return mode
	}
	return need
}

func setOwner(dst sys.At, st *unix.Stat_t, m Meta) error {
	if st.Uid == m.UID && st.Gid == m.GID {
		return nil
	}
	if err := sys.Chown(dst, int(m.UID), int(m.GID)); err != nil {
		return fmt.Errorf("%d:%d: %w", m.UID, m.GID, err)
	}
	st.Uid, st.Gid = m.UID, m.GID
	return nil
}

// xattrsToCopy lists the attributes of src that an object with the mode gets.
func xattrsToCopy(src sys.At, mode uint32, keep func(string) bool) ([]string, error) {
	names, err := sys.XattrNames(src)
	if err != nil {
		return nil, err
	}
	if keep == nil {
		keep = func(name string) bool { return !whiteout.Owned(name) }
	}
	kept := names[:0]
	for _, name := range names {
		if keep(name) && name != xfsAccess && name != xfsDefault {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// copyXattr copies one attribute from src to dst.
//
// An attribute that cannot be had without privilege, or that the upper's filesystem does not know, is left behind
// where no data is lost with it; see optional.
func copyXattr(dst, src sys.At, name string) error {
	value, err := sys.XattrValue(src, name)
	if errors.Is(err, unix.ENODATA) {
		return nil // NFS lists labels that are not there
	}
	if err == nil {
		err = sys.Setxattr(dst, name, value, 0)
	}
	if err != nil && !optional(name, err) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// optional reports whether a copy can do without the attribute, given why it could not be copied.
//
// User attributes are the user's data, and an ACL left behind would change who has access: its mask is in the
// mode's group bits. All others belong to some kernel facility (labels, integrity, capabilities, compression), which
// may not be there, or not for us. A capability that is left behind takes rights away and grants none.
// Source: fs/overlayfs/copy_up.c, ovl_copy_xattr. It insists on security attributes; it has the privilege to.
func optional(name string, err error) bool {
	if strings.HasPrefix(name, "user.") || name == aclAccess || name == aclDefault {
		return false
	}
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}
