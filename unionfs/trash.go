package unionfs

import (
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/internal/sys"
)

// trash are the objects in the staging directory, by number, that nobody refers to any more.
//
// The reaper collects them and removes none: it works in the background, and may not be done when an unmount has
// returned, after which nothing is written. Requests remove them, because a mount cannot go while somebody waits for an
// answer of it. What is left when it goes the next mount removes.
type trash struct {
	n       atomic.Int32 // len(numbers), for who does not hold mu
	mu      sync.Mutex
	numbers []uint64
}

func (t *trash) add(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.numbers = append(t.numbers, number)
	t.n.Add(1)
}

// take returns at most max of them.
func (t *trash) take(max int) []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := len(t.numbers) - min(max, len(t.numbers))
	taken := append([]uint64(nil), t.numbers[at:]...)
	t.numbers = t.numbers[:at]
	t.n.Add(-int32(len(taken)))
	return taken
}

// sweepAtOnce is how many objects one request removes: no request adds more than a few, and none is to take long.
const sweepAtOnce = 16

// sweep removes some of the trash. Only requests call it.
func (fs *FS) sweep() {
	if fs.trash.n.Load() == 0 {
		return
	}
	for _, number := range fs.trash.take(sweepAtOnce) {
		fs.stage.Discard(sys.At{Dirfd: fs.work.staging, Name: orphanName(number)})
	}
}
