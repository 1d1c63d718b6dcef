package transport

import (
	"sync"
	"sync/atomic"
)

// A ringQueue is the requests of one processor, and the threads that take them.
type ringQueue struct {
	u   *ringLoop
	cpu int
	pin bool // its threads are to run on that processor: the process may

	threads atomic.Int32 // that are registered
	busy    atomic.Int32 // that are at work
	long    atomic.Int32 // that are at work and have said that it takes long

	growing sync.Mutex  // held to make a thread
	refused atomic.Bool // a thread could not be made: there will be no more
}

const (
	// spare is how many threads a queue has besides those whose requests take long.
	spare = 4

	// depth is how many requests of one processor are at work at the same time, those not counted that take long. More
	// than a few are only where they wait, for a disk for instance: a processor can do one thing at a time.
	depth = 16
)

// atFirst is how many threads each queue has to begin with. Where there are many processors, most of them never send
// a request.
func atFirst(processors int) int { return min(max(1, 64/processors), spare) }

// begin says that a thread is at work on a request. When only one is left that is free, there will be one more; when none
// is, there is one more when it returns.
func (q *ringQueue) begin() {
	busy := q.busy.Add(1)
	switch free := q.threads.Load() - busy; {
	case free > 1 || q.full():
	case free < 1:
		q.growing.Lock()
		q.growWhileBusy()
		q.growing.Unlock()
	case q.growing.TryLock():
		q.u.running.Add(1) // while the caller counts, it is not 0
		go func() {
			q.growWhileBusy()
			q.growing.Unlock()
			q.u.running.Done()
		}()
	}
}

// full tells whether there are as many threads as there may be.
func (q *ringQueue) full() bool {
	return q.threads.Load()-q.long.Load() >= depth || q.threads.Load() >= maxReaders || q.refused.Load()
}

// growWhileBusy makes threads until two are free.
//
// Preconditions: q.growing is held.
func (q *ringQueue) growWhileBusy() {
	for q.threads.Load()-q.busy.Load() < 2 && !q.full() && q.grow() {
	}
}

func (q *ringQueue) end() { q.busy.Add(-1) }

// beginLong says that a request takes long, perhaps until another one comes. When it returns there are threads for that.
func (q *ringQueue) beginLong() {
	if q.threads.Load()-q.long.Add(1) >= spare {
		return
	}
	q.growing.Lock()
	defer q.growing.Unlock()
	for q.threads.Load()-q.long.Load() < spare && !q.full() && q.grow() {
	}
}

func (q *ringQueue) endLong() { q.long.Add(-1) }

// grow makes one more thread, and returns when the kernel knows of it. It is false where there is none to be had.
//
// A thread stays: an entry cannot be taken back from the kernel without losing the request that is just given to it.
func (q *ringQueue) grow() bool {
	t := newRingThread(q.u, q)
	t.start()
	err := <-t.said
	if err == nil {
		err = t.do(ringRegister)
	}
	if err != nil {
		if !goneError(err) {
			q.u.d.log.Printf("one more thread for processor %d: %v", q.cpu, err)
		}
		_ = t.do(ringEnd) // it says nothing
		q.refused.Store(true)
		return false
	}
	_ = t.do(ringKick) // it says nothing
	q.u.running.Add(1)
	t.next <- ringServe
	return true
}
