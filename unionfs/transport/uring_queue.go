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

	growing sync.Mutex // held to make a thread
}

const (
	// atFirst is how many threads a queue has to begin with.
	atFirst = 4

	// depth is how many requests of one processor are at work at the same time, those not counted that take long. More
	// than a few are only where they wait, for a disk for instance: a processor can do one thing at a time.
	depth = 16
)

// begin says that a thread is at work on a request. When only one is left that is free, there will be one more.
func (q *ringQueue) begin() {
	if q.busy.Add(1) >= q.threads.Load()-1 && q.threads.Load()-q.long.Load() < depth && q.growing.TryLock() {
		q.u.running.Add(1) // while the caller counts, it is not 0
		go func() {
			defer q.u.running.Done()
			defer q.growing.Unlock()
			q.grow()
		}()
	}
}

func (q *ringQueue) end() { q.busy.Add(-1) }

// beginLong says that a request takes long, perhaps until another one comes. When it returns there are threads for that.
func (q *ringQueue) beginLong() {
	if q.threads.Load()-q.long.Add(1) >= atFirst {
		return
	}
	q.growing.Lock()
	defer q.growing.Unlock()
	if q.threads.Load()-q.long.Load() < atFirst {
		q.grow()
	}
}

func (q *ringQueue) endLong() { q.long.Add(-1) }

// grow makes one more thread, and returns when the kernel knows of it. Without one it goes on with those there are.
//
// A thread stays: an entry cannot be taken back from the kernel without losing the request that is just given to it.
func (q *ringQueue) grow() {
	if q.threads.Load() >= maxReaders {
		return
	}
	t := newRingThread(q.u, q)
	t.start()
	err := <-t.said
	if err == nil {
		t.next <- ringRegister
		err = <-t.said
	}
	if err != nil {
		if !goneError(err) {
			q.u.d.log.Printf("one more thread for processor %d: %v", q.cpu, err)
		}
		t.next <- ringEnd
		<-t.said
		return
	}
	t.next <- ringKick
	<-t.said
	q.u.running.Add(1)
	t.next <- ringServe
}
