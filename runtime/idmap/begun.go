package idmap

import (
	"errors"
	"os/exec"
	"sync"
)

// Begun is a Reexec that has begun: the process is there, and its ids are being mapped, which takes two programs. It executes
// nothing before Reexec is called, and is gone when this process ends before that.
type Begun struct {
	found  chan struct{} // closed when id and err are set
	id     *Identity
	err    error
	decide sync.Once
	goOn   chan bool // what is decided
	done   chan struct{}
	code   int   // after done
	failed error // after done
}

var errDropped = errors.New("run in a user namespace: not wanted any more")

// Begin finds out who the caller is, and begins what Reexec does, while he does something else.
func Begin(argv0 string) *Begun {
	b := &Begun{found: make(chan struct{}), goOn: make(chan bool, 1), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.id, b.err = Discover()
		close(b.found)
		if b.err != nil {
			return
		}
		b.code, b.failed = b.id.reexec(argv0, func(cmd *exec.Cmd) error {
			return start(cmd, b.id.UIDs, b.id.GIDs, 0, func() error {
				if !<-b.goOn {
					return errDropped
				}
				return nil
			})
		})
	}()
	return b
}

// Identity is what Discover says.
func (b *Begun) Identity() (*Identity, error) {
	<-b.found
	return b.id, b.err
}

// Reexec goes on, as Identity.Reexec does.
func (b *Begun) Reexec() (code int, err error) {
	b.decide.Do(func() { b.goOn <- true })
	<-b.done
	return b.code, b.failed
}

// Drop ends what was begun, unless it goes on already.
func (b *Begun) Drop() {
	b.decide.Do(func() {
		b.goOn <- false
		<-b.done
	})
}
