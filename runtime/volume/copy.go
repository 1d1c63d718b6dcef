package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// copier copies a tree that is not to be trusted, entry by entry, by directory descriptors and without following links.
type copier struct {
	ctx     context.Context
	root    int              // the directory that is copied to
	links   map[inode]string // where an object with several names was copied to, below root
	skipped []string
}

type inode struct{ dev, ino uint64 }

// directory copies what is in src to dst, and then the attributes of src. Both are open; rel is dst's name below the root.
func (c *copier) directory(src, dst int, rel string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var names []string
	if err := sys.ReadDir(src, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
		return fmt.Errorf("read %q: %w", rel, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if !sys.ValidName(name) {
			return fmt.Errorf("read %q: a filesystem that calls an entry %q", rel, name)
		}
		if err := c.entry(sys.At{Dirfd: src, Name: name}, sys.At{Dirfd: dst, Name: name}, filepath.Join(rel, name)); err != nil {
			return err
		}
	}
	st, err := sys.Stat(sys.Fd(src))
	if err != nil {
		return fmt.Errorf("stat %q: %w", rel, err)
	}
	return wrap("copy", rel, attributes(sys.Fd(src), sys.Fd(dst), &st))
}

// entry copies one object of any type.
func (c *copier) entry(src, dst sys.At, rel string) error {
	st, err := sys.Stat(src)
	if err != nil {
		return wrap("stat", rel, err)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFDIR {
		return c.subdirectory(src, dst, rel)
	}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return wrap("link", rel, c.link(first, dst))
		}
		c.links[key] = rel
	}
	switch kind {
	case unix.S_IFREG:
		return wrap("copy", rel, regular(c.ctx, src, dst))
	case unix.S_IFLNK:
		target, err := sys.Readlink(src)
		if err == nil {
			err = sys.Symlink(target, dst)
		}
		if err != nil {
			return wrap("symlink", rel, err)
		}
	default:
		err := sys.Mknod(dst, st.Mode, st.Rdev)
		if errors.Is(err, unix.EPERM) && (kind == unix.S_IFCHR || kind == unix.S_IFBLK) {
			delete(c.links, inode{st.Dev, st.Ino}) // its other names are skipped each
			c.skipped = append(c.skipped, rel)
			return nil
		}
		if err != nil {
			return wrap("mknod", rel, err)
		}
	}
	return wrap("copy", rel, attributes(src, dst, &st))
}

func (c *copier) subdirectory(src, dst sys.At, rel string) error {
	from, err := sys.Open(src, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return wrap("open", rel, err)
	}
	defer sys.Close(from)
	if err := sys.Mkdir(dst, 0o700); err != nil {
		return wrap("mkdir", rel, err)
	}
	to, err := sys.Open(dst, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return wrap("open", rel, err)
	}
	defer sys.Close(to)
	return c.directory(from, to, rel)
}

// link gives what was copied as first a further name.
func (c *copier) link(first string, dst sys.At) error {
	dir, err := sys.OpenBeneath(c.root, filepath.Dir(first), unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return err
	}
	defer sys.Close(dir)
	return sys.Link(sys.At{Dirfd: dir, Name: filepath.Base(first)}, dst)
}

// regular copies a file's data, holes left out, and its attributes.
func regular(ctx context.Context, src, dst sys.At) error {
	// O_NONBLOCK: were a fifo put in the file's place, the opening would wait for a writer.
	in, err := sys.Open(src, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(in), src.Name)
	defer from.Close()
	st, err := sys.Stat(sys.Fd(in))
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("it changed its type")
	}
	out, err := sys.Open(dst, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(out), dst.Name)
	defer to.Close()
	if err := data(ctx, from, to, st.Size); err != nil {
		return err
	}
	if err := attributes(sys.Fd(in), dst, &st); err != nil {
		return err
	}
	return to.Close()
}

// data copies the parts of a file that are not holes, and its size in bytes.
func data(ctx context.Context, from, to *os.File, size int64) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		end := size
		if err != nil {
			start = at // a filesystem that does not tell
		} else if end, err = unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		end = min(end, start+64<<20) // now and then the context is asked
		if _, err := from.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(start, io.SeekStart); err != nil {
			return err
		}
		n, err := io.CopyN(to, from, end-start)
		if err == io.EOF {
			break // it was cut short meanwhile
		}
		if err != nil {
			return err
		}
		at = start + n
	}
	return to.Truncate(size)
}

// attributes copies owner, mode, extended attributes and times, in that order: a change of owner takes set-id bits and
// capabilities away, and all of them move the change time only. Owners that this user cannot give stay his own, as
// everything is in a container of a user with one id.
func attributes(src, dst sys.At, st *unix.Stat_t) error {
	if err := sys.Chown(dst, int(st.Uid), int(st.Gid)); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := sys.Chmod(dst, st.Mode&0o7777); err != nil {
			return err
		}
	}
	if err := xattrs(src, dst); err != nil {
		return err
	}
	return sys.Utimens(dst, unix.Timespec(st.Atim), unix.Timespec(st.Mtim))
}

// xattrs copies those that the volume's filesystem has room for and that this user may set.
func xattrs(src, dst sys.At) error {
	names, err := sys.XattrNames(src)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := sys.XattrValue(src, name)
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err == nil {
			err = sys.Setxattr(dst, name, value, 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// wrap names the object of an error.
func wrap(op, rel string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", op, rel, err)
}
