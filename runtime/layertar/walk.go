package layertar

import (
	"errors"
	"fmt"
	"os"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// frame is an open directory on the way from the root to the current entry.
type frame struct {
	name string
	fd   int    // O_RDONLY
	mode uint32 // permission bits as they are now: its owner may list, search and change it
	gid  uint32 // as it is now
	want dirAttrs

	// below is what the layers below show here, nil for no directory; valid once asked is true.
	below *object
	asked bool
}

func (f *frame) close() {
	sys.Close(f.fd)
	if f.below != nil {
		f.below.close()
	}
}

// dirAttrs is what a directory gets when it is left: entries made in it move its times.
type dirAttrs struct {
	mode         uint32 // permission bits
	atime, mtime unix.Timespec
	defaultACL   []byte // nil for none
}

// rwx is what a directory must grant its owner while entries are made in it: an ordinary user is held to it.
const rwx = 0o700

func (u *unpacker) top() *frame { return &u.stack[len(u.stack)-1] }

// openRoot puts the layer's own directory at the bottom of the stack.
func (u *unpacker) openRoot(dir *os.File) error {
	fd, err := sys.Open(sys.At{Dirfd: int(dir.Fd()), Name: "."}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	st, err := sys.Stat(sys.Fd(fd))
	if err == nil {
		// The store's own default ACL, if somebody gave it one, is not the layer's.
		err = removeXattr(sys.Fd(fd), aclDefault)
	}
	if err != nil {
		sys.Close(fd)
		return err
	}
	u.stack = append(u.stack, frameOf("", fd, &st))
	return nil
}

func frameOf(name string, fd int, st *unix.Stat_t) frame {
	mode := st.Mode & 0o7777
	return frame{name: name, fd: fd, mode: mode, gid: st.Gid, want: dirAttrs{mode: mode, atime: st.Atim, mtime: st.Mtim}}
}

// enter makes the directory parts the top of the stack, and makes those that are missing.
func (u *unpacker) enter(parts []string) error { return u.goTo(parts, true) }

// walk makes the directory parts the top of the stack. Errors: ErrInvalid where there is none.
func (u *unpacker) walk(parts []string) error { return u.goTo(parts, false) }

func (u *unpacker) goTo(parts []string, create bool) error {
	common := 0
	for common < len(parts) && common+1 < len(u.stack) && u.stack[common+1].name == parts[common] {
		common++
	}
	if err := u.leaveTo(common); err != nil {
		return err
	}
	for i := common; i < len(parts); i++ {
		err := u.push(parts[i])
		if errors.Is(err, unix.ENOENT) {
			if !create {
				return invalid("the layer has no such entry before this one")
			}
			err = u.imply(parts[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// push opens the directory called name in the top of the stack, and makes it the top. It must not be a symbolic link:
// where that leads is for a running system to say, and would be for an attacker to choose.
//
// Errors: ENOENT; ErrInvalid where it is something else.
func (u *unpacker) push(name string) error {
	at := sys.At{Dirfd: u.top().fd, Name: name}
	st, err := sys.Stat(at)
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFLNK:
		return invalid("%q on the way is a symbolic link", name)
	default:
		return invalid("%q on the way is not a directory", name)
	}
	f := frameOf(name, -1, &st)
	if f.mode&rwx != rwx {
		f.mode |= rwx
		if err := sys.Chmod(at, f.mode); err != nil {
			return err
		}
	}
	if f.fd, err = openChild(at.Dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return fmt.Errorf("open directory %q: %w", name, err)
	}
	u.stack = append(u.stack, f)
	if !u.defaultACLs {
		return nil
	}
	acl, err := sys.XattrValue(sys.Fd(f.fd), aclDefault)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	u.top().want.defaultACL = acl
	return removeXattr(sys.Fd(f.fd), aclDefault)
}

// pushBorn makes the new directory at the top of the stack. done says that it has what m says, but for its times; else
// nothing was done.
func (u *unpacker) pushBorn(at sys.At, m *meta) (done bool, err error) {
	fd, err := openChild(at.Dirfd, at.Name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, nil // push tells, or helps
	}
	if done, err = u.asBorn(fd, m); !done {
		sys.Close(fd)
		return false, err
	}
	perm := m.mode & 0o777
	u.stack = append(u.stack, frame{name: at.Name, fd: fd, mode: perm, gid: m.gid, want: dirAttrs{mode: perm, atime: m.atime, mtime: m.mtime}})
	return true, nil
}

func removeXattr(at sys.At, name string) error {
	err := sys.Removexattr(at, name)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// describe gives the directory on top of the stack what m says, and notes what it gets when it is left.
func (u *unpacker) describe(m *meta) error {
	f := u.top()
	at := sys.Fd(f.fd)
	mode, err := u.setOwner(at, m)
	if err != nil {
		return err
	}
	f.want = dirAttrs{mode: mode & 0o7777, atime: m.atime, mtime: m.mtime}
	for _, x := range m.xattrs {
		if x.name == aclDefault {
			f.want.defaultACL = []byte(x.value)
			u.defaultACLs = true
		}
	}
	if err := u.setXattrs(at, m, aclDefault); err != nil {
		return err
	}
	// chown(2) may have changed the set-id bits, an ACL the others.
	st, err := sys.Stat(at)
	if err != nil {
		return err
	}
	f.gid = st.Gid
	if f.mode = st.Mode & 0o7777; f.mode&rwx != rwx {
		f.mode |= rwx
		return sys.Chmod(at, f.mode)
	}
	return nil
}

// leaveTo takes directories off the stack until depth of them, the root not counted, are left.
func (u *unpacker) leaveTo(depth int) error {
	for len(u.stack) > depth+1 {
		f := u.stack[len(u.stack)-1]
		u.stack = u.stack[:len(u.stack)-1]
		err := u.settle(&f, sys.At{Dirfd: u.top().fd, Name: f.name})
		f.close()
		if err != nil {
			return fmt.Errorf("complete directory %q: %w", f.name, err)
		}
	}
	return nil
}

// settle gives a directory that is left its default ACL, mode and times. at is how it is reached cheapest.
func (u *unpacker) settle(f *frame, at sys.At) error {
	if f.want.defaultACL != nil {
		if err := sys.Setxattr(at, aclDefault, f.want.defaultACL, 0); err != nil {
			return fmt.Errorf("set extended attribute %s: %w", aclDefault, err)
		}
	}
	if f.mode != f.want.mode {
		if err := sys.Chmod(at, f.want.mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := sys.Utimens(at, f.want.atime, f.want.mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func (u *unpacker) closeAll() {
	for i := range u.stack {
		u.stack[i].close()
	}
	u.stack = nil
}

// imply makes a directory that the layer has entries in and none for, and makes it the top of the stack. It is like the
// one of the layers below that it will be merged with, and else an ordinary one of root's.
func (u *unpacker) imply(name string) error {
	if err := sys.Mkdir(sys.At{Dirfd: u.top().fd, Name: name}, rwx); err != nil {
		return err
	}
	if err := u.push(name); err != nil {
		return err
	}
	m := meta{mode: unix.S_IFDIR | 0o755, atime: u.top().want.atime, mtime: u.top().want.mtime}
	below, err := u.below(len(u.stack) - 1)
	if err == nil && below != nil {
		m, err = u.lowers.meta(below)
	}
	if err != nil {
		return fmt.Errorf("directory %q of the layers below: %w", name, err)
	}
	return u.describe(&m)
}

// below returns what the layers below show where the directory i of the stack is, nil where that is no directory. It
// lasts as long as the directory is on the stack.
func (u *unpacker) below(i int) (*object, error) {
	f := &u.stack[i]
	if f.asked || u.o.Lowers == nil {
		return f.below, nil
	}
	if u.lowers == nil {
		dirs, err := u.o.Lowers()
		if err != nil {
			return nil, err
		}
		u.lowers = newUnion(dirs...)
	}
	var err error
	if i == 0 {
		f.below, err = u.lowers.root()
	} else {
		var parent *object
		if parent, err = u.below(i - 1); parent == nil {
			return nil, err
		}
		f.below, err = u.lowers.lookup(parent, f.name)
	}
	if f.below != nil && !f.below.isDir() {
		f.below.close()
		f.below = nil
	}
	f.asked = err == nil
	return f.below, err
}
