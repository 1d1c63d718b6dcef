package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/compression"
)

// CopyOptions are those of docker cp.
type CopyOptions struct {
	FollowLink bool // -L: a source that is a symbolic link stands for its target
	Archive    bool // -a: keep owners
}

// copyEnd is one end of a copy, as docker cp looks at it.
type copyEnd struct {
	path      string // as given
	exists    bool
	dir       bool
	parentDir bool // a destination that does not exist, in a directory that does
}

// asserted tells whether the path says that it is a directory.
func (e *copyEnd) asserted() bool {
	return strings.HasSuffix(e.path, "/") || strings.HasSuffix(e.path, "/.") || e.path == "."
}

// contents tells whether the path means what is in the directory.
func (e *copyEnd) contents() bool { return strings.HasSuffix(e.path, "/.") || e.path == "." }

// plan decides where a copy goes: into which directory, and under which name; an empty one is the contents of the
// source alone. Source: docker cp's manual, and moby's go-archive, PrepareArchiveCopy.
func plan(src, dst *copyEnd) (dir, name string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", fail(ErrInvalid, format, args...)
	}
	if !src.dir && src.asserted() {
		return bad("not a directory: %s", src.path)
	}
	switch {
	case dst.exists && dst.dir && src.dir && src.contents():
		return dst.path, "", nil
	case dst.exists && dst.dir:
		return dst.path, baseName(src.path), nil
	case dst.exists && src.dir:
		return bad("cannot copy directory")
	case dst.exists && dst.asserted():
		return bad("not a directory: %s", dst.path)
	case !dst.exists && !dst.parentDir:
		return bad("invalid output path: directory %q does not exist", filepath.Dir(filepath.Clean(dst.path)))
	case !dst.exists && !src.dir && dst.asserted():
		return bad("no such directory: %s", dst.path)
	}
	clean := filepath.Clean(dst.path)
	return filepath.Dir(clean), filepath.Base(clean), nil
}

// baseName is what a source is called at its destination.
func baseName(p string) string {
	base := path.Base(path.Clean(p))
	if base == "/" || base == "." || base == ".." {
		return ""
	}
	return base
}

// inContainer looks at a path of the container.
func (c *Container) inContainer(ctx context.Context, p string, follow, parent bool) (*copyEnd, error) {
	e := &copyEnd{path: p}
	if !path.IsAbs(p) {
		e.path = "/" + p // docker cp: relative to the root
	}
	st, err := c.statPath(ctx, e.path, follow)
	switch {
	case err == nil:
		e.exists, e.dir = true, st.Mode.IsDir()
	case missing(err) && parent:
		up, err := c.statPath(ctx, path.Dir(path.Clean(e.path)), true)
		if err != nil && !missing(err) {
			return nil, err
		}
		e.parentDir = err == nil && up.Mode.IsDir()
	default:
		return nil, err
	}
	return e, nil
}

// destination looks at where a copy goes to. A link stands for what it leads to, which need not be there.
func (c *Container) destination(ctx context.Context, p string) (*copyEnd, error) {
	e, err := c.inContainer(ctx, p, true, true)
	for links := 0; err == nil && !e.dir; links++ {
		st, statErr := c.statPath(ctx, e.path, false)
		if missing(statErr) || statErr == nil && st.Mode&os.ModeSymlink == 0 {
			break
		}
		if statErr == nil && links == maxLinks {
			statErr = &os.PathError{Op: "follow", Path: p, Err: unix.ELOOP}
		}
		if statErr != nil {
			return nil, statErr
		}
		to := st.LinkTarget
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(path.Clean(e.path)), to)
		}
		e, err = c.inContainer(ctx, to, true, true)
	}
	return e, err
}

const maxLinks = 40 // as the kernel has it (path_resolution(7))

func (c *Container) statPath(ctx context.Context, p string, follow bool) (api.PathStat, error) {
	var st rawPathStat
	err := c.withTree(ctx, request{Op: opStatPath, Path: rawName(p), Copy: &copyRequest{FollowLink: follow}}, &st)
	return st.stat(), err
}

// onHost looks at a path of the machine.
func onHost(p string, follow bool) (*copyEnd, error) {
	e := &copyEnd{path: p}
	stat := os.Lstat
	if follow || e.asserted() {
		stat = os.Stat
	}
	fi, err := stat(p)
	switch {
	case err == nil:
		e.exists, e.dir = true, fi.IsDir()
	case missing(err):
		up, err := os.Stat(filepath.Dir(filepath.Clean(p)))
		e.parentDir = err == nil && up.IsDir()
	default:
		return nil, err
	}
	return e, nil
}

// destinationOnHost looks at where a copy goes to, as destination does.
func destinationOnHost(p string) (*copyEnd, error) {
	e, err := onHost(p, true)
	for links := 0; err == nil && !e.dir; links++ {
		to, linkErr := os.Readlink(e.path)
		if linkErr != nil {
			break // it is none, or not there
		}
		if links == maxLinks {
			return nil, &os.PathError{Op: "follow", Path: p, Err: unix.ELOOP}
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(e.path)))
			if err != nil {
				return nil, err
			}
			to = filepath.Join(dir, to)
		}
		e, err = onHost(to, true)
	}
	return e, err
}

// CopyOut copies src of the container to dst on the machine, with docker cp's rules for what is a directory and what a
// trailing slash or "/." means. With dst "-" it writes a tar to stdout. n is bytes of content.
func (c *Container) CopyOut(ctx context.Context, src, dst string, stdout io.Writer, o CopyOptions) (n int64, err error) {
	from, err := c.inContainer(ctx, src, o.FollowLink, false)
	if err != nil {
		return 0, err
	}
	req := request{Op: opGet, Path: rawName(from.path), Copy: &copyRequest{FollowLink: o.FollowLink}}
	if dst == "-" {
		req.Copy.Owners = true
		req.Copy.Contents = from.dir && from.contents()
		return 0, c.get(ctx, req, func(r io.Reader) error {
			n, err = io.Copy(stdout, r)
			return err
		})
	}
	to, err := destinationOnHost(dst)
	if err != nil {
		return 0, err
	}
	dir, name, err := plan(from, to)
	if err != nil {
		return 0, err
	}
	req.Copy.Rename, req.Copy.Contents = rawName(name), name == ""
	abs, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return 0, err
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer sys.Close(root)
	// The tar comes from the container: no link in it is followed.
	t := &treeReader{root: root, dir: abs, o: &copyRequest{Archive: o.Archive, NoDirOver: true}, parent: -1}
	err = c.get(ctx, req, t.run)
	return t.n, err
}

// CopyIn copies src on the machine to dst in the container, whether it runs or not. With src "-" it reads a tar from
// stdin, compressed or not, and dst is a directory. Symbolic links are resolved within the container's root.
func (c *Container) CopyIn(ctx context.Context, src, dst string, stdin io.Reader, o CopyOptions) (n int64, err error) {
	to, err := c.destination(ctx, dst)
	if err != nil {
		return 0, err
	}
	if src == "-" {
		if !to.exists || !to.dir {
			return 0, fail(ErrInvalid, "destination %q must be a directory", c.r.Name+":"+dst)
		}
		req := request{Op: opPut, Path: rawName(to.path), Copy: &copyRequest{Archive: true, NoDirOver: true}}
		return 0, c.put(ctx, req, func(w io.Writer) error {
			z, err := compression.Open(ctx, stdin)
			if err != nil {
				return err
			}
			defer z.Close()
			n, err = io.Copy(w, z)
			return err
		})
	}
	from, err := onHost(src, o.FollowLink)
	if err != nil {
		return 0, err
	}
	if !from.exists {
		return 0, &os.PathError{Op: "lstat", Path: src, Err: os.ErrNotExist}
	}
	abs, err := filepath.Abs(src) // "." has a name
	if err != nil {
		return 0, err
	}
	named := *from
	if !from.contents() {
		named.path = abs
		if from.asserted() {
			named.path += "/"
		}
	}
	dir, name, err := plan(&named, to)
	if err != nil {
		return 0, err
	}
	req := request{Op: opPut, Path: rawName(dir), Copy: &copyRequest{Archive: o.Archive, NoDirOver: true}}
	t := newTreeWriter(nil, idShift{})
	err = c.put(ctx, req, func(w io.Writer) error {
		return t.fromHost(w, abs, name, o.FollowLink || from.asserted())
	})
	return t.n, err
}

// fromHost writes a file or directory of the machine as a tar; without a name what is in the directory.
func (t *treeWriter) fromHost(w io.Writer, abs, name string, follow bool) error {
	*t = *newTreeWriter(w, idShift{})
	if name == "" {
		fd, err := unix.Open(abs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: abs, Err: err}
		}
		defer sys.Close(fd)
		return errors.Join(t.children(fd, ""), t.tw.Close())
	}
	if follow {
		var err error
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return err
		}
	}
	fd, err := unix.Open(filepath.Dir(abs), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(abs), Err: err}
	}
	defer sys.Close(fd)
	return errors.Join(t.add(sys.At{Dirfd: fd, Name: filepath.Base(abs)}, name), t.tw.Close())
}
