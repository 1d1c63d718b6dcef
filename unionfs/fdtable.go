package unionfs

import (
	"sync"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// fdTable bounds the number of descriptors that are kept open only to be fast. A cachedFd that nobody uses is
// closed when the table is over its bound, the least recently used first.
//
// Pinned descriptors are all that is left of an object (an unlinked file) and cannot be closed; they are counted,
// so that those who would pin one more can find another way.
type fdTable struct {
	max int // descriptors, cached and pinned

	mu     sync.Mutex
	open   int
	pinned int
	lru    cachedFd // ring of the unused open ones; lru.next is the most recently used
}

// cachedFd is one descriptor in the table, embedded in what it belongs to. The zero value is closed.
type cachedFd struct {
	fd         int32 // descriptor + 1; 0 is closed
	refs       int32
	doomed     bool      // to be closed when its last user is done
	prev, next *cachedFd // in the ring while open and unused
}

func newFdTable(max int) *fdTable {
	t := &fdTable{max: max}
	t.lru.prev, t.lru.next = &t.lru, &t.lru
	return t
}

// acquire returns c's descriptor for use until release, false where it is closed.
func (t *fdTable) acquire(c *cachedFd) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.fd == 0 {
		return -1, false
	}
	t.useLocked(c)
	return int(c.fd - 1), true
}

func (t *fdTable) useLocked(c *cachedFd) {
	if c.refs == 0 && c.next != nil {
		c.prev.next, c.next.prev = c.next, c.prev
		c.prev, c.next = nil, nil
	}
	c.refs++
}

// install gives c the newly opened fd and returns the descriptor to use until release: another one where somebody
// else was faster.
func (t *fdTable) install(c *cachedFd, fd int) int {
	t.mu.Lock()
	if c.fd != 0 {
		t.useLocked(c)
		mine := int(c.fd - 1)
		t.mu.Unlock()
		sys.Close(fd)
		return mine
	}
	c.fd = int32(fd + 1)
	c.refs++ // who had one that was stolen still counts
	t.open++
	victims := t.shrinkLocked()
	t.mu.Unlock()
	closeAll(victims)
	return fd
}

// release ends a use begun by acquire or install.
func (t *fdTable) release(c *cachedFd) {
	t.mu.Lock()
	c.refs--
	if c.refs > 0 || c.fd == 0 {
		t.mu.Unlock()
		return
	}
	c.prev, c.next = &t.lru, t.lru.next
	c.prev.next, c.next.prev = c, c
	var victims []int
	if c.doomed {
		victims = append(victims, t.takeLocked(c))
	}
	victims = append(victims, t.shrinkLocked()...)
	t.mu.Unlock()
	closeAll(victims)
}

// shrinkLocked takes descriptors nobody uses out of the table until it is within its bound.
func (t *fdTable) shrinkLocked() (victims []int) {
	for t.open+t.pinned > t.max && t.lru.prev != &t.lru {
		victims = append(victims, t.takeLocked(t.lru.prev))
	}
	return victims
}

func (t *fdTable) takeLocked(c *cachedFd) int {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next = nil, nil
	fd := int(c.fd - 1)
	c.fd = 0
	t.open--
	return fd
}

// steal takes c's descriptor out of the table, if it is open and nobody uses it but holders. It is the caller's then, and
// c is closed: users that are left release it as ever.
func (t *fdTable) steal(c *cachedFd, holders int32) (int, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.fd == 0 || c.refs != holders {
		return -1, false
	}
	fd := int(c.fd - 1)
	if c.refs == 0 {
		return t.takeLocked(c), true
	}
	c.fd = 0
	t.open--
	return fd, true
}

// forget closes c's descriptor, now or when the last who uses it is done. c is not to be used again.
func (t *fdTable) forget(c *cachedFd) {
	t.mu.Lock()
	fd := -1
	c.doomed = true
	if c.fd != 0 && c.refs == 0 {
		fd = t.takeLocked(c)
	}
	t.mu.Unlock()
	sys.Close(fd)
}

// pin accounts for a descriptor outside the table, false where there are too many of them already.
func (t *fdTable) pin() bool { return t.pinUpTo(t.max / 2) }

// crowded reports whether there are too many of them.
func (t *fdTable) crowded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pinned >= t.max/2
}

// pinAnyway is pin for what has no other way, up to half of what the process may have: twice max.
func (t *fdTable) pinAnyway() bool { return t.pinUpTo(2 * t.max) }

func (t *fdTable) pinUpTo(limit int) bool {
	t.mu.Lock()
	if t.pinned >= limit {
		t.mu.Unlock()
		return false
	}
	t.pinned++
	victims := t.shrinkLocked()
	t.mu.Unlock()
	closeAll(victims)
	return true
}

// mustPin is pin for a descriptor that exists already.
func (t *fdTable) mustPin() {
	t.mu.Lock()
	t.pinned++
	t.mu.Unlock()
}

func (t *fdTable) unpin() {
	t.mu.Lock()
	t.pinned--
	t.mu.Unlock()
}

// close closes all descriptors that nobody uses.
func (t *fdTable) close() {
	t.mu.Lock()
	var victims []int
	for t.lru.prev != &t.lru {
		victims = append(victims, t.takeLocked(t.lru.prev))
	}
	t.mu.Unlock()
	closeAll(victims)
}

// count returns how many descriptors are open.
func (t *fdTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open + t.pinned
}

func closeAll(fds []int) {
	for _, fd := range fds {
		sys.Close(fd)
	}
}

// reserveFds makes room for n descriptors in the process' table of them, before they are needed.
//
// The kernel doubles the table when it is full, from 64 entries on. In a process of several threads whoever opened the
// file that did not fit then waits for an RCU grace period, 5 to 20 ms (fs/file.c, expand_fdtable): six times on the
// way to 4,096 directories, more than they take to be listed.
func reserveFds(n int) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // any will do
	if err != nil {
		return
	}
	defer sys.Close(fd)
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n-1); err == nil {
		sys.Close(high)
	}
}
