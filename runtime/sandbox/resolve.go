package sandbox

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A root resolves paths in the container. It is used after pivot_root(2) only: then the kernel's own root is the
// container's, and neither a link nor ".." leads out of it. What could still do so is a magic link of procfs, of
// which none is followed.
type root struct{ fd int }

func openRoot() (root, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return root{fd}, err
}

// open opens name; flags are those of open(2).
func (r root) open(name string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(r.fd, name, &how)
		switch err {
		case unix.EINTR, unix.EAGAIN: // a rename somewhere on the way (openat2(2))
			continue
		case unix.ENOSYS: // before 5.6: procfs is the only filesystem with such links, and holds nothing of ours yet
			return unix.Openat(r.fd, strings.TrimLeft(name, "/"), flags|unix.O_CLOEXEC, 0)
		}
		return fd, err
	}
}

// ensure returns an O_PATH descriptor of name, and makes what is missing on the way: directories, and at the end a
// directory or an empty file. A link whose target is missing has its target made, as Docker does.
func (r root) ensure(name string, dir bool) (int, error) { return r.ensureDeep(name, dir, 0) }

const maxLinks = 40 // as the kernel has it (path_resolution(7))

func (r root) ensureDeep(name string, dir bool, links int) (int, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err == nil {
		return r.checkKind(fd, name, dir)
	}
	if err != unix.ENOENT {
		return -1, err
	}
	// By the last slash, not path.Dir: what a ".." goes up from may be a link.
	name = strings.TrimRight(name, "/")
	i := strings.LastIndexByte(name, '/')
	parentName, base := name[:max(i, 0)]+"/", name[i+1:]
	parent, err := r.ensureDeep(parentName, true, links)
	if err != nil {
		return -1, err
	}
	defer sys.Close(parent)
	if !sys.ValidName(base) {
		return r.open(name, unix.O_PATH)
	}
	// Nothing can be made in procfs. Its links are not to be read either: of /proc/self/fd/N with a free N, parent may
	// just have become N.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(parent, &fs); err != nil {
		return -1, err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return -1, unix.ENOENT
	}
	at := sys.At{Dirfd: parent, Name: base}
	if target, err := sys.Readlink(at); err == nil {
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if !path.IsAbs(target) {
			target = parentName + target
		}
		return r.ensureDeep(target, dir, links)
	}
	if dir {
		err = sys.Mkdir(at, 0o755)
	} else {
		err = sys.Mknod(at, unix.S_IFREG|0o644, 0)
	}
	if err != nil && err != unix.EEXIST {
		return -1, fmt.Errorf("make %s: %w", name, err)
	}
	if fd, err = sys.Open(at, unix.O_PATH, 0); err != nil {
		return -1, err
	}
	return r.checkKind(fd, name, dir)
}

// checkKind gives fd back unless it is a directory where a file should be, or the other way round: one cannot be
// mounted on the other.
func (r root) checkKind(fd int, name string, dir bool) (int, error) {
	st, err := sys.Stat(sys.Fd(fd))
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case err != nil:
	case dir && !isDir:
		err = fmt.Errorf("%s is not a directory: %w", name, unix.ENOTDIR)
	case !dir && isDir:
		err = fmt.Errorf("%s is a directory: %w", name, unix.EISDIR)
	default:
		return fd, nil
	}
	sys.Close(fd)
	return -1, err
}
