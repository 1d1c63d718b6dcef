package model

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// inode is one object of the model.
type inode struct {
	mode     uint32 // full st_mode
	uid, gid uint32
	nlink    int
	rdev     uint64
	data     data              // of a regular file
	target   string            // of a symbolic link
	xattrs   map[string]string // with user., trusted. or security.lamina prefix
	entries  map[string]*inode // of a directory
	parent   *inode            // of a directory that has a name; nil for the root of the tree as well

	mtime      unix.Timespec
	mtimeKnown bool // mtime was set and nothing has moved it since

	// dirtyMap says that bytes written through a mapping may still move mtime at any time.
	dirtyMap bool

	// linkable says that the object was made by O_TMPFILE and may still get its first name.
	linkable bool

	// hidden is the number of names of a lower file that no merged directory shows, because a higher layer hides
	// them. How many of them st_nlink counts is not promised.
	hidden int

	// ino is the number under which the system under test has shown the object; 0: not yet.
	ino uint64

	// lower says that the object came from a lower layer and nothing is known to have copied it up.
	lower bool

	listings []*listing
}

// listing is an iteration over a directory that goes on while the directory changes. POSIX promises of readdir():
// what is there all the time is returned exactly once, what is never there is not, the rest may be.
type listing struct {
	must map[string]bool // there since the beginning
	may  map[string]bool // there at some time since the beginning
	seen map[string]bool
}

func (i *inode) kind() uint32    { return i.mode & unix.S_IFMT }
func (i *inode) isDir() bool     { return i.kind() == unix.S_IFDIR }
func (i *inode) isReg() bool     { return i.kind() == unix.S_IFREG }
func (i *inode) isLink() bool    { return i.kind() == unix.S_IFLNK }
func (i *inode) dead() bool      { return i.nlink == 0 }
func (i *inode) touch()          { i.mtimeKnown = false }
func (i *inode) names() []string { return slices.Sorted(maps.Keys(i.entries)) }

// enter gives child the name in the directory, which must not have it.
func (i *inode) enter(name string, child *inode) {
	i.entries[name] = child
	i.touch()
	if child.isDir() {
		child.parent = i
		i.nlink++
	}
	for _, l := range i.listings {
		l.may[name] = true
	}
}

// leave takes the name away. The link count of a child that is no directory is the caller's business.
func (i *inode) leave(name string) {
	child := i.entries[name]
	delete(i.entries, name)
	i.touch()
	if child.isDir() {
		child.parent = nil
		i.nlink--
	}
	for _, l := range i.listings {
		delete(l.must, name)
		delete(l.seen, name) // it may come back, as another object
	}
}

// drop ends the object's life under one name that leave has taken away.
func (i *inode) drop() {
	if i.isDir() {
		i.nlink = 0
	} else {
		i.nlink--
	}
}

// Tree is the model: a tree, and the descriptors and mappings that are open in it.
type Tree struct {
	root    *inode
	handles map[int]*handle
	maps    map[int]*mapping
	caps    Caps
}

type handle struct {
	ino    *inode
	access uint32 // unix.O_RDONLY, O_WRONLY, O_RDWR
	append bool
	pos    int64
	list   *listing
}

type mapping struct {
	ino      *inode
	off, len int64
	writable bool
	stale    bool
}

// Caps is what the filesystem under test, or the one below it, does differently from another without being wrong.
// Each field that is not about the backing filesystem is a line in docs/DIFFERENCES.md or its reason is here.
type Caps struct {
	// ZeroRange, CollapseRange and TmpFile: the backing filesystem can do it (probed), and the way to it is open.
	// The FUSE client of the kernel knows no FALLOC_FL_COLLAPSE_RANGE and no FALLOC_FL_INSERT_RANGE.
	ZeroRange, CollapseRange, TmpFile bool

	// Whiteout is what RENAME_WHITEOUT does.
	Whiteout WhiteoutCap

	// DirNlink: st_nlink of a directory is 2 and one for every subdirectory. Kernel overlayfs shows 1.
	DirNlink bool

	// DirentIno: d_ino is st_ino. Kernel overlayfs shows that of the upper object where a file with lower links was
	// linked into a directory made after the mount.
	DirentIno bool

	// DirMtime: st_mtime of a directory that was set stays until an entry changes, also when what changes is
	// copied up from a lower layer.
	DirMtime bool

	// StaleMaps: a shared mapping made of a lower file does not see what is written after the copy-up
	// (overlayfs.rst, "Non-standard behavior").
	StaleMaps bool

	// DeadLowerDirs: the attributes of a removed directory that came from a lower layer can be changed by a descriptor.
	// Kernel overlayfs answers ENOTDIR.
	DeadLowerDirs bool

	// Umask is that of the process which executes.
	Umask uint32

	// Limits are those of the process which executes.
	Limits Limits
}

// WhiteoutCap is what a filesystem does with RENAME_WHITEOUT.
type WhiteoutCap int

const (
	WhiteoutDevice  WhiteoutCap = iota // leaves a character device 0:0 (rename(2))
	WhiteoutEINVAL                     // cannot (kernel overlayfs)
	WhiteoutNothing                    // leaves one, which in a union is a name that is not there (ours)
)

// NewTree returns a tree that holds an empty root directory.
func NewTree(caps Caps) *Tree {
	t := &Tree{caps: caps}
	t.root = t.newInode(unix.S_IFDIR | 0o755)
	t.closeAll()
	return t
}

func (t *Tree) newInode(mode uint32) *inode {
	i := &inode{mode: mode, uid: uint32(t.caps.Limits.UID), gid: uint32(t.caps.Limits.GID), xattrs: map[string]string{}}
	if i.isDir() {
		i.entries, i.nlink = map[string]*inode{}, 2
	}
	return i
}

// closeAll forgets every descriptor and mapping, as an unmount makes necessary, and with them what has no name.
func (t *Tree) closeAll() {
	t.handles, t.maps = map[int]*handle{}, map[int]*mapping{}
	t.each(func(_ string, i *inode) { i.listings, i.dirtyMap = nil, false })
}

// each calls fn for every object that has a name, parents first, once for every name.
func (t *Tree) each(fn func(path string, i *inode)) {
	var walk func(path string, i *inode)
	walk = func(path string, i *inode) {
		fn(path, i)
		for _, name := range i.names() {
			walk(join(path, name), i.entries[name])
		}
	}
	walk("", t.root)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// place is where a path leads: an object, or the directory and name where one would be made.
type place struct {
	dir  *inode
	name string
	ino  *inode // nil: there is no such entry
	long bool   // and cannot be: ENAMETOOLONG
}

const maxSymlinks = 40 // MAXSYMLINKS of the kernel

// walk resolves path from base. Symbolic links on the way are followed, the last one only where follow says so.
// Errors are those of path_resolution(7); that the last entry is missing is not one.
func (t *Tree) walk(base *inode, path string, follow bool) (place, unix.Errno) {
	links := 0
	var from func(dir *inode, path string, follow bool) (place, unix.Errno)
	from = func(dir *inode, path string, follow bool) (place, unix.Errno) {
		if strings.HasPrefix(path, "/") {
			return place{}, unix.ENOENT // absolute targets lead out of the tree, to names that are nowhere
		}
		parts := strings.Split(path, "/")
		for n, name := range parts {
			last := n == len(parts)-1
			if !dir.isDir() {
				return place{}, unix.ENOTDIR
			}
			at := place{dir, name, dir.entries[name], len(name) > unix.NAME_MAX && !dir.dead()}
			if at.long && !last {
				return place{}, unix.ENAMETOOLONG
			}
			if at.ino != nil && at.ino.isLink() && (follow || !last) {
				if links++; links > maxSymlinks {
					return place{}, unix.ELOOP
				}
				var errno unix.Errno
				if at, errno = from(dir, at.ino.target, true); errno != 0 {
					return place{}, errno
				}
			}
			if last {
				return at, 0
			}
			if at.ino == nil {
				return place{}, unix.ENOENT
			}
			dir = at.ino
		}
		panic("model: a path has at least one part")
	}
	return from(base, path, follow)
}
