package unionfs

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// index is the content of one directory of the merged tree: every visible name, and the names that the upper has
// marked as deleted.
//
// An entry stays at its position as long as it lives, and the position is its cookie, the offset of readdir: a listing
// that goes on after changes neither repeats nor omits what was there all the time. The position of a name that is gone
// is taken by a later one, so that a listing ends even while others make and remove names as fast as it goes.
//
// At 40 bytes an entry, 6 a hash slot and the name itself, a name takes less than 100 bytes.
type index struct {
	entries []entry
	slots   []uint32 // open addressing; position in entries + 1, 0 is free
	used    int      // slots that are not free, some of them referring to what has gone from there
	vacant  []uint32 // positions without an entry
	visible int
	subdirs int
	merges  [][]uint16

	partial bool          // holds only the names that were probed (probe.go)
	probes  int           // how many more may be
	total   *atomic.Int64 // of visible names, of all indexes; nil while this one is being made
}

// entry is one name. Pointers to it are valid until the next insert.
type entry struct {
	name  string
	node  *node  // nil while the kernel does not know it
	ino   uint64 // d_ino as the layer's readdir gave it; with inoKnown, as it is shown
	merge uint32 // position + 1 in index.merges: the further layers with a directory of this name
	layer uint16 // topmost layer that holds it; meaningless where node is set and has an upper
	typ   uint8  // DT_*; typeGone, typeVacant
	flags entryFlags
}

const (
	typeGone   = 0xfe // deleted: kept to know about the whiteout in the upper
	typeVacant = 0xff // no entry any more
)

type entryFlags uint8

const (
	// inLower: a lower layer has something of this name, which shows once the upper has nothing.
	inLower entryFlags = 1 << iota

	// whFile: the upper holds the file .wh.NAME.
	whFile

	// whNode: the upper holds a whiteout that is itself called NAME, device or marked file.
	whNode

	// inoKnown: ino is the number shown, not the layer's.
	inoKnown

	// noMerge and lowerKnown are of use while an index is filled: directories further down are not merged into this
	// one, and the topmost lower layer that says anything about the name has been met.
	noMerge
	lowerKnown

	// aliased: the upper's name is a link made by nameAlias, and nothing has happened to it since.
	aliased

	// remembered are those for which an entry is kept when its name is gone.
	remembered = inLower | whFile | whNode
)

// Cookies of the two entries that are in every directory; those of the others follow. Offset 0 is the beginning.
const (
	cookieDot    = 1
	cookieDotDot = 2
	cookieFirst  = 3
)

var hashSeed = maphash.MakeSeed()

func newIndex(size int) *index {
	x := &index{}
	x.rehash(size)
	return x
}

func (e *entry) gone() bool { return e.typ >= typeGone }

// rehash makes a hash table with room for size entries.
func (x *index) rehash(size int) {
	n := 8
	for n*3 < size*4 {
		n *= 2
	}
	x.slots = make([]uint32, n)
	x.used = 0
	for i := range x.entries {
		if x.entries[i].typ != typeVacant {
			x.slots[x.probe(x.entries[i].name)] = uint32(i + 1)
			x.used++
		}
	}
}

// probe returns the slot of name: the one that refers to it, or a free one.
func (x *index) probe(name string) int {
	mask := len(x.slots) - 1
	for i := int(maphash.String(hashSeed, name)) & mask; ; i = (i + 1) & mask {
		p := x.slots[i]
		if p == 0 || x.holds(p, name) {
			return i
		}
	}
}

func (x *index) holds(p uint32, name string) bool {
	if int(p) > len(x.entries) {
		return false // of an entry at the end, which is gone
	}
	e := &x.entries[p-1]
	return e.name == name && e.typ != typeVacant
}

// find returns the position of the visible entry called name, or -1.
func (x *index) find(name string) int {
	p := x.slots[x.probe(name)]
	if p == 0 || x.entries[p-1].gone() {
		return -1
	}
	return int(p - 1)
}

// get returns the entry called name, whether visible or gone, or nil.
func (x *index) get(name string) *entry {
	if p := x.slots[x.probe(name)]; p != 0 {
		return &x.entries[p-1]
	}
	return nil
}

// lookup returns the visible entry called name, or nil.
func (x *index) lookup(name string) *entry {
	if e := x.get(name); e != nil && !e.gone() {
		return e
	}
	return nil
}

// insert returns the entry called name, a new one of type typeGone where there was none.
func (x *index) insert(name string) *entry {
	slot := x.probe(name)
	if p := x.slots[slot]; p != 0 {
		return &x.entries[p-1]
	}
	return x.insertAt(slot, name)
}

// insertAt is insert of a name that there is not, for which probe has found a slot.
func (x *index) insertAt(slot int, name string) *entry {
	if (x.used+1)*4 > len(x.slots)*3 {
		x.rehash(2 * (len(x.entries) - len(x.vacant) + 1))
		slot = x.probe(name)
	}
	pos := x.position()
	x.entries[pos] = entry{name: name, typ: typeGone}
	x.slots[slot] = uint32(pos + 1)
	x.used++
	return &x.entries[pos]
}

// reserve makes room for n more entries.
func (x *index) reserve(n int) {
	x.entries = slices.Grow(x.entries, n)
	if n*4 > len(x.slots)*3 {
		x.rehash(len(x.entries) + n)
	}
}

// position finds a place for a new entry.
func (x *index) position() int {
	for k := len(x.vacant); k > 0; k = len(x.vacant) {
		pos := int(x.vacant[k-1])
		x.vacant = x.vacant[:k-1]
		if pos < len(x.entries) && x.entries[pos].typ == typeVacant {
			return pos
		}
	}
	x.entries = append(x.entries, entry{})
	return len(x.entries) - 1
}

// compact takes no more memory than a full directory that rarely changes needs: all names in one string.
func (x *index) compact() {
	size := 0
	for i := range x.entries {
		size += len(x.entries[i].name)
	}
	var all strings.Builder
	all.Grow(size)
	for i := range x.entries {
		all.WriteString(x.entries[i].name)
	}
	names := all.String()
	entries := x.entries
	if cap(entries) > len(entries)+len(entries)/8 {
		entries = make([]entry, len(x.entries))
		copy(entries, x.entries)
	}
	for i, off := 0, 0; i < len(entries); i++ {
		e := &entries[i]
		e.name = names[off : off+len(e.name)]
		off += len(e.name)
	}
	x.entries = entries
	x.merges = slices.Clip(x.merges)
}

// setType changes what e is and keeps the counts.
func (x *index) setType(e *entry, typ uint8) {
	was := x.visible
	if !e.gone() {
		x.visible--
		if e.typ == unix.DT_DIR {
			x.subdirs--
		}
	}
	e.typ = typ
	if !e.gone() {
		x.visible++
		if typ == unix.DT_DIR {
			x.subdirs++
		}
	}
	if x.total != nil && x.visible != was {
		x.total.Add(int64(x.visible - was))
	}
}

// show makes the entry called name the visible one of an object in the upper.
func (x *index) show(name string, typ uint8, n *node, ino uint64) *entry {
	e := x.insert(name)
	x.setType(e, typ)
	e.node, e.ino, e.layer, e.merge = n, ino, 0, 0
	e.flags = e.flags&^aliased | inoKnown
	return e
}

// hide takes the name out of sight. The entry stays as long as there is something to remember about the upper or
// the lowers.
func (x *index) hide(e *entry) {
	x.setType(e, typeGone)
	e.node, e.merge = nil, 0
	e.flags &^= inoKnown | aliased
	if e.flags&remembered == 0 {
		x.vacate(e)
		if len(x.vacant) == len(x.entries) {
			total := x.total
			*x = *newIndex(0)
			x.total = total
		}
	}
}

// vacate removes an entry that is gone. Slots that refer to its position stay taken until the next rehash: probing
// passes over them.
func (x *index) vacate(e *entry) {
	pos := x.slots[x.probe(e.name)] - 1
	*e = entry{typ: typeVacant}
	x.vacant = append(x.vacant, pos)
}

// cookie returns the offset after the entry at a position.
func cookie(pos int) uint64 { return uint64(pos + cookieFirst) }

// after returns the position of the first entry with a cookie greater than the offset.
func (x *index) after(offset uint64) int {
	if offset < cookieFirst {
		return 0
	}
	return int(min(offset-cookieFirst+1, uint64(len(x.entries))))
}
