package container

import (
	"encoding/json"
	"errors"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/sandbox"
	"github.com/laminafs/lamina/runtime/seccomp"
)

// A monitor takes longer to begin than a container to be made. So who is about to do both decides on the container's ID,
// starts the monitor, and makes the container meanwhile:
//
//	command                  monitor
//	fork, exec          -->  prepares what every start needs
//	create
//	monitor.lock        -->  the picture in the package comment goes on
//
// It ends when the command does not need it, or goes.

// argExpected is the last argument of a monitor whose container is not made yet.
const argExpected = "expected"

// Expected is a monitor that has been started for a container that is about to be made.
type Expected struct {
	id   string
	done chan struct{} // closed when it is there, or will not be
	conn *conn         // after done; nil where it could not be started
	err  error         // after done: why
}

// here is the first message to an expected monitor: its container is made. monitor.lock comes with it.
type here struct{}

// Expect starts the monitor of the container that is made next under root, for Options.Expected. It is a matter of speed
// only: where it fails, the start begins one of its own.
//
// Preconditions: those of Open; root is a store.
func Expect(root string, o Options) *Expected {
	s := &Store{root: root, o: o}
	e := &Expected{id: newID(), done: make(chan struct{})}
	go func() {
		defer close(e.done)
		s.fill()
		e.conn, e.err = s.spawn(modeRun, e.id, nil)
	}()
	return e
}

// Drop ends the monitor where no container was started. Nil is fine.
func (e *Expected) Drop() {
	if e == nil {
		return
	}
	if <-e.done; e.err == nil {
		_ = e.conn.Close() // it waits for nothing else
	}
}

// Expect does so in a store that is open already.
//
// Preconditions: the store is used by one goroutine, until Unexpect or a start.
func (s *Store) Expect() {
	if s.expected == nil {
		s.expected = Expect(s.root, s.o)
	}
}

// nextID is the ID of a container that is about to be made.
func (s *Store) nextID() string {
	if s.expected != nil {
		return s.expected.id
	}
	return newID()
}

// Unexpect ends the monitor where no container was started.
func (s *Store) Unexpect() {
	s.expected.Drop()
	s.expected = nil
}

// expectOutside waits, outside, until the monitor that Expect has started is there: nobody else has the IDs that a container needs.
// Errors: why it could not be started.
func (s *Store) expectOutside() error {
	if entered() || s.expected == nil {
		return nil
	}
	<-s.expected.done
	return s.expected.err
}

// monitorFor starts the container's monitor, or tells the one that is expected.
func (c *Container) monitorFor(lock *os.File) (*conn, error) {
	e := c.s.expected
	if e == nil || e.id != c.r.ID {
		return c.s.spawn(modeRun, c.r.ID, lock)
	}
	c.s.expected = nil
	if <-e.done; e.err == nil {
		if e.conn.send(here{}, lock) == nil {
			return e.conn, nil
		}
		_ = e.conn.Close() // it has died
	}
	return c.s.spawn(modeRun, c.r.ID, lock)
}

// awaitContainer waits until the container is made. Errors: io.EOF when it will not be.
func awaitContainer(first *conn) (lock *os.File, err error) {
	go prepare()
	files, err := first.receive(&here{})
	if err == nil && len(files) != 1 {
		err = errors.New("want one descriptor: monitor.lock")
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files[0], nil
}

// prepare does what takes time and is the same for most containers: what is asked for again is at hand then.
func prepare() {
	_ = json.Unmarshal([]byte("{}"), &record{}) // the plan of the type is what is wanted
	sandbox.Prepare()
	_, _ = json.Marshal(&state{})
	if profile, err := defaultProfile(); err == nil {
		_, _, _ = seccomp.Compile(profile) // the start says what is wrong
	}
}

// defaultProfile is the seccomp profile of a container without options.
func defaultProfile() (*specs.LinuxSeccomp, error) {
	caps, err := capabilities(nil, nil, nil)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Process: &specs.Process{Capabilities: capabilitySets(caps, specs.User{})},
		Linux:   &specs.Linux{},
	}
	err = addSeccomp(spec, security{})
	return spec.Linux.Seccomp, err
}
