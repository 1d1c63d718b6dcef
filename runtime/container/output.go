package container

import (
	"os"
	"sync"
)

// maxPending is how much output waits for one attached client, in bytes, before the container waits for it too.
const maxPending = 1 << 20

// sink is one stream of one attached client: what it has not taken yet, and the goroutine that gives it.
type sink struct {
	f *os.File

	mu      sync.Mutex
	cond    sync.Cond
	pending [][]byte
	size    int  // bytes pending
	closing bool // nothing more comes
	free    bool // it is not waited for any more: the container has ended
	dead    bool // nobody takes anything
	done    chan struct{}
}

func newSink(f *os.File) *sink {
	s := &sink{f: f, done: make(chan struct{})}
	s.cond.L = &s.mu
	go s.run()
	return s
}

// run gives the client what is pending.
func (s *sink) run() {
	defer close(s.done)
	defer s.f.Close() // nothing is buffered
	for {
		s.mu.Lock()
		for len(s.pending) == 0 && !s.closing && !s.dead {
			s.cond.Wait()
		}
		if s.dead || len(s.pending) == 0 {
			s.mu.Unlock()
			return
		}
		p := s.pending[0]
		s.pending = s.pending[1:]
		s.mu.Unlock()
		_, err := s.f.Write(p)
		s.mu.Lock()
		s.size -= len(p)
		if err != nil {
			s.dead, s.pending = true, nil
		}
		s.cond.Broadcast()
		s.mu.Unlock()
	}
}

// write takes a copy of p. It waits while too much is pending.
func (s *sink) write(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.size >= maxPending && !s.free && !s.dead && !s.closing {
		s.cond.Wait()
	}
	if s.dead || s.closing {
		return
	}
	s.pending = append(s.pending, append([]byte(nil), p...))
	s.size += len(p)
	s.cond.Broadcast()
}

// set changes what the sink is about.
func (s *sink) set(change func()) {
	s.mu.Lock()
	change()
	s.cond.Broadcast()
	s.mu.Unlock()
}

// release lets the container's output go on, whatever the client does.
func (s *sink) release() { s.set(func() { s.free = true }) }

// finish ends the stream behind what is pending.
func (s *sink) finish() { s.set(func() { s.closing = true }) }

// drop ends it at once: the client is gone.
func (s *sink) drop() {
	s.set(func() { s.dead, s.pending = true, nil })
	_ = s.f.Close() // ends a write that waits
}

// outputs is where a container's output goes: its log and the clients that are attached.
type outputs struct {
	mu    sync.Mutex
	sinks map[string][]*sink // by "stdout", "stderr"
	free  bool
	ended bool // nothing comes before the next run
}

// add has a client take part. One that comes when all has been said is told so at once.
func (o *outputs) add(stream string, s *sink) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		s.finish()
		return
	}
	if o.sinks == nil {
		o.sinks = map[string][]*sink{}
	}
	o.sinks[stream] = append(o.sinks[stream], s)
	if o.free {
		s.release()
	}
}

func (o *outputs) remove(gone *sink) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for stream, list := range o.sinks {
		var kept []*sink
		for _, s := range list {
			if s != gone {
				kept = append(kept, s)
			}
		}
		o.sinks[stream] = kept
	}
}

func (o *outputs) write(stream string, p []byte) {
	o.mu.Lock()
	list := o.sinks[stream]
	o.mu.Unlock()
	for _, s := range list {
		s.write(p)
	}
}

// release lets all output go on: the container has ended.
func (o *outputs) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.free = true
	for _, list := range o.sinks {
		for _, s := range list {
			s.release()
		}
	}
}

// end ends all streams behind what is pending.
func (o *outputs) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, list := range o.sinks {
		for _, s := range list {
			s.finish()
		}
	}
	o.sinks, o.free, o.ended = nil, false, true
}

// begin is that of a run. Who has come before the first one takes part.
func (o *outputs) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = false
}
