package container

import (
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/idmap"
)

// openIn opens path in the tree below root, whose symbolic links lead nowhere else (openat2(2), RESOLVE_IN_ROOT). It
// does not wait for a fifo.
func openIn(root int, path string, flags int) (int, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH != 0 {
		how.Flags = uint64(flags | unix.O_CLOEXEC)
	}
	return openHow(root, path, how)
}

// openHow is openat2(2), until it says something.
func openHow(root int, path string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(root, path, how)
		if err != unix.EINTR && err != unix.EAGAIN { // EAGAIN: something was renamed meanwhile
			return fd, err
		}
	}
}

// maxUsers bounds /etc/passwd and /etc/group, in bytes. They are the container's to write, every line of them may be one
// that is looked for, and who reads them is not held by the container's limits.
const maxUsers = 8 << 20

// readIn opens a regular file for reading, nil where there is none: an image need not have /etc/passwd.
//
// Errors: ErrInvalid for one of more than maxUsers bytes.
func readIn(root int, path string) (io.ReadCloser, error) {
	fd, err := openIn(root, path, unix.O_RDONLY)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	fi, err := f.Stat()
	if err == nil && fi.Mode().IsRegular() && fi.Size() > maxUsers {
		err = fail(ErrInvalid, "/%s has %d bytes, more than %d", path, fi.Size(), maxUsers)
	}
	if err != nil || !fi.Mode().IsRegular() {
		_ = f.Close() // read-only
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, maxUsers), f}, nil // it may be growing
}

// resolveUser finds the user of a command in the rootfs: "", "name", "uid", "name:group", "uid:gid". groups are
// additional ones, names or IDs. A user that is named "" is root.
//
// Errors: ErrInvalid for one that the rootfs does not know, or whose ID is not mapped.
func resolveUser(root int, spec string, groups []string, uids, gids []specs.LinuxIDMapping) (specs.User, string, error) {
	passwd, err1 := readIn(root, "etc/passwd")
	group, err2 := readIn(root, "etc/group")
	defer closeReaders(passwd, group)
	if err := errors.Join(err1, err2); err != nil {
		return specs.User{}, "", err
	}
	// An interface that holds a nil file is not nil: pass on what is there only.
	var p, g io.Reader
	if passwd != nil {
		p = passwd
	}
	if group != nil {
		g = group
	}
	exec, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, p, g)
	if err != nil {
		return specs.User{}, "", fail(ErrInvalid, "%v", err) // it names what it did not find
	}
	u := specs.User{UID: uint32(exec.Uid), GID: uint32(exec.Gid)}
	more := exec.Sgids
	if slices.Contains(groups, "") {
		return specs.User{}, "", fail(ErrInvalid, `--group-add "": %v`, user.ErrNoGroupEntries) // the library takes no such name
	}
	if len(groups) > 0 {
		again, err := readIn(root, "etc/group")
		if err != nil {
			return specs.User{}, "", err
		}
		defer closeReaders(again)
		var g io.Reader
		if again != nil {
			g = again
		}
		added, err := user.GetAdditionalGroups(groups, g)
		if err != nil {
			return specs.User{}, "", fail(ErrInvalid, "unable to find group: %v", err)
		}
		more = append(more, added...)
	}
	id := identity()
	switch {
	case !exists(u.UID, uids, id.UIDs):
		return specs.User{}, "", fail(ErrInvalid, "user %d%s", u.UID, unmapped(id, uids))
	case !exists(u.GID, gids, id.GIDs):
		return specs.User{}, "", fail(ErrInvalid, "group %d%s", u.GID, unmapped(id, gids))
	}
	u.AdditionalGids = []uint32{u.GID} // as Docker: a group that a program gives up is still forbidden what it is
	for _, gid := range more {
		n := uint32(gid)
		if slices.Contains(u.AdditionalGids, n) {
			continue
		}
		// Groups that the rootfs gives and that do not exist here are left out; those asked for are not.
		if exists(n, gids, id.GIDs) {
			u.AdditionalGids = append(u.AdditionalGids, n)
		} else if !slices.Contains(exec.Sgids, gid) {
			return specs.User{}, "", fail(ErrInvalid, "group %d%s", n, unmapped(id, gids))
		}
	}
	return u, exec.Home, nil
}

// unmapped says why an ID does not exist.
func unmapped(id *idmap.Identity, own []specs.LinuxIDMapping) string {
	if len(own) == 0 && id.Kind == idmap.Single {
		return " cannot be had: only one ID is mapped, as 0" + sentences(id.Missing)
	}
	return " is not mapped in the container's user namespace"
}

func sentences(s []string) string {
	all := ""
	for _, one := range s {
		all += ". " + one
	}
	return all
}

func closeReaders(files ...io.ReadCloser) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // read-only
		}
	}
}
