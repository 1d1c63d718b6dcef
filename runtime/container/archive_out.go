package container

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/internal/sys"
)

// idShift turns owners as we see them into those that the container sees.
type idShift struct{ uids, gids []specs.LinuxIDMapping }

func inside(id uint32, m []specs.LinuxIDMapping) int {
	for _, e := range m {
		if id >= e.HostID && id-e.HostID < e.Size {
			return int(id - e.HostID + e.ContainerID)
		}
	}
	return int(id)
}

// treeWriter writes a tree as a tar. It goes from descriptor to descriptor: whatever the container does meanwhile, no
// link leads it anywhere.
type treeWriter struct {
	tw    *tar.Writer
	ids   idShift
	links map[[2]uint64]string // names of files that have several, by device and inode
	n     int64                // bytes of content

	owners *owners // nil where the tree shows them
}

func newTreeWriter(w io.Writer, ids idShift) *treeWriter {
	return &treeWriter{tw: tar.NewWriter(w), ids: ids, links: map[[2]uint64]string{}}
}

// writeTree writes what is in the directory name of dirfd, "." for dirfd itself; prefix comes before all names.
func writeTree(w io.Writer, dirfd int, name, prefix string, ids idShift, owners *owners) error {
	t := newTreeWriter(w, ids)
	t.owners = owners
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer sys.Close(fd)
	if err := t.children(fd, prefix); err != nil {
		return err
	}
	return t.tw.Close()
}

// children writes all that is in a directory.
func (t *treeWriter) children(fd int, prefix string) error {
	var names []string
	if err := sys.ReadDir(fd, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return &os.PathError{Op: "read directory", Path: prefix, Err: err}
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "." || name == ".." {
			continue
		}
		if err := t.add(sys.At{Dirfd: fd, Name: name}, prefix+name); err != nil {
			return err
		}
	}
	return nil
}

// maxName is the length in bytes of the longest name in a tar: PATH_MAX, less the NUL. A container can nest directories
// without end, and each holds the name of all that it is in.
const maxName = 4095

// add writes one object, and what is below it, as name. What has gone meanwhile is left out, and so are sockets.
func (t *treeWriter) add(at sys.At, name string) error {
	if len(name) > maxName {
		return &os.PathError{Op: "copy", Path: name[:64] + "...", Err: unix.ENAMETOOLONG}
	}
	st, err := sys.Stat(at)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFREG:
		return t.addFile(at, name)
	case unix.S_IFDIR:
		return t.addDir(at, name)
	}
	h, err := t.header(at, name, &st)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if h.Linkname, err = sys.Readlink(at); err != nil {
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
	}
	return t.tw.WriteHeader(h)
}

func (t *treeWriter) addFile(at sys.At, name string) error {
	fd, err := sys.Open(at, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // read-only
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // swapped meanwhile
	}
	h, err := t.header(sys.Fd(fd), name, &st)
	if err != nil {
		return err
	}
	key := [2]uint64{uint64(st.Dev), st.Ino}
	if st.Nlink > 1 {
		if first, ok := t.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.tw.WriteHeader(h)
		}
		t.links[key] = name
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(t.tw, f, h.Size)
	t.n += n
	if err == io.EOF { // it has become shorter
		_, err = io.CopyN(t.tw, zeros{}, h.Size-n)
	}
	return err
}

// zeros reads as zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (t *treeWriter) addDir(at sys.At, name string) error {
	fd, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer sys.Close(fd)
	st, err := sys.Stat(sys.Fd(fd))
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	name = strings.TrimSuffix(name, "/")
	h, err := t.header(sys.Fd(fd), name+"/", &st)
	if err != nil {
		return err
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if ofKernel(fd) {
		return nil
	}
	return t.children(fd, name+"/")
}

// ofKernel tells whether a directory shows the kernel and no files: what is in /proc is not copied.
func ofKernel(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	switch st.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, mqueueMagic, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC:
		return true
	}
	return false
}

// mqueueMagic is MQUEUE_MAGIC of ipc/mqueue.c.
const mqueueMagic = 0x19800202

// header describes one object.
func (t *treeWriter) header(at sys.At, name string, st *unix.Stat_t) (*tar.Header, error) {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777),
		Uid: inside(st.Uid, t.ids.uids), Gid: inside(st.Gid, t.ids.gids),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	if err := t.owners.give(h, st); err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		return h, nil
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
		return h, nil
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		return h, nil
	}
	names, err := sys.XattrNames(at)
	if err != nil && err != unix.ENOTSUP {
		return nil, &os.PathError{Op: "list attributes", Path: name, Err: err}
	}
	for _, x := range names {
		if !copiedXattr(x) {
			continue
		}
		v, err := sys.XattrValue(at, x)
		if err != nil {
			continue // gone meanwhile
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+x] = string(v)
	}
	return h, nil
}

// xattrRecord is how tars name extended attributes.
const xattrRecord = "SCHILY.xattr."

// copiedXattr tells which attributes are copied: the file's own, and not those of filesystems and policies.
func copiedXattr(name string) bool {
	if name == "security.capability" {
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") &&
		!strings.HasPrefix(name, "user.containers.") && !strings.HasPrefix(name, "user.fuseoverlayfs.")
}

// locate opens the object at p below root: a directory and a name in it, or with follow what a link at the end leads
// to. It is to be closed.
func locate(root int, p string, follow bool) (sys.At, error) {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || clean == "/" {
		follow = true
	}
	where, name := clean, ""
	if !follow {
		where, name = path.Dir(clean), path.Base(clean)
	}
	fd, err := openIn(root, where, unix.O_PATH)
	if err != nil {
		return sys.At{}, notThere(p, err)
	}
	return sys.At{Dirfd: fd, Name: name}, nil
}

// notThere says what is missing in Docker's words.
func notThere(p string, err error) error {
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return fail(os.ErrNotExist, "Could not find the file %s in the container", p)
	}
	return &os.PathError{Op: "open", Path: p, Err: err}
}

// getPath writes what is at p as a tar.
func getPath(w io.Writer, root int, p string, o *copyRequest, ids idShift, owners *owners) error {
	at, err := locate(root, p, o.FollowLink)
	if err != nil {
		return err
	}
	defer sys.Close(at.Dirfd)
	if _, err := sys.Stat(at); err != nil {
		return notThere(p, err)
	}
	t := newTreeWriter(w, ids)
	t.owners = owners
	if o.Contents {
		if err := owners.below(root, at, ""); err != nil {
			return err
		}
		fd, err := sys.Open(at, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return notThere(p, err)
		}
		defer sys.Close(fd)
		err = t.children(fd, "")
		return errors.Join(err, t.tw.Close())
	}
	name := string(o.Rename)
	if name == "" {
		name = path.Base(path.Clean("/" + p))
	}
	if name == "/" {
		name = "."
	}
	if err := owners.below(root, at, name); err != nil {
		return err
	}
	return errors.Join(t.add(at, name), t.tw.Close())
}

// statPath tells what is at p.
func statPath(root int, p string, follow bool) (api.PathStat, error) {
	at, err := locate(root, p, follow)
	if err != nil {
		return api.PathStat{}, err
	}
	defer sys.Close(at.Dirfd)
	st, err := sys.Stat(at)
	if err != nil {
		return api.PathStat{}, notThere(p, err)
	}
	s := api.PathStat{
		Name: path.Base(path.Clean("/" + p)), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix()),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		s.LinkTarget, err = sys.Readlink(at)
	}
	return s, err
}

// fileMode is a mode of stat(2) as Go has it.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, t := range []struct {
		bits uint32
		is   fs.FileMode
	}{
		{unix.S_IFDIR, fs.ModeDir}, {unix.S_IFLNK, fs.ModeSymlink}, {unix.S_IFIFO, fs.ModeNamedPipe},
		{unix.S_IFSOCK, fs.ModeSocket}, {unix.S_IFBLK, fs.ModeDevice}, {unix.S_IFCHR, fs.ModeDevice | fs.ModeCharDevice},
	} {
		if mode&unix.S_IFMT == t.bits {
			m |= t.is
		}
	}
	for _, t := range []struct {
		bit uint32
		is  fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&t.bit != 0 {
			m |= t.is
		}
	}
	return m
}
