package unionfs

import (
	"sync/atomic"
	"time"

	"github.com/laminafs/lamina/internal/figures"
)

// Stats returns the current figures. It waits for no request: the locks it takes are held over no system call.
func (fs *FS) Stats() figures.Union {
	c := &fs.counts
	return figures.Union{
		Nodes: fs.nodes.count(), Descriptors: fs.fds.count(),
		IndexedNames: c.indexed.Load(), IndexHits: c.indexHits.Load(), IndexMisses: c.indexMisses.Load(),
		CopyUps: c.copyUps.Load(), CopyUpFailures: c.copyUpFailures.Load(), CopyUpBytes: c.copyUpBytes.Load(),
		CopyUpSeconds: time.Duration(c.copyUpTime.Load()).Seconds(), Whiteouts: c.whiteouts.Load(),
	}
}

// counts are counters of a union.
type counts struct {
	indexed                                          atomic.Int64
	indexHits, indexMisses, whiteouts                atomic.Uint64
	copyUps, copyUpFailures, copyUpBytes, copyUpTime atomic.Uint64 // time in nanoseconds
}

// copied counts a copy-up that began at start and wrote so many bytes.
func (c *counts) copied(start time.Time, bytes int64, err error) {
	c.copyUpTime.Add(uint64(time.Since(start)))
	c.copyUpBytes.Add(uint64(bytes))
	if err != nil {
		c.copyUpFailures.Add(1)
	} else {
		c.copyUps.Add(1)
	}
}

// madeWhiteout counts one if it was made.
func (c *counts) madeWhiteout(err error) error {
	if err == nil {
		c.whiteouts.Add(1)
	}
	return err
}

// countIn makes the names of x part of total, as they come and go, until leave.
func (x *index) countIn(total *atomic.Int64) *index {
	x.total = total
	total.Add(int64(x.visible))
	return x
}

// leave takes the names of an index that is not used any more out of the total.
func (x *index) leave() {
	if x != nil && x.total != nil {
		x.total.Add(-int64(x.visible))
		x.total = nil
	}
}

// emptyIndex gives the directory an empty index in place of the one it has.
func (fs *FS) emptyIndex(d *dirState) {
	d.index.leave()
	d.index = newIndex(0).countIn(&fs.counts.indexed)
}
