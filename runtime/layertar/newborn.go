package layertar

import (
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// newborn is what was seen of new objects of this layer. What they have by themselves need not be set: owner and mode
// are two of six system calls that a small file takes.
type newborn struct {
	owned bool   // they belong to the caller, in a directory of the caller's group
	bits  uint32 // permission bits that they had when they were asked for: no umask takes these away
}

// ours reports whether a new object in the directory on top of the stack, if it belongs to the caller, has the owner that
// it is to have. Its group is the caller's or the directory's (chown(2), "bsdgroups").
func (u *unpacker) ours(m *meta) bool {
	f := u.top()
	return u.o.Owners == Real && m.uid == u.euid && m.gid == u.egid && f.gid == u.egid && f.mode&unix.S_ISGID == 0
}

// born reports whether a new regular file or directory, if it is made with m's permission bits, may have all that m says
// but for its times.
func (u *unpacker) born(m *meta) bool {
	return u.ours(m) && len(m.xattrs) == 0 && m.mode&0o7000 == 0
}

// asBorn reports whether the new object fd, for which born was true, has what m says.
func (u *unpacker) asBorn(fd int, m *meta) (bool, error) {
	perm := m.mode & 0o777
	if u.seen.owned && perm&^u.seen.bits == 0 {
		return true, nil
	}
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return false, err
	}
	if st.Uid != u.euid || st.Gid != u.egid || st.Mode&0o7777 != perm {
		return false, nil
	}
	u.seen.owned = true
	u.seen.bits |= perm
	return true, nil
}
