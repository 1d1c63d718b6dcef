package model

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Object is what a real tree shows of one name.
type Object struct {
	Path   string
	Stat   Stat
	Names  []Name   // of a directory
	Data   [][]byte // of a regular file, by windows
	Target string   // of a symbolic link
	Xattrs []Xattr  // by name
}

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Snapshot is all of a real tree, parents first.
type Snapshot []Object

// TakeSnapshot reads the tree below the directory path. pages tells for the large files, by path, where they are
// to be looked at: see windows.
func TakeSnapshot(path string, pages map[string][]int64) (Snapshot, error) {
	var s Snapshot
	return s, s.add(path, "", pages)
}

func (s *Snapshot) add(root, path string, pages map[string][]int64) error {
	p := filepath.Join(root, path)
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return fmt.Errorf("stat %q: %w", path, err)
	}
	o := Object{Path: path, Stat: *statOf(&st)}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		o.Target, err = os.Readlink(p)
	case unix.S_IFREG:
		err = o.read(p, pages[path])
	case unix.S_IFDIR:
		var fd int
		if fd, err = unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			o.Names, err = readNames(fd)
			_ = unix.Close(fd) // a directory
		}
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	names, err := listxattr(p, false)
	if err != nil {
		return fmt.Errorf("list xattrs of %q: %w", path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		buf := make([]byte, 4096)
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil {
			return fmt.Errorf("xattr %s of %q, which is listed: %w", name, path, err)
		}
		o.Xattrs = append(o.Xattrs, Xattr{name, string(buf[:n])})
	}
	*s = append(*s, o)
	for _, n := range o.Names {
		if err := s.add(root, join(path, n.Name), pages); err != nil {
			return err
		}
	}
	return nil
}

func (o *Object) read(p string, pages []int64) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, w := range windows(o.Stat.Size, pages) {
		b := make([]byte, w[1]-w[0])
		if n, err := f.ReadAt(b, w[0]); err != nil {
			return fmt.Errorf("%d of %d bytes at %d: %w", n, len(b), w[0], err)
		}
		o.Data = append(o.Data, b)
	}
	return nil
}

// Pages returns where the large files of the model have data, for TakeSnapshot.
func (t *Tree) Pages() map[string][]int64 {
	m := map[string][]int64{}
	t.each(func(path string, i *inode) {
		if len(i.data.pages) > 0 {
			m[path] = slices.Sorted(maps.Keys(i.data.pages))
		}
	})
	return m
}

// lookup returns the object of a path from the root, nil where there is none.
func (t *Tree) lookup(path string) *inode {
	if path == "" {
		return t.root
	}
	at, _ := t.walk(t.root, path, false)
	return at.ino
}

// maxDiffs is how many differences of a tree are worth reading.
const maxDiffs = 8

// Diff compares a real tree with the model and says what is wrong with it.
func (t *Tree) Diff(s Snapshot) []string {
	var diffs []string
	diff := func(path, format string, args ...any) {
		diffs = append(diffs, fmt.Sprintf("%q: ", path)+fmt.Sprintf(format, args...))
	}
	owner := map[uint64]*inode{}
	name := map[uint64]string{}
	for n := range s {
		o := &s[n]
		i := t.lookup(o.Path)
		if i == nil {
			continue // said of the directory that lists it
		}
		if msg := t.diffStat(i, &o.Stat); msg != "" {
			diff(o.Path, "%s", msg)
			continue
		}
		if owner[o.Stat.Ino] != nil && owner[o.Stat.Ino] != i {
			diff(o.Path, "st_ino %d is also that of %q", o.Stat.Ino, name[o.Stat.Ino])
		}
		if owner[o.Stat.Ino], name[o.Stat.Ino] = i, o.Path; o.Stat.Dev != s[0].Stat.Dev {
			diff(o.Path, "st_dev %d, that of the root is %d", o.Stat.Dev, s[0].Stat.Dev)
		}
		if i.isLink() && o.Target != i.target {
			diff(o.Path, "links to %q, want %q", o.Target, i.target)
		}
		if i.isReg() {
			for n, w := range windows(i.data.size, slices.Sorted(maps.Keys(i.data.pages))) {
				if msg := diffBytes(o.Data[n], i.data.read(w[0], w[1]-w[0]), w[0]); msg != "" {
					diff(o.Path, "content: %s", msg)
				}
			}
		}
		want := []Xattr(nil)
		for _, name := range slices.Sorted(maps.Keys(i.xattrs)) {
			want = append(want, Xattr{name, i.xattrs[name]})
		}
		if !slices.Equal(o.Xattrs, want) {
			diff(o.Path, "xattrs %q, want %q", o.Xattrs, want)
		}
	}
	for n := range s { // after all the attributes, so that every inode number is known
		if i := t.lookup(s[n].Path); i != nil && i.isDir() {
			if msg := t.diffNames(i, s[n].Names); msg != "" {
				diff(s[n].Path, "%s", msg)
			}
		}
	}
	if len(diffs) > maxDiffs {
		diffs = append(diffs[:maxDiffs], fmt.Sprintf("and %d more", len(diffs)-maxDiffs))
	}
	return diffs
}
