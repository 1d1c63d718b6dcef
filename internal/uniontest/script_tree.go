package uniontest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// Spelling is how the generic marks of a script are written on disk.
type spelling string

const (
	spellWH      spelling = "wh"      // .wh. files
	spellOverlay spelling = "overlay" // devices, and attributes of the user namespace
	spellKernel  spelling = "kernel"  // devices, and attributes of the trusted namespace
)

type buildRequest struct {
	Dir      string
	Entries  []Entry
	Spelling spelling
}

// buildLayer makes the entries below a layer's directory.
func buildLayer(r buildRequest) (none, error) {
	defer unix.Umask(unix.Umask(0))
	entries := withParents(r.Entries)
	for _, e := range entries {
		if e.Type == 'h' {
			continue
		}
		if err := buildEntry(r.Dir, e, r.Spelling); err != nil {
			return false, fmt.Errorf("make %s: %w", e, err)
		}
	}
	for _, e := range entries {
		if e.Type != 'h' {
			continue
		}
		if err := os.Link(filepath.Join(r.Dir, e.Target), filepath.Join(r.Dir, e.Path)); err != nil {
			return false, err
		}
	}
	// From the leaves up, so that nothing made later moves a time or needs a permission that is gone.
	for _, e := range slices.Backward(entries) {
		if e.Type == 'h' || e.Type == 'w' {
			continue
		}
		if err := finishEntry(filepath.Join(r.Dir, e.Path), e); err != nil {
			return false, fmt.Errorf("set attributes of %s: %w", e, err)
		}
	}
	return false, nil
}

func buildEntry(dir string, e Entry, sp spelling) error {
	p := filepath.Join(dir, e.Path)
	switch e.Type {
	case 'd':
		if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	case 'f':
		f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if e.Sparse {
			return f.Truncate(e.Size)
		}
		_, err = f.WriteString(e.Content)
		return err
	case 'l':
		return os.Symlink(e.Target, p)
	case 'p':
		return unix.Mkfifo(p, 0o644)
	case 's':
		return unix.Mknod(p, unix.S_IFSOCK|0o644, 0)
	case 'c':
		return unix.Mknod(p, unix.S_IFCHR|0o644, int(e.Rdev))
	case 'b':
		return unix.Mknod(p, unix.S_IFBLK|0o644, int(e.Rdev))
	}
	for _, m := range e.Marks {
		if err := buildMark(p, m, sp); err != nil {
			return fmt.Errorf("mark %s: %w", m, err)
		}
	}
	return nil
}

func buildMark(p, mark string, sp spelling) error {
	ns := "user."
	if sp == spellKernel {
		ns = "trusted."
	}
	if to, ok := strings.CutPrefix(mark, "redirect:"); ok {
		return unix.Lsetxattr(p, ns+"overlay.redirect", []byte(to), 0)
	}
	switch mark {
	case "whiteout":
		mark = "chardev"
		if sp == spellWH {
			mark = "wh"
		}
	case "opaque":
		if sp == spellWH {
			mark = "opq"
			break
		}
		return unix.Lsetxattr(p, ns+"overlay.opaque", []byte("y"), 0)
	}
	switch mark {
	case "wh":
		return unix.Mknod(filepath.Join(filepath.Dir(p), ".wh."+filepath.Base(p)), unix.S_IFREG, 0)
	case "chardev":
		return unix.Mknod(p, unix.S_IFCHR, 0)
	case "whx":
		if err := unix.Mknod(p, unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
		return unix.Lsetxattr(p, ns+"overlay.whiteout", []byte("y"), 0)
	case "opq":
		return unix.Mknod(filepath.Join(p, ".wh..wh..opq"), unix.S_IFREG, 0)
	case "opq-legacy":
		return unix.Mknod(filepath.Join(p, ".wh..opq"), unix.S_IFREG, 0)
	case "opaque-x":
		return unix.Lsetxattr(p, ns+"overlay.opaque", []byte("x"), 0)
	case "opaque-user":
		return unix.Lsetxattr(p, "user.overlay.opaque", []byte("y"), 0)
	case "opaque-trusted":
		return unix.Lsetxattr(p, "trusted.overlay.opaque", []byte("y"), 0)
	case "opaque-fo":
		return unix.Lsetxattr(p, "user.fuseoverlayfs.opaque", []byte("y"), 0)
	}
	return fmt.Errorf("unknown mark")
}

func finishEntry(p string, e Entry) error {
	for name, value := range e.Xattrs {
		if err := unix.Lsetxattr(p, name, []byte(value), 0); err != nil {
			return err
		}
	}
	if e.UID.Set {
		if err := unix.Lchown(p, int(e.UID.V), int(e.GID.V)); err != nil {
			return err
		}
	}
	if e.Mode.Set {
		if err := unix.Chmod(p, uint32(e.Mode.V)); err != nil {
			return err
		}
	}
	if e.Mtime.Set {
		ts := []unix.Timespec{{Sec: e.Mtime.V}, {Sec: e.Mtime.V}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// object is one object of a tree as it is listed.
type object struct {
	Path   string
	Mode   uint32 // st_mode
	UID    uint32
	GID    uint32
	Rdev   uint64
	Dev    uint64
	Ino    uint64
	Nlink  uint64
	Size   int64
	Mtime  int64
	DIno   uint64 // d_ino and d_type of its directory entry
	DType  uint8
	Bytes  []byte // content up to smallContent
	Sum    string // of longer content, up to maxContent
	Target string
	Xattrs map[string]string
	Err    string // why it could not be read
}

// listTree lists everything below dir, and dir itself as ".", in order of paths.
func listTree(dir string) ([]object, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	var out []object
	root, err := listObject(fd, ".", ".")
	if err != nil {
		return nil, err
	}
	out = append(out, root)
	err = listDir(fd, "", &out)
	slices.SortFunc(out, func(a, b object) int { return strings.Compare(a.Path, b.Path) })
	return out, err
}

func listDir(dirfd int, prefix string, out *[]object) error {
	entries, err := readEntries(dirfd)
	if err != nil {
		return fmt.Errorf("readdir %q: %w", prefix, err)
	}
	seen := map[string]bool{}
	for _, de := range entries {
		p := path.Join(prefix, de.name)
		if seen[de.name] {
			return fmt.Errorf("readdir shows %q twice", p)
		}
		seen[de.name] = true
		if de.name == "." || de.name == ".." {
			continue
		}
		o, err := listObject(dirfd, de.name, p)
		if err != nil {
			return err
		}
		o.DIno, o.DType = de.ino, de.typ
		*out = append(*out, o)
		if o.Mode&unix.S_IFMT != unix.S_IFDIR || o.Err != "" {
			continue
		}
		fd, err := unix.Openat(dirfd, de.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %q: %w", p, err)
		}
		err = listDir(fd, p, out)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func listObject(dirfd int, name, p string) (object, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return object{}, fmt.Errorf("stat %q, which readdir shows: %w", p, err)
	}
	o := object{Path: p, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Dev: st.Dev, Ino: st.Ino,
		Nlink: st.Nlink, Size: st.Size, Mtime: st.Mtim.Sec}
	full := fmt.Sprintf("/proc/self/fd/%d/%s", dirfd, name)
	o.Xattrs, o.Err = readXattrs(full)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			o.Err = "readlink: " + err.Error()
		}
		o.Target = string(buf[:max(n, 0)])
	case unix.S_IFREG:
		if o.Size == 0 || o.Size > maxContent {
			break
		}
		fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			o.Err = "open: " + err.Error()
			break
		}
		f := os.NewFile(uintptr(fd), p)
		defer f.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(f); err != nil {
			o.Err = "read: " + err.Error()
		}
		if int64(b.Len()) != o.Size {
			o.Err = fmt.Sprintf("holds %d bytes, st_size is %d", b.Len(), o.Size)
		}
		if b.Len() <= smallContent {
			o.Bytes = b.Bytes()
		} else {
			o.Sum = sum(b.String())
		}
	}
	return o, nil
}

func readXattrs(p string) (map[string]string, string) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, ""
	}
	if err != nil {
		return nil, "listxattr: " + err.Error()
	}
	out := map[string]string{}
	if n == 0 {
		return out, ""
	}
	val := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(p, name, val)
		if err != nil {
			return out, fmt.Sprintf("getxattr %s, which listxattr shows: %v", name, err)
		}
		out[name] = string(val[:n])
	}
	return out, ""
}

type dirEntry struct {
	name string
	ino  uint64
	typ  uint8
}

// readEntries reads a directory from its start with getdents64(2), because d_ino and d_type matter here.
func readEntries(fd int) ([]dirEntry, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	var out []dirEntry
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return out, err
		}
		if n == 0 {
			return out, nil
		}
		for b := buf[:n]; len(b) > 0; {
			// struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, name
			ino := leUint64(b)
			reclen := int(b[16]) | int(b[17])<<8
			name, _, _ := bytes.Cut(b[19:reclen], []byte{0})
			out = append(out, dirEntry{string(name), ino, b[18]})
			b = b[reclen:]
		}
	}
}

func leUint64(b []byte) uint64 {
	var v uint64
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// bookkeeping reports whether an attribute of an object in the upper is a record of the union's own that no script
// speaks of.
func bookkeeping(attr string) bool {
	for _, p := range []string{"user.lamina.", "trusted.lamina.", "user.overlay.", "trusted.overlay.",
		"user.fuseoverlayfs.", "security.fuseoverlayfs."} {
		if rest, ok := strings.CutPrefix(attr, p); ok && !strings.HasPrefix(rest, "overlay.") {
			return true
		}
	}
	return attr == "user.containers.override_stat"
}

// abstract turns the objects of an upper into entries, with marks of every format in their generic spelling. how are
// the formats that were met.
func abstract(objects []object) (entries []Entry, how map[string]bool) {
	how = map[string]bool{}
	dirs := map[string][]string{}
	for _, o := range objects {
		name := path.Base(o.Path)
		switch hidden, isWh := strings.CutPrefix(name, ".wh."); {
		case name == ".wh..wh..opq" || name == ".wh..opq":
			dirs[path.Dir(o.Path)] = append(dirs[path.Dir(o.Path)], "opaque")
			how["wh"] = true
			continue
		case isWh && !strings.HasPrefix(hidden, ".wh."):
			how["wh"] = true
			e := Entry{Path: path.Join(path.Dir(o.Path), hidden), Type: 'w', Marks: []string{"whiteout"}}
			if o.Mode&unix.S_IFMT != unix.S_IFREG || o.Size != 0 {
				e.Marks = []string{fmt.Sprintf("whiteout of mode %o and size %d, not an empty file", o.Mode, o.Size)}
			}
			entries = append(entries, e)
			continue
		case o.Mode&unix.S_IFMT == unix.S_IFCHR && o.Rdev == 0:
			if len(name) <= whiteout.MaxName { // a longer one has no other whiteout
				how["overlay"] = true
			}
			entries = append(entries, Entry{Path: o.Path, Type: 'w', Marks: []string{"whiteout"}})
			continue
		}
		if o.Xattrs["user.overlay.whiteout"] != "" || o.Xattrs["trusted.overlay.whiteout"] != "" {
			how["overlay"] = true
			entries = append(entries, Entry{Path: o.Path, Type: 'w', Marks: []string{"whiteout"}})
			continue
		}
		e := o.entry()
		for _, ns := range []string{"user.", "trusted."} {
			if o.Xattrs[ns+"overlay.opaque"] == "y" && !slices.Contains(e.Marks, "opaque") {
				how["overlay"] = true
				e.Marks = append(e.Marks, "opaque")
			}
			if to := o.Xattrs[ns+"overlay.redirect"]; to != "" && !slices.Contains(e.Marks, "redirect:"+to) {
				e.Marks = append(e.Marks, "redirect:"+to)
			}
		}
		if o.Xattrs["user.fuseoverlayfs.opaque"] == "y" && !slices.Contains(e.Marks, "opaque") {
			how["overlay"] = true
			e.Marks = append(e.Marks, "opaque")
		}
		for attr := range e.Xattrs {
			if bookkeeping(attr) {
				delete(e.Xattrs, attr)
			}
		}
		entries = append(entries, e)
	}
	for i := range entries {
		e := &entries[i]
		for _, m := range dirs[e.Path] {
			if e.Type == 'd' && !slices.Contains(e.Marks, m) {
				e.Marks = append(e.Marks, m)
			}
		}
		slices.Sort(e.Marks)
	}
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return int(b.Type) - int(a.Type)
	})
	return entries, how
}

// entry says everything that a script can about o.
func (o object) entry() Entry {
	e := Entry{Path: o.Path, Size: o.Size, Mode: some(o.Mode & 0o7777), UID: some(o.UID), GID: some(o.GID),
		Mtime: some(o.Mtime), Nlink: some(o.Nlink), Xattrs: o.Xattrs, Rdev: o.Rdev}
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Type, e.Size = 'd', 0
	case unix.S_IFREG:
		e.Type, e.Content, e.Sum = 'f', string(o.Bytes), o.Sum
		e.Sparse = o.Size > maxContent
	case unix.S_IFLNK:
		e.Type, e.Target = 'l', o.Target
	case unix.S_IFIFO:
		e.Type = 'p'
	case unix.S_IFSOCK:
		e.Type = 's'
	case unix.S_IFCHR:
		e.Type = 'c'
	case unix.S_IFBLK:
		e.Type = 'b'
	}
	return e
}

// only keeps of a what the expectation e speaks of, so that the two can be shown side by side.
func (a Entry) only(e Entry) Entry {
	if !e.Mode.Set {
		a.Mode = opt{}
	}
	if !e.UID.Set {
		a.UID, a.GID = opt{}, opt{}
	}
	if !e.Mtime.Set {
		a.Mtime = opt{}
	}
	if !e.Nlink.Set {
		a.Nlink = opt{}
	}
	if slices.Equal(e.Marks, []string{"redirect:*"}) || slices.Equal(e.Marks, []string{"opaque", "redirect:*"}) {
		a.Marks = slices.Clone(a.Marks)
		for i, m := range a.Marks {
			if strings.HasPrefix(m, "redirect:") {
				a.Marks[i] = "redirect:*"
			}
		}
	}
	if slices.Equal(e.Marks, []string{"opaque?"}) && (len(a.Marks) == 0 || slices.Equal(a.Marks, []string{"opaque"})) {
		a.Marks = e.Marks
	}
	if e.Any && a.Type == 'f' {
		a.Any = true
	}
	a.Sparse = e.Sparse && a.Size == e.Size
	return a
}

// plainXattrs are the attributes that a script has to name where an object of the merged tree has them.
func plainXattrs(all map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range all {
		if k != "security.selinux" && !strings.HasPrefix(k, "system.posix_acl_") {
			out[k] = v
		}
	}
	return out
}

// compareTrees lists how what is there differs from what is expected, line by line.
func compareTrees(want, got []Entry, xattrs bool) []string {
	want = withParents(want)
	var out []string
	key := func(e Entry) string {
		if e.Type == 'w' {
			return e.Path + "\x00whiteout"
		}
		return e.Path
	}
	have := map[string]Entry{}
	for _, e := range got {
		have[key(e)] = e
	}
	wanted := map[string]bool{}
	for _, e := range want {
		wanted[key(e)] = true
		g, ok := have[key(e)]
		if !ok {
			out = append(out, "missing: "+e.String())
			continue
		}
		if e.Type == 'h' { // compared by the caller, who knows inode numbers
			continue
		}
		g = g.only(e)
		g.Xattrs = plainXattrs(g.Xattrs)
		if e.Xattrs == nil && (!xattrs || len(g.Xattrs) == 0) {
			g.Xattrs = nil
		}
		if w, h := e.String(), g.String(); w != h {
			out = append(out, "want "+w, "have "+h)
		}
	}
	for _, g := range got {
		if !wanted[key(g)] && g.Path != "." {
			out = append(out, "unexpected: "+g.only(Entry{}).String())
		}
	}
	return out
}
