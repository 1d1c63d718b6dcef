package unionfs

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A caller is who makes a request, as far as /proc tells. An older kernel leaves to the server what a newer one decides
// before it asks. Ids are as the mount shows them: those of the server's user namespace.
type caller struct {
	uid, gid uint32   // by which the kernel checks access: fsuid and fsgid
	groups   []uint32 // the supplementary ones; none where /proc does not tell

	known bool   // /proc tells the rest
	caps  uint64 // the effective capabilities, by number
	here  bool   // they are of the server's user namespace
	uids  IDMap  // else the ids that the caller's own has, from Host on
	gids  IDMap
}

// callerOf reads who it is that a request's header tells. The caller waits for the answer, and keeps its pid meanwhile.
func callerOf(h fuse.Caller) caller {
	c := caller{uid: h.Uid, gid: h.Gid}
	self, err := procLink("/proc/self")
	if err != nil || self != strconv.Itoa(os.Getpid()) || h.Pid == 0 {
		return c // of another pid namespace: the number there is somebody else's
	}
	proc := fmt.Sprintf("/proc/%d/", h.Pid)
	if c.groups, c.caps, err = readStatus(proc + "status"); err != nil {
		return c
	}
	ours, err := procLink("/proc/self/ns/user")
	if err != nil {
		return c
	}
	theirs, err := procLink(proc + "ns/user")
	if err != nil {
		return c // of one with more rights than the server
	}
	if c.here = theirs == ours; !c.here {
		if c.uids, err = readIDMap(proc + "uid_map"); err != nil {
			return c
		}
		if c.gids, err = readIDMap(proc + "gid_map"); err != nil {
			return c
		}
	}
	c.known = true
	return c
}

// capable reports whether the caller has a capability in the server's user namespace.
func (c *caller) capable(capability int) bool {
	if !c.known {
		return c.uid == 0
	}
	return c.here && c.caps>>capability&1 != 0
}

// capableWhere is capable for an object whose ids the caller's user namespace may have: has tells whether it does, where
// that is not the server's (user_namespaces(7); kernel/capability.c, capable_wrt_inode_uidgid).
func (c *caller) capableWhere(capability int, has bool) bool {
	if !c.known {
		return c.uid == 0
	}
	return (c.here || has) && c.caps>>capability&1 != 0
}

// actsFor reports whether the caller may do what only the owner may (fs/inode.c, inode_owner_or_capable).
func (c *caller) actsFor(uid uint32) bool {
	return c.uid == uid || c.capableWhere(unix.CAP_FOWNER, c.uids.shows(uid))
}

// keepsSetGID reports whether the set-group-ID bit of what belongs to uid and gid may be set by the caller (fs/attr.c,
// setattr_should_drop_sgid).
func (c *caller) keepsSetGID(uid, gid uint32) bool {
	return gid == c.gid || slices.Contains(c.groups, gid) ||
		c.capableWhere(unix.CAP_FSETID, c.uids.shows(uid) && c.gids.shows(gid))
}

// shows reports whether an id is one of those that m translates to.
func (m IDMap) shows(id uint32) bool {
	return slices.ContainsFunc(m, func(r IDRange) bool { return id-r.Host < r.Size })
}

// readStatus returns the supplementary groups and the effective capabilities that a /proc/PID/status
// tells (proc_pid_status(5)).
func readStatus(path string) (groups []uint32, caps uint64, err error) {
	text, err := readProc(path)
	if err != nil {
		return nil, 0, err
	}
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Groups":
			for _, field := range strings.Fields(value) {
				gid, err := strconv.ParseUint(field, 10, 32)
				if err != nil {
					return nil, 0, fmt.Errorf("%s: Groups: %w", path, err)
				}
				if gid != overflowID { // which stands for any group that our user namespace lacks
					groups = append(groups, uint32(gid))
				}
			}
			found++
		case "CapEff":
			if caps, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil {
				return nil, 0, fmt.Errorf("%s: CapEff: %w", path, err)
			}
			found++
		}
	}
	if found != 2 {
		return nil, 0, fmt.Errorf("%s: no Groups or CapEff: %w", path, unix.EINVAL)
	}
	return groups, caps, nil
}

// readIDMap reads a /proc/PID/uid_map or gid_map of another user namespace: Host is as ours has the ids.
func readIDMap(path string) (m IDMap, err error) {
	text, err := readProc(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		var r IDRange
		if _, err := fmt.Sscan(line, &r.Container, &r.Host, &r.Size); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		m = append(m, r)
	}
	return m, nil
}

func readProc(path string) (string, error) {
	text, err := os.ReadFile(path) // lint:allow path: nobody writes below /proc
	return string(text), err
}

func procLink(path string) (string, error) { return os.Readlink(path) } // lint:allow path: as above
