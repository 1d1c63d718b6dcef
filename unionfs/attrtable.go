package unionfs

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// attrTable keeps the attributes of the nodes that were looked at last, so that a request for them takes no system
// call. It is of fixed size: the kernel keeps attributes itself, and asks again for few of them.
type attrTable struct {
	slots [attrSlots]attrSlot
	next  atomic.Uint32
}

const attrSlots = 1 << 13 // at about 120 bytes

type attrSlot struct {
	mu      sync.Mutex
	node    *node
	changes uint32 // node.changes when the attributes were read
	attr    fuse.Attr
}

// get copies n's attributes to out, false where they are not known.
func (t *attrTable) get(n *node, out *fuse.Attr) bool {
	s := &t.slots[n.slot.Load()%attrSlots]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node != n || s.changes != n.changes.Load() {
		return false
	}
	*out = s.attr
	return true
}

// put keeps attributes that were read when n.changes was changes.
func (t *attrTable) put(n *node, changes uint32, attr *fuse.Attr) {
	i := n.slot.Load() % attrSlots
	s := &t.slots[i]
	s.mu.Lock()
	if s.node != n {
		s.mu.Unlock()
		i = t.next.Add(1) % attrSlots
		n.slot.Store(i)
		s = &t.slots[i]
		s.mu.Lock()
	}
	s.node, s.changes, s.attr = n, changes, *attr
	s.mu.Unlock()
}

// drop forgets n, so that the table does not keep it in memory.
func (t *attrTable) drop(n *node) {
	s := &t.slots[n.slot.Load()%attrSlots]
	s.mu.Lock()
	if s.node == n {
		s.node = nil
	}
	s.mu.Unlock()
}
