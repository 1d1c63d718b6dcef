package unionfs

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/laminafs/lamina/internal/sys"
)

// detached is the number of references of a node that is being taken apart. Nobody can reach it any more.
const detached = math.MinInt32

// Forget takes back references that the kernel had. It has to be quick and waits for no lock: the nodes that are
// not referred to any more are taken apart by the reaper.
func (fs *FS) Forget(nodeid, nlookup uint64) {
	if n := fs.nodes.get(nodeid); n != nil && n != fs.root {
		fs.forget(n, int64(nlookup))
	}
}

// forget gives back references to n.
func (fs *FS) forget(n *node, refs int64) {
	if n.lookups.Add(-refs) == 0 {
		fs.reaper.add(n)
	}
}

// reaper takes nodes apart that nobody refers to, in the background, and many at a time: to wake it for each one would cost
// more than what it does.
type reaper struct {
	mu      sync.Mutex
	wake    sync.Cond // due, or the end has come
	idle    sync.Cond // there is nothing to do any more, or not yet
	queue   []*node
	due     bool // there is enough to do, or it has waited for long enough
	late    *time.Timer
	busy    bool
	stopped bool
	ending  atomic.Bool // as stopped, for who does not hold mu
	done    chan struct{}
}

const (
	reapMany  = 64                   // nodes for which it begins at once
	reapAfter = 5 * time.Millisecond // for fewer
)

func (r *reaper) start(fs *FS) {
	r.wake.L, r.idle.L = &r.mu, &r.mu
	r.done = make(chan struct{})
	r.late = time.AfterFunc(time.Hour, r.begin)
	go r.run(fs)
}

func (r *reaper) add(n *node) {
	r.mu.Lock()
	r.queue = append(r.queue, n)
	switch len(r.queue) {
	case 1:
		r.late.Reset(reapAfter)
	case reapMany:
		r.beginLocked()
	}
	r.mu.Unlock()
}

// begin has it take apart what there is.
func (r *reaper) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beginLocked()
}

func (r *reaper) beginLocked() {
	if !r.due && len(r.queue) > 0 {
		r.due = true
		r.wake.Broadcast()
	}
}

// catchUp waits until all that is not referred to is taken apart. Precondition: no dirState.mu and no node.loc is held.
func (r *reaper) catchUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for (len(r.queue) > 0 || r.busy) && !r.stopped {
		r.beginLocked()
		r.idle.Wait()
	}
}

func (r *reaper) run(fs *FS) {
	defer close(r.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.idle.Broadcast()
	for {
		for !r.due && !r.stopped {
			r.busy = false
			r.idle.Broadcast()
			r.wake.Wait()
		}
		if r.stopped {
			return
		}
		batch := r.queue
		r.queue, r.due, r.busy = nil, false, true
		r.mu.Unlock()
		for _, n := range batch {
			if r.ending.Load() {
				break
			}
			fs.reap(n)
		}
		r.mu.Lock()
	}
}

// stop ends the reaper. It may be called twice, and before start.
func (r *reaper) stop() {
	if r.done == nil {
		return
	}
	r.ending.Store(true)
	r.late.Stop()
	r.mu.Lock()
	r.stopped = true
	r.wake.Broadcast()
	r.mu.Unlock()
	<-r.done
}

// reap takes n apart if it is still unused, and then its parents if they were only kept for n.
func (fs *FS) reap(n *node) {
	for unused := []*node{n}; len(unused) > 0; {
		n, unused = unused[0], unused[1:]
		if n != fs.root {
			unused = append(unused, fs.reapOne(n)...)
		}
	}
}

func (fs *FS) reapOne(n *node) (parents []*node) {
	n.loc.RLock()
	names := n.dentriesLocked()
	n.loc.RUnlock()
	dirs := []*node{n}
	for _, d := range names {
		dirs = append(dirs, d.parent)
	}
	defer lockDirs(dirs...)()
	defer lockNodes(n)()
	if n.lookups.Load() != 0 || n.dir != nil && n.dir.kids > 0 || !slices.Equal(names, n.dentriesLocked()) {
		return nil // it is in use again, or changed: who changed it gives the last reference back later
	}
	if !fs.links.detach(n) {
		return nil
	}
	for _, d := range names {
		s := d.parent.dir
		if e := s.index.get(d.name); e != nil && e.node == n {
			e.node, e.ino = nil, n.ino.Load()
			s.kids--
		}
		if s.kids == 0 && d.parent.lookups.Load() == 0 {
			parents = append(parents, d.parent)
		}
	}
	fs.nodes.remove(n)
	fs.attrs.drop(n)
	fs.dismantle(n)
	return parents
}

// dismantle closes what n kept open, and gives away what was only kept for it.
func (fs *FS) dismantle(n *node) {
	fs.dropFile(n)
	if n.anon {
		sys.Close(n.rarely().fd)
		fs.fds.unpin()
	}
	if number := n.rarely().orphaned; number != 0 {
		fs.trash.add(number)
	}
	if n.dir != nil {
		n.dir.index.leave()
		fs.forgetDirs(n.sourcesLocked())
	}
}
