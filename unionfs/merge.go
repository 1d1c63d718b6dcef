package unionfs

import (
	"errors"
	"slices"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// mergeDir decides which of the directories found under one name make up the directory n: all of them down to the
// first opaque one, or, where one was moved, what lies at its old place in the layers below it.
//
// Precondition: dirs are the directories of that name in the layers of the parent, topmost first, none of them
// hidden by a whiteout or by something else of the name.
//
// With list, and where there are several, they are listed on the way: to know their marks takes a look at their names, and
// to know the link count of n as well. So n has its index, unless it is a large directory.
func (fs *FS) mergeDir(n *node, dirs []*dir, list bool) error {
	s := n.dir
	var names *merger
	if list && len(dirs) > 1 {
		names = fs.newMerger()
		names.limit = listLimit
	}
	for i := 0; i < len(dirs); i++ {
		d := dirs[i]
		var m whiteout.Marks
		var err error
		if names != nil {
			if m, err = names.addWithMarks(d); err != nil {
				names = nil // who needs it meets that again
			}
		}
		if names == nil {
			m, err = fs.readMarksOf(d, i == len(dirs)-1)
		}
		if err != nil {
			return err
		}
		d.marked = m.Whiteouts
		if d.layer.index == 0 {
			s.upper, s.redirect = d, m.Redirect
		} else {
			s.lowers = append(s.lowers, d)
		}
		if m.Opaque {
			break
		}
		if m.Redirect == "" {
			continue
		}
		old, err := fs.redirected(d, m.Redirect)
		if err != nil {
			return err
		}
		dirs = append(dirs[:i+1:i+1], old...)
	}
	if names != nil {
		fs.counts.indexMisses.Add(1)
		n.dir.index = names.index()
	}
	return nil
}

// listLimit is up to what size of its names, in bytes, a directory is listed before somebody wants them: one that is less
// than probeFrom.
const listLimit = 16 << 10

// readMarksOf is readMarks for mergeDir. Whether d is opaque need not be known where it is the last one.
func (fs *FS) readMarksOf(d *dir, last bool) (whiteout.Marks, error) {
	at := d.where.Load()
	if !last || at == nil || !d.layer.private || fs.lowest(d) {
		return fs.readMarks(d)
	}
	// Nothing is mounted on it: it need not be opened.
	fd, err := fs.openDir(at.parent)
	if err != nil {
		return whiteout.Marks{}, err
	}
	m, err := fs.ownMarks(d, sys.At{Dirfd: fd, Name: at.name})
	fs.releaseDir(at.parent)
	if err == nil && m.Redirect != "" {
		return fs.readMarks(d)
	}
	return m, err
}

// lowest tells whether d lies in the lowest layer.
func (fs *FS) lowest(d *dir) bool { return d.layer.index == len(fs.layers)-1 }

// readMarks reads what d says about itself. A mark says something only where there are layers below.
func (fs *FS) readMarks(d *dir) (whiteout.Marks, error) {
	var m whiteout.Marks
	if fs.lowest(d) {
		return m, nil
	}
	fd, err := fs.openDir(d)
	if err == errSealed {
		m.Opaque = true
		return m, nil
	}
	if err != nil {
		return m, err
	}
	defer fs.releaseDir(d)
	m, err = fs.ownMarks(d, sys.At{Dirfd: fd, Name: "."}) // by O_PATH alone it takes another call
	if err == unix.EACCES {
		m, err = fs.ownMarks(d, sys.Fd(fd)) // it may not be searched
	}
	if err == nil && !m.Opaque {
		m.Opaque = whiteout.HasOpaqueFile(fd)
	}
	return m, err
}

// ownMarks reads the attributes of d, which is at, without a look at its names.
func (fs *FS) ownMarks(d *dir, at sys.At) (m whiteout.Marks, err error) {
	names, err := sys.XattrNames(at)
	if err != nil {
		return m, err
	}
	m, err = whiteout.ReadMarks(at, names)
	if errors.Is(err, whiteout.ErrBadRedirect) {
		// A layer's nonsense leads nowhere, and takes nothing with it.
		fs.log.Printf("layer %s: %s: %v", d.layer.path, strings.Join(d.path(), "/"), err)
		m.Opaque, err = true, nil
	}
	return m, err
}

// redirected finds the directories that d, moved by a rename, had below it: those at path in each layer below d's.
// A path that does not begin with "/" is another name in d's parent.
//
// The path is followed in each layer by itself, as kernel overlayfs does (overlayfs.rst, "redirect_dir"): a
// whiteout, or something that is no directory, ends the search, an opaque directory ends it after its layer, and a
// redirect met on the way changes the path for the layers further down; one from the root, whatever is above it.
func (fs *FS) redirected(d *dir, path string) ([]*dir, error) {
	var base []string // of no concern to a path from the root
	if !strings.HasPrefix(path, "/") {
		parent := d.where.Load().parent
		severed, err := fs.severed(parent)
		if err != nil || severed {
			return nil, err
		}
		if base, err = fs.below(parent); err != nil {
			return nil, err
		}
	}
	parts := redirectTo(base, path)
	var found []*dir
	for l := d.layer.index + 1; l < len(fs.layers); l++ {
		w, err := fs.walkLayer(fs.layers[l], parts)
		if err != nil {
			return nil, err
		}
		if w.dir != nil {
			found = append(found, w.dir)
		}
		if w.last {
			break
		}
		parts = w.parts
	}
	return found, nil
}

// path returns the names that lead to d from the root of its layer.
func (d *dir) path() []string {
	at := d.where.Load()
	if at == nil {
		return nil
	}
	return append(at.parent.path(), at.name)
}

// walked is where a path led in one layer.
type walked struct {
	dir   *dir     // nil where the layer has no such directory
	last  bool     // nothing of lower layers shows through
	parts []string // the path to follow in the next layer
}

func (fs *FS) walkLayer(l *layer, parts []string) (walked, error) {
	w := walked{dir: l.root}
	for i, name := range parts {
		fd, err := fs.openDir(w.dir)
		if err != nil {
			return walked{last: true}, ignoreSealed(err)
		}
		st, err := sys.Stat(sys.At{Dirfd: fd, Name: name})
		hides := whiteout.HasFile(fd, name) // in the layers below, whether the layer has the name itself or not
		fs.releaseDir(w.dir)
		switch {
		case err == unix.ENOENT && hides, err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return walked{last: true}, nil
		case err == unix.ENOENT:
			return walked{last: w.last, parts: append(w.parts, parts[i:]...)}, nil
		case err != nil:
			return walked{}, err
		}
		passed := w.dir
		w.dir = newDir(l, passed, name)
		if i == len(parts)-1 {
			w.last = w.last || hides
			w.parts = append(w.parts, name)
			break // mergeDir reads its marks
		}
		m, err := fs.readMarks(w.dir)
		if err != nil {
			return walked{}, err
		}
		if passed != l.root {
			fs.fds.forget(&passed.fd) // on the way only, and not before the next one is open
		}
		w.last = w.last && !fromRoot(m) || m.Opaque || hides && m.Redirect == ""
		w.parts = below(w.parts, name, m)
	}
	return w, nil
}

// fromRoot reports whether the directory with these marks has its part in lower layers wherever it is itself.
func fromRoot(m whiteout.Marks) bool { return !m.Opaque && strings.HasPrefix(m.Redirect, "/") }

// severed reports whether lower layers have no part in what is in d by its path: d or a directory above it is opaque, or has a
// whiteout beside it, and none in between was moved there from elsewhere.
func (fs *FS) severed(d *dir) (bool, error) {
	for {
		m, err := fs.readMarks(d)
		if err != nil || m.Opaque {
			return true, err
		}
		at := d.where.Load()
		if at == nil || fromRoot(m) {
			return false, nil
		}
		if m.Redirect == "" {
			fd, err := fs.openDir(at.parent)
			if err != nil {
				return true, err
			}
			hides := whiteout.HasFile(fd, at.name)
			fs.releaseDir(at.parent)
			if hides {
				return true, nil
			}
		}
		d = at.parent
	}
}

// below returns where the directory d is to be looked for in the layers below its own.
func (fs *FS) below(d *dir) ([]string, error) {
	at := d.where.Load()
	if at == nil {
		return nil, nil
	}
	base, err := fs.below(at.parent)
	if err != nil {
		return nil, err
	}
	m, err := fs.readMarks(d)
	return below(base, at.name, m), err
}

// below returns where, in the layers below, the directory called name with marks m is, when its parent is at base.
func below(base []string, name string, m whiteout.Marks) []string {
	if m.Redirect != "" {
		return redirectTo(base, m.Redirect)
	}
	return append(slices.Clip(base), name)
}

// redirectTo returns the path that a redirect names: from the root, or beside the others at base.
func redirectTo(base []string, redirect string) []string {
	if abs, ok := strings.CutPrefix(redirect, "/"); ok {
		return strings.Split(abs, "/")
	}
	return append(slices.Clip(base), redirect)
}

func ignoreSealed(err error) error {
	if errors.Is(err, errSealed) {
		return nil
	}
	return err
}

// fill makes the complete index of the directory n from all its layers, once.
//
// Precondition: n.dir.mu is held exclusively.
func (fs *FS) fill(n *node) error {
	old := n.dir.index
	if old != nil && !old.partial {
		fs.counts.indexHits.Add(1)
		return nil
	}
	fs.counts.indexMisses.Add(1)
	m := fs.newMerger()
	if n.dir.dead {
		n.dir.index = m.index()
		return nil
	}
	for _, d := range n.sources() {
		if err := m.add(d); err != nil {
			return err
		}
	}
	x := m.index()
	if old != nil {
		x.adopt(old)
		old.leave()
	}
	n.dir.index = x
	return nil
}

// merger adds layer after layer to an index, from the top.
type merger struct {
	fs *FS
	x  *index

	// hidden holds the names that a lower layer whites out and no layer above it has.
	hidden map[string]bool

	// limit is how many bytes the names that are still to come may take, 0 for any number.
	limit int

	used bool // of the directory that was added last, something shows
}

func (fs *FS) newMerger() *merger { return &merger{fs: fs, x: newIndex(0)} }

// index returns what was made of it all.
func (m *merger) index() *index {
	m.x.compact()
	return m.x.countIn(&m.fs.counts.indexed)
}

// add adds the entries of d.
func (m *merger) add(d *dir) error {
	l, err := m.fs.openList(d)
	if err != nil {
		return ignoreSealed(err)
	}
	_, err = m.addFrom(l)
	m.fs.closeList(l, err == nil && m.used)
	return err
}

// addWithMarks is add for a directory of which its marks are to be known as well. Errors: sys.ErrManyDirents.
func (m *merger) addWithMarks(d *dir) (marks whiteout.Marks, err error) {
	l, err := m.fs.openList(d)
	if err == errSealed {
		return whiteout.Marks{Opaque: true}, nil
	}
	if err != nil {
		return marks, err
	}
	opaque := false
	if !m.fs.lowest(d) {
		marks, err = m.fs.ownMarks(d, sys.Fd(l.fd))
	}
	if err == nil {
		d.marked = marks.Whiteouts
		opaque, err = m.addFrom(l)
	}
	m.fs.closeList(l, err == nil && m.used)
	marks.Opaque = marks.Opaque || opaque && !m.fs.lowest(d)
	return marks, err
}

// addFrom adds the entries of the directory opened as l, and tells whether one of them makes it opaque. What it whites out is
// hidden in the layers below it only, so that comes last.
func (m *merger) addFrom(l openedList) (opaque bool, err error) {
	d := l.d
	m.used = false
	all, err := sys.ListDir(l.fd, m.limit)
	if err != nil {
		return false, err
	}
	if m.limit > 0 {
		m.limit = max(1, m.limit-all.Size())
	}
	if len(m.x.entries) == 0 {
		n, err := all.Count()
		if err != nil {
			return false, err
		}
		m.x.reserve(n)
	}
	var deleted []string // by .wh. files
	var odd []sys.Dirent // may be whiteouts by type or attribute, or have no d_type
	err = all.Each(func(e sys.Dirent) {
		switch kind, target := whiteout.Classify(e.Name); kind {
		case whiteout.Deleted:
			deleted = append(deleted, target)
			return
		case whiteout.Opaque:
			opaque = true
			return
		case whiteout.Internal:
			return
		}
		if e.Type == unix.DT_CHR || e.Type == unix.DT_UNKNOWN || e.Type == unix.DT_REG && d.marked {
			odd = append(odd, e)
			return
		}
		m.entry(d, e)
	})
	if err != nil {
		return false, err
	}
	devices := m.oddEntries(l, odd)
	for _, name := range deleted {
		m.whiteout(d, name, whFile)
	}
	for _, name := range devices {
		m.whiteout(d, name, whNode)
	}
	return opaque, nil
}

// oddEntries looks closer at the entries that need it, and returns the names of those that are whiteouts. One that
// cannot be looked at is shown as what it seems to be: it must not take the others with it.
func (m *merger) oddEntries(l openedList, odd []sys.Dirent) (whiteouts []string) {
	for _, e := range odd {
		at := sys.At{Dirfd: l.fd, Name: e.Name}
		st, err := sys.Stat(at)
		if err == nil {
			e.Type = direntType(st.Mode)
			if isWhiteout(l.d, at, &st) {
				whiteouts = append(whiteouts, e.Name)
				continue
			}
		}
		m.entry(l.d, e)
	}
	return whiteouts
}

// entry adds one entry of d.
func (m *merger) entry(d *dir, de sys.Dirent) {
	layer := uint16(d.layer.index)
	slot := m.x.probe(de.Name)
	if m.x.slots[slot] == 0 {
		if m.hidden[de.Name] {
			return
		}
		e := m.x.insertAt(slot, de.Name)
		m.used = true
		m.x.setType(e, de.Type)
		e.layer, e.ino = layer, de.Ino
		if layer != 0 {
			e.flags |= inLower | lowerKnown
		}
		return
	}
	e := &m.x.entries[m.x.slots[slot]-1]
	if layer == 0 {
		return // a filesystem that lists a name twice
	}
	if e.flags&lowerKnown == 0 {
		e.flags |= inLower | lowerKnown
	}
	if e.typ != unix.DT_DIR || e.flags&noMerge != 0 {
		return
	}
	if de.Type != unix.DT_DIR {
		e.flags |= noMerge
		return
	}
	if e.merge == 0 {
		m.x.merges = append(m.x.merges, nil)
		e.merge = uint32(len(m.x.merges))
	}
	m.x.merges[e.merge-1] = append(m.x.merges[e.merge-1], layer)
	m.used = true
}

// whiteout notes that d hides name in the layers below, and of an upper how.
func (m *merger) whiteout(d *dir, name string, flag entryFlags) {
	e := m.x.get(name)
	switch {
	case d.layer.index == 0:
		if e == nil {
			e = m.x.insert(name)
		}
		e.flags |= flag
	case e == nil:
		if m.hidden == nil {
			m.hidden = map[string]bool{}
		}
		m.hidden[name] = true
		return
	}
	e.flags |= noMerge
	if d.layer.index != 0 {
		e.flags |= lowerKnown
	}
}

func direntType(mode uint32) uint8 { return uint8(mode & unix.S_IFMT >> 12) }
