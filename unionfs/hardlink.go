package unionfs

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// hardlinks knows the objects that have several names, in the upper or in a lower layer, so that all names of one
// lead to the same node.
//
// A lower file with several names stays one file when it is copied up: its copy is index/KEY in the work directory,
// every name of it that is in the upper is a further link of that, and a name that is still in the lower leads there
// by its key. Its link count is that of the lower, less the names deleted, plus those made since; it is kept as the
// target of the symbolic link index/KEY.n from the first change on. While a name comes or goes the link says which, and
// the count before and after, so that the next mount can tell by the name what a crash has left (see intent).
type hardlinks struct {
	fs *FS

	mu      sync.Mutex
	upper   map[uint64]*node  // by st_ino in the upper, or what identity makes of it
	lower   map[lowerID]*node // by identity in the lower
	records map[lowerID]*hardlink
	origins map[uint64]originRecord // by st_ino in the upper
}

// lowerID identifies an object among all lower layers (FS.identity).
type lowerID struct {
	device int
	ino    uint64
}

// linkKey names a lower object in the index. The time of its birth tells it from another one that got the same
// number when the layers were moved to another filesystem.
type linkKey struct {
	lowerID
	born int64 // nanoseconds since the epoch, 0 where the filesystem does not say
}

func (k linkKey) String() string { return fmt.Sprintf("%d-%d-%d", k.device, k.ino, k.born) }

func parseLinkKey(s string) (k linkKey, err error) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return k, fmt.Errorf("%q is no index key", s)
	}
	if k.device, err = strconv.Atoi(parts[0]); err != nil {
		return k, err
	}
	if k.ino, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return k, err
	}
	k.born, err = strconv.ParseInt(parts[2], 10, 64)
	return k, err
}

// hardlink is a lower object with several names. Guarded by hardlinks.mu.
type hardlink struct {
	key   linkKey
	up    bool   // its copy is index/KEY
	ino   uint64 // st_ino of the copy
	nlink int64  // names in the merged tree
	known bool   // nlink is, from index/KEY.n or a lower name
	saved bool   // the index has something to say about it
}

const nlinkSuffix = ".n"

func (h *hardlinks) init(fs *FS) {
	h.fs = fs
	h.upper, h.lower = map[uint64]*node{}, map[lowerID]*node{}
	h.records, h.origins = map[lowerID]*hardlink{}, map[uint64]originRecord{}
}

// load reads what earlier mounts left in the index. What is not ours there is left alone: the workdir may have
// served kernel overlayfs.
func (h *hardlinks) load() error {
	if h.fs.upper == nil {
		return nil
	}
	counts := map[*hardlink]string{} // names of the index/KEY.n
	err := sys.ReadDir(h.fs.work.index, func(e sys.Dirent) {
		if rest, ok := strings.CutPrefix(e.Name, originPrefix); ok {
			h.loadOrigin(e.Name, rest)
			return
		}
		name, isCount := strings.CutSuffix(e.Name, nlinkSuffix)
		key, err := parseLinkKey(name)
		if err != nil {
			return
		}
		r := h.records[key.lowerID]
		if r == nil {
			r = &hardlink{key: key}
			h.records[key.lowerID] = r
		}
		r.saved = true
		if isCount {
			counts[r] = e.Name
			return
		}
		if st, err := sys.Stat(sys.At{Dirfd: h.fs.work.index, Name: e.Name}); err == nil {
			r.up, r.ino = true, st.Ino
		}
	})
	if err != nil {
		return err
	}
	for r, name := range counts {
		if v, err := sys.Readlink(sys.At{Dirfd: h.fs.work.index, Name: name}); err == nil {
			h.loadCount(r, v)
		}
	}
	return nil
}

// loadCount reads the target of an index/KEY.n.
func (h *hardlinks) loadCount(r *hardlink, v string) {
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		r.nlink, r.known = n, true
		return
	}
	in, err := parseIntent(v)
	if err != nil {
		return // not ours
	}
	r.nlink, r.known = in.before, true
	there := h.fs.named(r, in)
	if there == (in.after > in.before) {
		r.nlink = in.after
	}
	if err := h.settle(r); err != nil {
		h.fs.log.Printf("workdir: link count of a lower file: %v", err)
	}
}

// intent says that a name of an object is about to come or to go.
type intent struct {
	before, after int64  // number of names
	lower         bool   // the name is in a lower layer only
	path          string // of the name in the upper, from its root
}

func (in intent) String() string {
	where := "U"
	if in.lower {
		where = "L"
	}
	return fmt.Sprintf("%d %d %s %s", in.before, in.after, where, in.path)
}

func parseIntent(v string) (in intent, err error) {
	parts := strings.SplitN(v, " ", 4)
	if len(parts) != 4 || parts[2] != "U" && parts[2] != "L" || parts[3] == "" {
		return in, fmt.Errorf("%q is no intent", v)
	}
	if in.before, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
		return in, err
	}
	if in.after, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
		return in, err
	}
	in.lower, in.path = parts[2] == "L", parts[3]
	return in, nil
}

// named reports whether the name that an intent is about leads to the object now.
func (fs *FS) named(r *hardlink, in intent) bool {
	dir, name := path.Split(in.path)
	fd, err := sys.OpenBeneath(fs.upper.fd, path.Clean("./"+dir), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer sys.Close(fd)
	st, err := sys.Stat(sys.At{Dirfd: fd, Name: name})
	if in.lower {
		return err == unix.ENOENT && !whiteout.HasFile(fd, name)
	}
	return err == nil && r.up && st.Ino == r.ino
}

// intend records that a name of the object, path in the upper, is about to come (delta 1) or to go (-1). Where the
// record cannot be made, since the path is too long for it, a crash at just this moment leaves the count too high.
//
// Precondition: the directory of the name is locked and has an upper.
func (h *hardlinks) intend(r *hardlink, delta int64, path string, lower bool) {
	h.mu.Lock()
	in := intent{before: r.nlink, after: r.nlink + delta, lower: lower, path: path}
	r.saved = true
	h.mu.Unlock()
	if err := h.write(r, in.String()); err != nil && delta > 0 {
		// A count that is too high keeps an object for nothing; one that is too low would lose it.
		_ = h.write(r, strconv.FormatInt(in.after, 10))
	}
}

// upperPath returns where name in p is in the merged tree, and so in the upper: for the record that a change of the
// number of names of n needs, "" where it needs none.
//
// Precondition: no loc is held. Those of all directories above are taken, one after the other.
func (fs *FS) upperPath(n, p *node, name string) string {
	if n == nil || n.hard() == nil {
		return ""
	}
	names := []string{name}
	for p != nil && p != fs.root {
		d, _ := p.dentry()
		names = append(names, d.name)
		p = d.parent
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// birth returns when the object was made, in nanoseconds since the epoch, 0 where the filesystem does not say.
func birth(at sys.At) int64 {
	st, err := sys.Statx(at, unix.STATX_BTIME)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// findLower returns the node of the lower object at, which has several names, with a reference taken. Where there
// is none yet, fresh becomes it.
func (h *hardlinks) findLower(l *layer, at sys.At, st *unix.Stat_t, fresh *node) *node {
	name := at.Name
	id := h.fs.identity(l, st)
	born := birth(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.lower[id]; n != nil {
		n.lookups.Add(1)
		return n
	}
	r := h.records[id]
	if r == nil || r.key.born != born {
		r = &hardlink{key: linkKey{id, born}}
		h.records[id] = r
	}
	if !r.known {
		r.nlink, r.known = int64(st.Nlink), true
	}
	fresh.own().hard, fresh.own().lname = r, name
	fresh.up = r.up
	if r.up {
		h.upper[r.ino], fresh.own().linked = fresh, r.ino
	}
	h.lower[id] = fresh
	h.fs.nodes.add(fresh) // with the map locked: who finds it there can use it
	return fresh
}

// findUpper returns the node of an upper object that has several links, with a reference taken. origin is what it
// was copied up from, if so. Where there is no node yet, fresh becomes it.
func (h *hardlinks) findUpper(st *unix.Stat_t, origin *whiteout.Origin, fresh *node) *node {
	number := h.fs.identity(h.fs.upper, st).ino
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.upper[number]; n != nil {
		n.lookups.Add(1)
		return n
	}
	h.upper[number], fresh.own().linked = fresh, number
	if origin != nil {
		id := lowerID{origin.Device, origin.Ino}
		if r := h.records[id]; r != nil && r.up && r.ino == number {
			if !r.known {
				r.nlink, r.known = int64(st.Nlink)-1, true // one link is the index's own
			}
			fresh.own().hard = r
			h.lower[id] = fresh
		}
	}
	h.fs.nodes.add(fresh) // as above
	return fresh
}

// joined makes an upper object that just got its second name known.
func (h *hardlinks) joined(n *node, ino uint64) {
	h.mu.Lock()
	h.upper[ino], n.own().linked = n, ino
	h.mu.Unlock()
}

// detach removes n when nobody holds a reference to it, and reports whether that was so.
func (h *hardlinks) detach(n *node) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.lookups.Load() != 0 {
		return false
	}
	n.lookups.Store(detached)
	if n.dir != nil {
		return true
	}
	if linked := n.rarely().linked; linked != 0 && h.upper[linked] == n {
		delete(h.upper, linked)
	}
	if n.hard() != nil && h.lower[n.hard().key.lowerID] == n {
		delete(h.lower, n.hard().key.lowerID)
		if !n.hard().saved {
			delete(h.records, n.hard().key.lowerID)
		}
	}
	return true
}

// nlink returns how many names the object has in the merged tree.
func (h *hardlinks) nlink(r *hardlink) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return uint32(max(r.nlink, 0))
}

// count adds delta to the number of names, and records it.
func (h *hardlinks) count(r *hardlink, delta int64) error {
	h.mu.Lock()
	r.nlink += delta
	r.saved = true
	h.mu.Unlock()
	return h.settle(r)
}

// settle records the number of names. When the last one is gone, so is the index entry.
func (h *hardlinks) settle(r *hardlink) error {
	h.mu.Lock()
	nlink := r.nlink
	h.mu.Unlock()
	if nlink > 0 {
		return h.write(r, strconv.FormatInt(nlink, 10))
	}
	for _, name := range []string{r.key.String(), r.key.String() + nlinkSuffix} {
		err := sys.Unlink(sys.At{Dirfd: h.fs.work.index, Name: name})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	h.mu.Lock()
	if h.records[r.key.lowerID] == r {
		delete(h.records, r.key.lowerID)
	}
	h.mu.Unlock()
	return nil
}

// write makes v the target of index/KEY.n, old or new whatever happens.
func (h *hardlinks) write(r *hardlink, v string) error {
	tmp := h.fs.stage.Temp()
	if err := sys.Symlink(v, tmp); err != nil {
		return err
	}
	err := sys.Rename(tmp, sys.At{Dirfd: h.fs.work.index, Name: r.key.String() + nlinkSuffix}, 0)
	if err != nil {
		h.fs.stage.Discard(tmp)
	}
	return err
}
