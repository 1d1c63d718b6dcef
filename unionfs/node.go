package unionfs

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// node is what a nodeid stands for.
type node struct {
	// Immutable.
	id  uint64
	dir *dirState
	typ uint8 // DT_*, as shown

	// Guarded by loc.
	up      bool // the content is in the upper
	anon    bool // the content has no name, or none we know: rareState.fd holds it open
	unnamed bool // it had names and lost the last one: st_nlink is 0

	changes atomic.Uint32 // counts changes of the attributes; see attrTable
	slot    atomic.Uint32 // where attrTable last put the attributes
	xattrs  atomic.Uint32 // xattrsUnknown, xattrsNone, xattrsSome
	lookups atomic.Int64  // references the kernel holds, and ours while we work without a lock
	ino     atomic.Uint64 // st_ino; changes with index=off only

	upMu sync.Mutex // held over a copy-up

	// loc guards where the content is. It is held shared while a system call works on the content by name, and
	// exclusively by what changes the name or the place.
	loc sync.RWMutex

	parent *node  // a directory with an entry for this node and
	name   string // the entry's name; parent is nil once no known name is left

	// lower is the directory the content is in while !up. The name there is name, which is kept when the last one
	// goes; of a node with a hardlink it is rareState.lname.
	lower *dir

	rare atomic.Pointer[rareState]
	file atomic.Pointer[openFile] // descriptor for IO, nil until the first
}

// rareState is what few nodes have. Guarded by node.loc but for linked.
type rareState struct {
	more     []dentry // further names of something that is not a directory
	fd       int      // of an anonymous node
	orphaned uint64   // number of its name in the staging directory, in place of fd; 0 for none
	copies   *copies  // a change not made yet for which the node was copied up, and nobody else needs it there
	linked   uint64   // under which number it is in hardlinks.upper, 0 for not; guarded by hardlinks.mu

	// Set when the node is made, for an object that has several names in a lower layer.
	hard  *hardlink
	lname string // its name in node.lower
}

// usual is the rareState of nodes without one. It is only read.
var usual rareState

// rarely returns the rareState to read, own that to change.
func (n *node) rarely() *rareState {
	if r := n.rare.Load(); r != nil {
		return r
	}
	return &usual
}

func (n *node) own() *rareState {
	if n.rare.Load() == nil {
		n.rare.Store(new(rareState))
	}
	return n.rare.Load()
}

// hard returns what is known of the several names the object has in a lower layer, nil where it has not.
func (n *node) hard() *hardlink { return n.rarely().hard }

// lowerName returns what the object is called in node.lower.
func (n *node) lowerName() string {
	if r := n.rarely(); r.hard != nil {
		return r.lname
	}
	return n.name
}

// dentry is one name of a node.
type dentry struct {
	parent *node
	name   string
}

// dirState is what a node has more when it is a directory.
type dirState struct {
	// mu guards the index and all entries in it, and is held over the system calls that change the directory.
	mu    sync.RWMutex
	index *index // nil until needed; complete but where names are only looked up
	kids  int    // entries with a node
	dead  bool   // removed: nothing can be made in it

	// Guarded by node.loc.
	upper    *dir
	lowers   []*dir // topmost first; never changed in place
	redirect string // of the upper, as whiteout.Marks has it
	opaque   bool   // the upper bears an opaque mark; false where we do not know
	whole    bool   // was copied up with all in it, and moved: what the lowers have is not below its name any more

	// acl caches whether the directory has a default ACL: aclUnknown, aclNone, aclSome.
	acl atomic.Int32

	// final holds the attributes from before the removal, guarded by node.loc.
	final *unix.Stat_t
}

// What is known of a node's extended attributes: xattrsNone says that it has none that are shown, and is no metacopy. Only who knows that no other has added one meanwhile, since the
// object is new or loc is held exclusively, may store xattrsNone.
const (
	xattrsUnknown = iota
	xattrsNone
	xattrsSome
)

const (
	aclUnknown = iota
	aclNone
	aclSome
)

// kind returns the S_IFMT bits of the node's st_mode.
func (n *node) kind() uint32 { return uint32(n.typ) << 12 }

func (n *node) isDir() bool { return n.dir != nil }

func (n *node) isUp() bool {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return n.upLocked()
}

func (n *node) upLocked() bool {
	if n.dir != nil {
		return n.dir.upper != nil || n.rarely().orphaned != 0
	}
	return n.up
}

// upperDir returns the directory's place in the upper, nil where it has none.
func (n *node) upperDir() *dir {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return n.dir.upper
}

// sources returns the directory's places in the layers, the topmost first.
func (n *node) sources() []*dir {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return n.sourcesLocked()
}

func (n *node) sourcesLocked() []*dir {
	if n.dir.upper == nil {
		return n.dir.lowers
	}
	return append([]*dir{n.dir.upper}, n.dir.lowers...)
}

// source returns the directory's place in the layer with that index, or nil.
func (n *node) source(layer uint16) *dir {
	n.loc.RLock()
	defer n.loc.RUnlock()
	if layer == 0 {
		return n.dir.upper
	}
	for _, d := range n.dir.lowers {
		if d.layer.index == int(layer) {
			return d
		}
	}
	return nil
}

// dentry returns one of the node's names, false where it has none.
func (n *node) dentry() (dentry, bool) {
	n.loc.RLock()
	defer n.loc.RUnlock()
	return dentry{n.parent, n.name}, n.parent != nil
}

func (n *node) dentriesLocked() []dentry {
	if n.parent == nil {
		return nil
	}
	return append([]dentry{{n.parent, n.name}}, n.rarely().more...)
}

// addDentryLocked records a further name. Precondition: loc is held exclusively.
func (n *node) addDentryLocked(d dentry) {
	n.unnamed = false
	if n.parent == nil {
		n.parent, n.name = d.parent, d.name
		return
	}
	if n.parent == d.parent && n.name == d.name || slices.Contains(n.rarely().more, d) {
		return
	}
	r := n.own()
	r.more = append(r.more, d)
}

// dropDentryLocked takes a name away. Precondition: loc is held exclusively.
func (n *node) dropDentryLocked(d dentry) {
	more := n.rarely().more
	if n.parent == d.parent && n.name == d.name {
		n.parent = nil
		if len(more) > 0 {
			n.parent, n.name = more[0].parent, more[0].name
			n.own().more = more[1:]
		}
	} else if i := slices.Index(more, d); i >= 0 {
		n.own().more = slices.Delete(more, i, i+1)
	}
}

// changed tells that the attributes are not what they were.
func (n *node) changed() { n.changes.Add(1) }

// lockNodes locks the loc of all nodes given, each once and by ascending nodeid; nil ones are left out.
func lockNodes(nodes ...*node) (unlock func()) {
	sorted := sortedNodes(nodes)
	for _, n := range sorted {
		n.loc.Lock()
	}
	return func() {
		for _, n := range sorted {
			n.loc.Unlock()
		}
	}
}

// lockDirs locks the directories given, each once and by ascending nodeid; what is nil or no directory is left out.
func lockDirs(nodes ...*node) (unlock func()) {
	sorted := slices.DeleteFunc(sortedNodes(nodes), func(n *node) bool { return n.dir == nil })
	for _, n := range sorted {
		n.dir.mu.Lock()
	}
	return func() {
		for _, n := range sorted {
			n.dir.mu.Unlock()
		}
	}
}

func sortedNodes(nodes []*node) []*node {
	sorted := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == nil })
	slices.SortFunc(sorted, func(a, b *node) int {
		if a.id < b.id {
			return -1
		} else if a.id > b.id {
			return 1
		}
		return 0
	})
	return slices.Compact(sorted)
}

// location is where a node's content is, held in place until done is called.
type location struct {
	sys.At
	layer *layer
	done  func()
}

// orphanName is what an unlinked object is called in the staging directory while the kernel still knows it.
func orphanName(number uint64) string { return "orphan-" + strconv.FormatUint(number, 10) }

// locateLocked returns the object in the layer that holds the node's content; of a directory, in the topmost layer.
// The descriptor in it is valid until release. Precondition: loc is held, shared or exclusively.
func (fs *FS) locateLocked(n *node) (at sys.At, l *layer, release func(), err error) {
	nothing := func() {}
	var d *dir
	switch {
	case n.anon:
		return sys.Fd(n.rarely().fd), fs.upper, nothing, nil
	case n.rarely().orphaned != 0:
		return sys.At{Dirfd: fs.work.staging, Name: orphanName(n.rarely().orphaned)}, fs.upper, nothing, nil
	case n.dir != nil && n.dir.final != nil && n.dir.upper != nil:
		return at, nil, nothing, unix.ENOENT // by its name another one could be found
	case n.dir != nil:
		d = n.dir.upper
		if d == nil {
			d = n.dir.lowers[0]
		}
		fd, err := fs.openDir(d)
		if err == errSealed {
			return fs.locateSealed(d)
		}
		if err != nil {
			return at, nil, nothing, err
		}
		return sys.Fd(fd), d.layer, func() { fs.releaseDir(d) }, nil
	case n.up && n.hard() != nil:
		return sys.At{Dirfd: fs.work.index, Name: n.hard().key.String()}, fs.upper, nothing, nil
	case n.up:
		if n.parent == nil {
			return at, nil, nothing, unix.ESTALE
		}
		d = n.parent.dir.upper // no need of the parent's loc: there since before n.up, and it stays
		fd, err := fs.openDir(d)
		if err != nil {
			return at, nil, nothing, err
		}
		return sys.At{Dirfd: fd, Name: n.name}, d.layer, func() { fs.releaseDir(d) }, nil
	default:
		d = n.lower
		fd, err := fs.openDir(d)
		if err != nil {
			return at, nil, nothing, err
		}
		return sys.At{Dirfd: fd, Name: n.lowerName()}, d.layer, func() { fs.releaseDir(d) }, nil
	}
}

// locateSealed names a directory that cannot be opened since something is mounted on it.
func (fs *FS) locateSealed(d *dir) (sys.At, *layer, func(), error) {
	at := d.where.Load()
	fd, err := fs.openDir(at.parent)
	if err != nil {
		return sys.At{}, nil, func() {}, err
	}
	return sys.At{Dirfd: fd, Name: at.name}, d.layer, func() { fs.releaseDir(at.parent) }, nil
}

// locate is locateLocked with loc held shared until done is called.
func (fs *FS) locate(n *node) (location, error) {
	n.loc.RLock()
	at, l, release, err := fs.locateLocked(n)
	if err != nil {
		n.loc.RUnlock()
		return location{}, err
	}
	return location{at, l, func() { release(); n.loc.RUnlock() }}, nil
}

// rootID is the nodeid of the root, fixed by the protocol.
const rootID = 1

// nodeTable finds nodes by nodeid without a lock. Nodeids are given anew once the kernel has forgotten them, with
// another generation.
type nodeTable struct {
	chunks atomic.Pointer[[]*nodeChunk]

	mu   sync.Mutex
	free []uint64
	next uint64
	used int
}

const chunkSize = 1 << 10

type nodeChunk struct {
	nodes       [chunkSize]atomic.Pointer[node]
	generations [chunkSize]atomic.Uint32 // how often the nodeid was given
}

func newNodeTable() *nodeTable {
	t := &nodeTable{next: rootID}
	t.chunks.Store(&[]*nodeChunk{})
	return t
}

// add gives n a nodeid.
func (t *nodeTable) add(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.free); k > 0 {
		n.id = t.free[k-1]
		t.free = t.free[:k-1]
	} else {
		n.id = t.next
		t.next++
	}
	chunks := *t.chunks.Load()
	if c := int(n.id / chunkSize); c >= len(chunks) {
		chunks = append(slices.Clone(chunks), new(nodeChunk))
		t.chunks.Store(&chunks)
	}
	c := chunks[n.id/chunkSize]
	c.generations[n.id%chunkSize].Add(1)
	c.nodes[n.id%chunkSize].Store(n)
	t.used++
}

// get returns the node with that nodeid, nil where there is none.
func (t *nodeTable) get(id uint64) *node {
	chunks := *t.chunks.Load()
	if c := id / chunkSize; c < uint64(len(chunks)) {
		return chunks[c].nodes[id%chunkSize].Load()
	}
	return nil
}

// generation tells the nodes apart that had the same nodeid one after the other.
func (t *nodeTable) generation(id uint64) uint64 {
	return uint64((*t.chunks.Load())[id/chunkSize].generations[id%chunkSize].Load())
}

// remove frees n's nodeid.
func (t *nodeTable) remove(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	(*t.chunks.Load())[n.id/chunkSize].nodes[n.id%chunkSize].Store(nil)
	t.free = append(t.free, n.id)
	t.used--
}

// count returns how many nodes there are, the root included.
func (t *nodeTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used
}
