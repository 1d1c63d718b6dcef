package model

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one object in one lower layer, or one mark. A directory comes before what is in it.
type Entry struct {
	Kind     string // dir, file, symlink, fifo, socket, device (1:3), hardlink, whiteout, opaque
	Layer    int    // 0 is the topmost
	Path     string
	To       string // target of a symlink; of a hardlink, the path of another entry in the same layer
	Mode     uint32 // permission bits
	UID, GID int
	Len      int64 // bytes of a file
	Hole     int64 // offset of its data; before it there are zeros that are not allocated
	Seed     uint32
	Mtime    int64  // seconds
	Name     string // of an extended attribute
	Value    string
	Format   string // of a mark: see markWriters
}

// Merge computes what a union of the layers shows, from their description alone.
func Merge(entries []Entry, caps Caps) *Tree {
	t, _ := mergeLayers(entries, caps)
	return t
}

// ForKernel leaves out what kernel overlayfs does not expect of a layer: a whiteout in a directory that no other
// layer has. It is then listed, though it cannot be found.
func ForKernel(entries []Entry) []Entry {
	_, alone := mergeLayers(entries, Caps{})
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool {
		dir, _ := split(e.Path)
		return e.Kind == "whiteout" && alone[[2]any{e.Layer, dir}]
	})
}

// mergeLayers returns besides the tree those directories, by layer and path, that are in it as their layer has them.
func mergeLayers(entries []Entry, caps Caps) (t *Tree, alone map[[2]any]bool) {
	type object struct {
		Entry
		group string // what hard links share: the path of the first name
	}
	// children holds, by layer and directory, the entries of that directory by name.
	children := map[[2]any]map[string]object{}
	opaque := map[[2]any]bool{}
	names := map[[2]any]int{} // names of a group in its layer
	shown := map[[2]any]*inode{}
	byPath := map[[2]any]object{}
	layers := 0
	for _, e := range entries {
		layers = max(layers, e.Layer+1)
		key := [2]any{e.Layer, e.Path}
		if e.Kind == "opaque" {
			opaque[key] = true
			continue
		}
		o := object{e, e.Path}
		if e.Kind == "hardlink" {
			first := byPath[[2]any{e.Layer, e.To}]
			o = object{first.Entry, first.group}
		}
		byPath[key] = o
		names[[2]any{o.Layer, o.group}]++
		dir, name := split(e.Path)
		in := [2]any{e.Layer, dir}
		if children[in] == nil {
			children[in] = map[string]object{}
		}
		children[in][name] = o
	}

	t, alone = NewTree(caps), map[[2]any]bool{}
	var merge func(dir *inode, path string, from []int)
	merge = func(dir *inode, path string, from []int) {
		if len(from) == 1 {
			alone[[2]any{from[0], path}] = true
		}
		seen := map[string]bool{}
		for _, layer := range from {
			for name := range children[[2]any{layer, path}] {
				seen[name] = true
			}
		}
		for name := range seen {
			var top *inode
			var below []int
			for _, layer := range from {
				o, ok := children[[2]any{layer, path}][name]
				if !ok {
					continue
				}
				if o.Kind == "whiteout" || (o.Kind != "dir" && top != nil) {
					break
				}
				if o.Kind != "dir" {
					group := [2]any{o.Layer, o.group}
					if top = shown[group]; top == nil {
						top = t.fromEntry(o.Entry)
						top.hidden = names[group]
						shown[group] = top
					}
					top.nlink++
					top.hidden--
					break
				}
				if top == nil {
					top = t.fromEntry(o.Entry)
				}
				below = append(below, layer)
				if opaque[[2]any{layer, join(path, name)}] {
					break
				}
			}
			if top == nil {
				continue
			}
			mtime, known := dir.mtime, dir.mtimeKnown
			dir.enter(name, top)
			dir.mtime, dir.mtimeKnown = mtime, known
			if top.isDir() {
				merge(top, join(path, name), below)
			}
		}
	}
	all := make([]int, layers)
	for i := range all {
		all[i] = i
	}
	merge(t.root, "", all)
	return t, alone
}

// entryKinds are those kinds of Entry that are objects, with their file type.
var entryKinds = map[string]uint32{"dir": unix.S_IFDIR, "file": unix.S_IFREG, "symlink": unix.S_IFLNK, "fifo": unix.S_IFIFO,
	"socket": unix.S_IFSOCK, "device": unix.S_IFCHR}

func (t *Tree) fromEntry(e Entry) *inode {
	i := t.newInode(entryKinds[e.Kind] | e.Mode)
	i.uid, i.gid, i.lower = uint32(e.UID), uint32(e.GID), true
	i.mtime, i.mtimeKnown = unix.Timespec{Sec: e.Mtime}, true
	if e.Name != "" {
		i.xattrs[e.Name] = e.Value
	}
	switch e.Kind {
	case "device":
		i.rdev = unix.Mkdev(1, 3)
	case "symlink":
		i.mode |= 0o777
		i.target = e.To
	case "file":
		i.data.truncate(e.Len)
		i.data.write(e.Hole, pattern(e.Seed, e.Hole, e.Len-e.Hole))
	}
	return i
}

func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// WriteLayers makes the entries below the directories of the layers. kernel says that all marks have to be such as
// kernel overlayfs reads.
func WriteLayers(entries []Entry, dirs []string, kernel bool) error {
	for _, e := range entries {
		if kernel {
			e.Format = map[string]string{"whiteout": "dev", "opaque": "trusted"}[e.Kind]
		}
		if err := e.write(dirs[e.Layer]); err != nil {
			return fmt.Errorf("layer entry %s: %w", encode(e), err)
		}
	}
	// Times last: what is made in a directory moves its own.
	for _, e := range slices.Backward(entries) {
		if entryKinds[e.Kind] != 0 {
			ts := []unix.Timespec{{Sec: e.Mtime}, {Sec: e.Mtime}}
			p := filepath.Join(dirs[e.Layer], e.Path)
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("times of %s: %w", p, err)
			}
		}
	}
	return nil
}

func (e Entry) write(layer string) error {
	p := filepath.Join(layer, e.Path)
	switch e.Kind {
	case "whiteout", "opaque":
		write := markWriters[e.Kind+" "+e.Format]
		if write == nil {
			return fmt.Errorf("no format %q", e.Format)
		}
		return write(p)
	case "hardlink":
		return os.Link(filepath.Join(layer, e.To), p)
	case "dir":
		if err := os.Mkdir(p, 0o700); err != nil {
			return err
		}
	case "symlink":
		if err := os.Symlink(e.To, p); err != nil {
			return err
		}
	case "fifo", "socket":
		if err := unix.Mknod(p, entryKinds[e.Kind]|0o600, 0); err != nil {
			return err
		}
	case "device":
		if err := unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
			return err
		}
	case "file":
		if err := e.writeFile(p); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no kind %q", e.Kind)
	}
	if err := os.Lchown(p, e.UID, e.GID); err != nil {
		return err
	}
	if e.Kind != "symlink" {
		if err := unix.Chmod(p, e.Mode); err != nil {
			return err
		}
	}
	if e.Name != "" {
		return unix.Lsetxattr(p, e.Name, []byte(e.Value), 0)
	}
	return nil
}

func (e Entry) writeFile(p string) error {
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(e.Len); err != nil {
		return err
	}
	_, err = f.WriteAt(pattern(e.Seed, e.Hole, e.Len-e.Hole), e.Hole)
	return err
}

// markWriters are all the formats in which a layer may come, by kind and format of the entry.
var markWriters = map[string]func(path string) error{
	"whiteout wh": func(p string) error {
		return os.WriteFile(filepath.Join(filepath.Dir(p), ".wh."+filepath.Base(p)), nil, 0)
	},
	"whiteout dev": func(p string) error { return unix.Mknod(p, unix.S_IFCHR, 0) },
	"whiteout xattr": func(p string) error { // overlayfs.rst, "whiteouts and opaque directories": needs a marked parent
		if err := os.WriteFile(p, nil, 0); err != nil {
			return err
		}
		if err := unix.Lsetxattr(p, "trusted.overlay.whiteout", []byte("y"), 0); err != nil {
			return err
		}
		return unix.Lsetxattr(filepath.Dir(p), "trusted.overlay.opaque", []byte("x"), 0)
	},
	"opaque wh":     func(p string) error { return os.WriteFile(filepath.Join(p, ".wh..wh..opq"), nil, 0) },
	"opaque legacy": func(p string) error { return os.WriteFile(filepath.Join(p, ".wh..opq"), nil, 0) },
	"opaque beside": func(p string) error { // what lower layers have under the name is gone, the name is not
		return os.WriteFile(filepath.Join(filepath.Dir(p), ".wh."+filepath.Base(p)), nil, 0)
	},
	"opaque trusted": func(p string) error { return unix.Lsetxattr(p, "trusted.overlay.opaque", []byte("y"), 0) },
	"opaque user":    func(p string) error { return unix.Lsetxattr(p, "user.overlay.opaque", []byte("y"), 0) },
	"opaque fuse":    func(p string) error { return unix.Lsetxattr(p, "user.fuseoverlayfs.opaque", []byte("y"), 0) },
}

// RandomLayers describes n layers. Names are few, so that layers meet.
func RandomLayers(r *rand.Rand, n int) []Entry {
	var entries []Entry
	for layer := range n {
		var files []string
		var fill func(dir string, depth int)
		fill = func(dir string, depth int) {
			for _, name := range poolNames {
				if r.IntN(100) < 35+10*depth {
					continue
				}
				e := Entry{Layer: layer, Path: join(dir, name), Mode: randomMode(r), Mtime: int64(r.IntN(1 << 30))}
				if r.IntN(3) == 0 {
					e.UID, e.GID = r.IntN(3), r.IntN(3)
				}
				if r.IntN(4) == 0 {
					e.Name, e.Value = pick(r, xattrNames[1:]), pick(r, xattrValues)
				}
				switch k := r.IntN(20); {
				case k < 7 && depth < 3:
					e.Kind, e.Mode = "dir", randomDirMode(r)
					entries = append(entries, e)
					if layer < n-1 && r.IntN(5) == 0 {
						entries = append(entries, Entry{Kind: "opaque", Layer: layer, Path: e.Path,
							Format: pick(r, []string{"wh", "beside", "trusted", "user", "fuse", "legacy"})})
					}
					fill(e.Path, depth+1)
					continue
				case k < 10 && layer < n-1:
					e = Entry{Kind: "whiteout", Layer: layer, Path: e.Path}
					// The format with an attribute marks the parent, which must not be the layer's root.
					if e.Format = pick(r, []string{"wh", "dev", "xattr"}); e.Format == "xattr" && (dir == "" || opaqueIn(entries, layer, dir)) {
						e.Format = "dev"
					}
				case k < 12 && len(files) > 0:
					e = Entry{Kind: "hardlink", Layer: layer, Path: e.Path, To: pick(r, files)}
				case k == 12:
					e.Kind, e.To, e.Mode = "symlink", randomTarget(r), 0
					if strings.HasPrefix(e.Name, "user.") {
						e.Name = ""
					}
				case k == 13:
					e.Kind = "fifo"
					if strings.HasPrefix(e.Name, "user.") {
						e.Name = ""
					}
				default:
					e.Kind, e.Seed = "file", r.Uint32()>>16
					if e.Len = randomLen(r); r.IntN(5) == 0 {
						e.Hole = randomLen(r)
						e.Len += e.Hole
					}
					files = append(files, e.Path)
				}
				entries = append(entries, e)
			}
		}
		fill("", 0)
	}
	return entries
}

func opaqueIn(entries []Entry, layer int, dir string) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		return e.Kind == "opaque" && e.Layer == layer && e.Path == dir
	})
}

// Under returns the entries moved below a directory that each layer gets.
func Under(dir string, layers int, entries []Entry) []Entry {
	var out []Entry
	for layer := range layers {
		out = append(out, Entry{Kind: "dir", Layer: layer, Path: dir, Mode: 0o755})
	}
	for _, e := range entries {
		e.Path = join(dir, e.Path)
		if e.Kind == "hardlink" {
			e.To = join(dir, e.To)
		}
		out = append(out, e)
	}
	return out
}

// WriteTree makes the tree below an empty directory of a plain filesystem.
func (t *Tree) WriteTree(dir string) error {
	first := map[*inode]string{}
	var err error
	t.each(func(path string, i *inode) {
		if p := filepath.Join(dir, path); err == nil && i != t.root {
			if old, ok := first[i]; ok {
				err = os.Link(old, p)
			} else {
				first[i], err = p, i.writePlain(p)
			}
		}
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p) // p is below dir
		at, _ := t.walk(t.root, rel, false)
		if err != nil || rel == "." || !at.ino.mtimeKnown {
			return err
		}
		ts := []unix.Timespec{at.ino.mtime, at.ino.mtime}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (i *inode) writePlain(p string) error {
	e := Entry{Path: filepath.Base(p), Mode: i.mode &^ unix.S_IFMT, UID: int(i.uid), GID: int(i.gid), To: i.target}
	switch i.kind() {
	case unix.S_IFDIR:
		e.Kind = "dir"
	case unix.S_IFLNK:
		e.Kind = "symlink"
	case unix.S_IFIFO:
		e.Kind = "fifo"
	case unix.S_IFSOCK:
		e.Kind = "socket"
	case unix.S_IFCHR:
		e.Kind = "device"
	case unix.S_IFREG:
		e.Kind = "file"
	}
	for e.Name, e.Value = range i.xattrs {
	}
	if err := e.write(filepath.Dir(p)); err != nil || !i.isReg() {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for n := range i.data.pages {
		if _, err := f.WriteAt(i.data.read(n*pageSize, pageSize), n*pageSize); err != nil {
			return err
		}
	}
	return f.Truncate(i.data.size)
}
