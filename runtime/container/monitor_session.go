package container

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/sys"
)

// session is a client that is attached to the container.
type session struct {
	m     *monitor
	c     *conn
	sinks []*sink
	stdin *os.File // what it sends; nil without
	start bool     // it has started the container
	fore  bool     // the container ends with it
}

// attach takes a client's streams, from now on. While m.mu is held it is known of which run they are.
func (m *monitor) attach(c *conn, req request, files []*os.File) *session {
	s := &session{m: m, c: c, start: req.Op == opStart, fore: req.Foreground}
	for i, f := range files {
		stream := req.stream(i)
		switch {
		case stream == "stdin" && m.c.r.Config.OpenStdin:
			s.stdin = pollable(f)
		case stream == "stdout", stream == "stderr":
			k := newSink(pollable(f))
			s.sinks = append(s.sinks, k)
			m.out.add(stream, k)
		default:
			_ = f.Close() // not wanted
		}
	}
	return s
}

// pollable is the file with reads and writes that Close ends. Its end of the pipe is ours alone.
func pollable(f *os.File) *os.File {
	fd, err := sys.Descriptor(f)
	if err != nil {
		return f
	}
	defer f.Close() // the copy stays
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return f
	}
	_ = unix.SetNonblock(n, true) // a blocking one works too
	return os.NewFile(uintptr(n), f.Name())
}

// fail tells the client that the container was not started.
func (s *session) fail(err error) {
	s.drop()
	_ = s.c.send(reply{Error: packError(err)}) // who has gone does not care
	_ = s.c.Close()
}

// drop forgets the client's streams.
func (s *session) drop() {
	for _, k := range s.sinks {
		s.m.out.remove(k)
		k.drop()
	}
	if s.stdin != nil {
		_ = s.stdin.Close() // ends the read
	}
}

// serve is the life of the session: until the run ends, or the client goes. r is nil after the last one.
func (s *session) serve(r *run) {
	m := s.m
	defer s.c.Close()
	if r == nil {
		s.drop()
		<-m.over
		m.mu.Lock()
		code := m.st.ExitCode
		m.mu.Unlock()
		_ = s.c.send(reply{Event: eventExited, ExitCode: code})
		return
	}
	if s.stdin != nil {
		go m.feed(r, s.stdin)
	}
	left := make(chan bool, 1)
	go func() { left <- s.listen(r) }()
	select {
	case <-r.done:
	case detached := <-left:
		s.drop()
		if s.fore && !detached {
			m.stopRun(r, unix.SIGKILL)
		}
		return
	}
	if s.stdin != nil {
		_ = s.stdin.Close() // nobody reads it any more
	}
	flushed := make(chan struct{})
	go func() {
		for _, k := range s.sinks {
			<-k.done
		}
		<-r.told
		close(flushed)
	}()
	select {
	case <-flushed:
		_ = s.c.send(reply{Event: eventExited, ExitCode: r.exitCode}) // who has gone does not care
	case <-left:
		s.drop()
	}
}

// listen serves the client's further requests until it is gone; detached tells whether it has said so.
func (s *session) listen(r *run) (detached bool) {
	for {
		var req request
		files, err := s.c.receive(&req)
		closeAll(files)
		if err != nil {
			return false
		}
		switch req.Op {
		case opDetach:
			return true
		case opResize:
			resize(r.console, req.Console)
		case opSignal:
			_ = r.sandbox.Signal(unix.Signal(req.Signal)) // the command may have ended
		}
	}
}

// resize sets a terminal's size: height and width.
func resize(console *os.File, size [2]uint) {
	if console == nil || size == [2]uint{} {
		return
	}
	if fd, err := sys.Descriptor(console); err == nil {
		_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size[0]), Col: uint16(size[1])})
	}
}

// feed passes the client's input on to the container, and its end, where that is the container's too.
func (m *monitor) feed(r *run, from *os.File) {
	to := r.stdin
	if r.console != nil {
		to = r.console
	}
	if to == nil {
		return
	}
	_, err := io.Copy(to, from)
	if err == nil && m.c.r.Config.StdinOnce && r.console == nil {
		_ = to.Close() // the end of its input
	}
}

// handle serves one connection to the socket.
func (m *monitor) handle(c *conn) {
	var req request
	files, err := c.receive(&req)
	if err != nil {
		_ = c.Close()
		return
	}
	if req.Op == opAttach {
		m.mu.Lock()
		status, r := m.st.Status, m.run
		s := m.attach(c, req, files)
		m.mu.Unlock()
		switch status {
		case api.StatePaused:
			s.fail(fail(ErrConflict, "You cannot attach to a paused container, unpause it first"))
			return
		case api.StateRestarting: // there is nobody to pass a signal to: not even ^C would end it
			s.fail(fail(ErrConflict, "You cannot attach to a restarting container, wait until it is running"))
			return
		}
		if c.send(reply{Event: eventStarted}) != nil {
			s.drop()
		}
		s.serve(r)
		return
	}
	defer c.Close()
	if req.Op == opExec {
		m.exec(c, req, files)
		return
	}
	defer closeAll(files)
	if req.Op == opHold {
		m.hold(c)
		return
	}
	result, err := m.do(c, req, files)
	if r, err := replyWith(result, err); err == nil {
		_ = c.send(r) // who has gone does not care
	}
}

// replyWith is the answer to a request.
func replyWith(result any, err error) (reply, error) {
	if code, ok := result.(exitCode); ok && err == nil {
		return reply{Event: eventExited, ExitCode: int(code)}, nil
	}
	r := reply{Event: eventDone, Error: packError(err)}
	if err == nil && result != nil {
		r.Result, err = json.Marshal(result)
		return r, err
	}
	return r, nil
}

// exitCode is a result that is a reply of its own.
type exitCode int

// do fulfils a request with one answer.
func (m *monitor) do(c *conn, req request, files []*os.File) (any, error) {
	switch req.Op {
	case opSignal:
		return nil, m.signal(unix.Signal(req.Signal))
	case opStop:
		if req.Keep {
			m.mu.Lock()
			m.keep = true
			m.mu.Unlock()
		}
		return nil, m.stop(unix.Signal(req.Signal), req.Timeout)
	case opWait:
		return m.waitFor(c, req.Next)
	case opPause:
		_, err := m.pause()
		return nil, err
	case opUnpause:
		return nil, m.unpause(0)
	case opResize:
		r, err := m.running()
		if err == nil {
			resize(r.console, req.Console)
		}
		return nil, err
	case opUpdate:
		return nil, m.update(req.Update)
	case opStats:
		return m.stats()
	case opTop:
		return m.top(req.PsArgs)
	case opExport, opStatPath, opGet, opPut:
		return m.treeRequest(req, files)
	}
	return nil, fail(ErrInvalid, "unknown operation %q", req.Op)
}

// running is the run at hand. Errors: ErrNotRunning.
func (m *monitor) running() (*run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return nil, m.c.notRunning()
	}
	return m.run, nil
}

// stopSignal and stopTimeout are the container's own.
func (m *monitor) stopSignal() unix.Signal { return m.c.stopSignal() }
func (m *monitor) stopTimeout() int        { return m.c.stopTimeout() }

// signal sends the command a signal: kill. What is to end it ends the restarts too, also between two runs, and has one that
// is paused go on.
//
// Source: moby daemon/kill.go, killWithSignal.
func (m *monitor) signal(sig unix.Signal) error {
	ends := sig == unix.SIGKILL || sig == m.stopSignal()
	if ends {
		m.noRestart()
	}
	r, err := m.running()
	if err != nil && ends {
		<-m.over
		return nil
	}
	if err != nil {
		return err
	}
	err = r.sandbox.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) && sig != unix.SIGKILL {
		return m.c.notRunning() // the rest of it is just being taken away
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if sig == unix.SIGKILL {
		m.thaw(r)
		<-m.over
	} else if ends {
		if err := m.unpause(0); !errors.Is(err, ErrConflict) { // it need not be paused, or run any more
			return err
		}
	}
	return nil
}

func (m *monitor) noRestart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.manual {
		m.manual = true
		close(m.canceled)
	}
}

// thaw lets a frozen container take a signal.
func (m *monitor) thaw(r *run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.st.Status == api.StatePaused {
		_ = r.group.Thaw() // it is about to end: what is frozen cannot
		m.st.Status = api.StateRunning
	}
}

// stopRun ends the run and all restarts.
func (m *monitor) stopRun(r *run, sig unix.Signal) {
	m.noRestart()
	_ = r.sandbox.Signal(sig) // it may have ended
	m.thaw(r)
}

// kill ends the run at hand, if there is one.
func (m *monitor) kill() {
	m.mu.Lock()
	r := m.run
	m.mu.Unlock()
	if r != nil {
		m.stopRun(r, unix.SIGKILL)
	}
}

// stop ends the container and returns when it has ended.
func (m *monitor) stop(sig unix.Signal, seconds int) error {
	m.mu.Lock()
	r := m.run
	m.mu.Unlock()
	m.noRestart()
	if r == nil {
		<-m.over
		return nil
	}
	m.stopRun(r, sig)
	var timeout <-chan time.Time
	if seconds >= 0 {
		timeout = time.After(time.Duration(seconds) * time.Second)
	}
	select {
	case <-r.done:
	case <-timeout:
		m.stopRun(r, unix.SIGKILL)
	}
	<-m.over
	return nil
}

// waitFor waits for an exit, or for the last one.
func (m *monitor) waitFor(c *conn, next bool) (any, error) {
	exit := make(chan int, 1)
	if next {
		m.mu.Lock()
		m.waiters = append(m.waiters, exit)
		m.mu.Unlock()
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var req request
		files, err := c.receive(&req)
		closeAll(files)
		_ = err // whatever it was, the client has said what it wanted
	}()
	select {
	case code := <-exit:
		return exitCode(code), nil
	case <-m.over: // who asks for the next one and comes too late for the last hears of that
		m.mu.Lock()
		defer m.mu.Unlock()
		return exitCode(m.st.ExitCode), nil
	case <-gone:
		return nil, nil
	}
}

// hold keeps the container paused for a client: until it has done what it wanted to, or has died over it.
func (m *monitor) hold(c *conn) {
	pause, err := m.pause()
	_ = c.send(reply{Event: eventDone, Error: packError(err)}) // who has gone is seen next
	if err != nil {
		return
	}
	files, _ := c.receive(&request{})
	closeAll(files)
	err = m.unpause(pause)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotRunning) {
		err = nil // it goes on already, or has ended
	}
	_ = c.send(reply{Event: eventDone, Error: packError(err)}) // who has gone does not care
}

// pause freezes the container. The number that it returns, from 1, tells this pause from the next.
func (m *monitor) pause() (number int, err error) {
	r, err := m.running()
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.st.Status == api.StatePaused {
		return 0, fail(ErrConflict, "Container %s is already paused", m.c.r.ID)
	}
	if err := r.group.Freeze(); err != nil {
		return 0, err
	}
	m.st.Status = api.StatePaused
	if err := errors.Join(writeState(m.c.dir(), m.st), faultPaused.Hit()); err != nil {
		m.st.Status = api.StateRunning // one that nobody knows to be paused would stay so
		return 0, errors.Join(err, r.group.Thaw())
	}
	m.pauses++
	return m.pauses, nil
}

// unpause ends the pause of that number, or with 0 whichever there is.
func (m *monitor) unpause(number int) error {
	r, err := m.running()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.st.Status != api.StatePaused || number != 0 && number != m.pauses {
		return fail(ErrConflict, "Container %s is not paused", m.c.r.ID)
	}
	if err := r.group.Thaw(); err != nil {
		return err
	}
	m.st.Status = api.StateRunning
	return writeState(m.c.dir(), m.st)
}

// update changes limits and restart policy of the running container, in this run and in those that the policy makes.
func (m *monitor) update(u *api.UpdateConfig) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run != nil {
		if err := m.run.group.Update(resources(&u.Resources, nil)); err != nil {
			return err
		}
	}
	if u.RestartPolicy.Name != "" {
		m.policy = u.RestartPolicy
	}
	updateResources(&m.limits, &u.Resources)
	return nil
}
