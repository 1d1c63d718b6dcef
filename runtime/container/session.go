package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	api "github.com/moby/moby/api/types/container"
)

// Streams is what is attached. A nil field is not attached.
type Streams struct {
	Stdin  io.Reader // read to its end, which is passed on
	Stdout io.Writer
	Stderr io.Writer // with a terminal all output goes to Stdout

	// DetachKeys are the bytes that detach when they are read from Stdin, for a container with a terminal: ParseKeys of
	// docker's --detach-keys. Empty for "ctrl-p,ctrl-q". They are not passed on.
	DetachKeys []byte
}

// defaultKeys are ctrl-p, ctrl-q.
var defaultKeys = []byte{16, 17}

// ParseKeys reads docker's notation of detach keys: "ctrl-p,ctrl-q", "a,b", "ctrl-\\". Empty is the default.
//
// Errors: ErrInvalid.
func ParseKeys(keys string) ([]byte, error) {
	if keys == "" {
		return bytes.Clone(defaultKeys), nil
	}
	var codes []byte
	for _, key := range strings.Split(keys, ",") {
		ctrl, is := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			codes = append(codes, key[0])
		case is && len(ctrl) == 1 && ctrl[0] >= 'a' && ctrl[0] <= 'z':
			codes = append(codes, ctrl[0]-'a'+1)
		case is && len(ctrl) == 1 && strings.Contains("@[\\]^_", ctrl):
			codes = append(codes, ctrl[0]-'@')
		default:
			return nil, fail(ErrInvalid, "invalid detach keys (%s): unknown character: '%s'", keys, key)
		}
	}
	return codes, nil
}

// ErrDetached is returned by Session.Wait when the detach keys were read, or Detach was called.
var ErrDetached = errors.New("read escape sequence")

// A Session is what a caller has open to a container's command, or to an exec in it.
type Session struct {
	c       *conn
	stdin   *os.File // what the command reads, our end; nil where nothing is attached
	console *os.File // the master of an exec's terminal
	copiers sync.WaitGroup
	exited  chan struct{} // closed when exitCode and err are set
	code    int
	err     error

	detachOnce sync.Once
	detached   chan struct{}
	detaching  atomic.Bool // the monitor is told, and may hang up before detached is closed
}

// pipes are the streams on their way to the monitor: names, and the ends that it gets.
type pipes struct {
	names  []string
	theirs []*os.File
	stdin  *os.File
	stdout *os.File
	stderr *os.File
}

// open makes a pipe for each stream.
func (st *Streams) open() (p *pipes, err error) {
	p = &pipes{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	add := func(name string, reads bool, ours **os.File) {
		if err != nil {
			return
		}
		var r, w *os.File
		if r, w, err = pipe(reads); err != nil {
			return
		}
		theirs := r
		*ours = w
		if reads {
			*ours, theirs = r, w
		}
		p.names, p.theirs = append(p.names, name), append(p.theirs, theirs)
	}
	if st == nil {
		return p, nil
	}
	if st.Stdin != nil {
		add("stdin", false, &p.stdin)
	}
	if st.Stdout != nil {
		add("stdout", true, &p.stdout)
	}
	if st.Stderr != nil {
		add("stderr", true, &p.stderr)
	}
	return p, err
}

func (p *pipes) close() {
	closeAll(p.theirs)
	closeAll([]*os.File{p.stdin, p.stdout, p.stderr})
}

// newSession copies from and to the pipes. The monitor's ends are closed here: it has them.
func newSession(c *conn, st *Streams, p *pipes, terminal bool) *Session {
	closeAll(p.theirs)
	s := &Session{c: c, stdin: p.stdin, exited: make(chan struct{}), detached: make(chan struct{})}
	if st == nil {
		st = &Streams{}
	}
	s.output(st.Stdout, p.stdout)
	s.output(st.Stderr, p.stderr)
	s.input(st, p.stdin, terminal)
	return s
}

func (s *Session) output(to io.Writer, from *os.File) {
	if from == nil {
		return
	}
	s.copiers.Go(func() {
		_, _ = io.Copy(to, from) // who does not take our output has his reasons; the container gets EPIPE
		_ = from.Close()
	})
}

// input passes on what is read from the caller's stdin, until its end, the command's, or the detach keys.
func (s *Session) input(st *Streams, to *os.File, terminal bool) {
	if to == nil {
		return
	}
	keys := st.DetachKeys
	if len(keys) == 0 {
		keys = defaultKeys
	}
	from := st.Stdin
	if terminal {
		from = &keyReader{r: from, keys: keys}
	}
	go func() {
		_, err := io.Copy(to, from)
		if errors.Is(err, ErrDetached) {
			_ = s.Detach() // where it fails Wait says why
		}
		if to != s.console {
			_ = to.Close() // the end of the command's input
		}
	}()
}

// keyReader finds the detach keys in what is read. What may be the beginning of them is held back.
type keyReader struct {
	r    io.Reader
	keys []byte
	held []byte // read, not passed on
	out  []byte // to be passed on
	end  error  // what comes behind that
}

func (k *keyReader) Read(p []byte) (int, error) {
	for len(k.out) == 0 {
		if k.end != nil {
			return 0, k.end
		}
		buf := make([]byte, max(len(p), 1))
		n, err := k.r.Read(buf)
		k.take(buf[:n])
		if err != nil && k.end == nil {
			k.out, k.held, k.end = append(k.out, k.held...), nil, err
		}
	}
	n := copy(p, k.out)
	k.out = k.out[n:]
	return n, nil
}

// take sorts what was read into what is passed on and what may be the beginning of the keys.
func (k *keyReader) take(read []byte) {
	for _, b := range read {
		k.held = append(k.held, b)
		for len(k.held) > 0 && !bytes.HasPrefix(k.keys, k.held) {
			k.out = append(k.out, k.held[0])
			k.held = k.held[1:]
		}
		if len(k.held) == len(k.keys) {
			k.held, k.end = nil, ErrDetached
			return
		}
	}
}

// listen waits for the end.
func (s *Session) listen() {
	defer close(s.exited)
	for {
		var r reply
		files, err := s.c.receive(&r)
		closeAll(files)
		switch {
		case err != nil:
			s.code, s.err = 125, errors.New("the container's monitor has ended without a word")
			return
		case r.Error != nil:
			s.code, s.err = 125, r.Error.unpack()
			return
		case r.Event == eventExited:
			s.code = r.ExitCode
			return
		}
	}
}

// Wait copies what goes in and out until the command has ended and all its output is written, and returns its exit
// status: 128+n when signal n ended it. Also ErrDetached.
func (s *Session) Wait(ctx context.Context) (exitCode int, err error) {
	select {
	case <-s.detached:
		return 0, ErrDetached
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.exited:
	}
	if s.err != nil && s.detaching.Load() {
		<-s.detached
		return 0, ErrDetached
	}
	// The keys may have come at the end of the command's life: they were read first.
	copied := make(chan struct{})
	go func() { s.copiers.Wait(); close(copied) }()
	select {
	case <-copied:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	_ = s.c.Close() // nothing more comes
	return s.code, s.err
}

// Resize sets the size of the terminal in characters. Without a terminal it does nothing.
func (s *Session) Resize(height, width uint) error {
	size := [2]uint{height, width}
	if s.console != nil {
		resize(s.console, size)
		return nil
	}
	return s.ask(request{Op: opResize, Console: size})
}

// Signal sends the command a signal: sig-proxy. Errors: ErrNotRunning when it has ended.
func (s *Session) Signal(sig int) error {
	return s.ask(request{Op: opSignal, Signal: sig})
}

func (s *Session) ask(req request) error {
	select {
	case <-s.exited:
		return ErrNotRunning
	default:
	}
	if gone(s.c.send(req)) != nil {
		return ErrNotRunning
	}
	return nil
}

// Detach lets the container go on without us. Wait returns ErrDetached.
func (s *Session) Detach() error {
	s.detaching.Store(true)
	err := s.ask(request{Op: opDetach})
	s.detachOnce.Do(func() { close(s.detached) })
	return err
}

// ExecOptions are those of docker exec. Cmd, Env, User, WorkingDir, Tty, Privileged and ConsoleSize of Docker's type
// count; Streams say what is attached.
type ExecOptions struct {
	api.ExecCreateRequest

	// Streams are attached; nil for -d.
	Streams *Streams
}

// Exec runs a further command in the running container. The session is nil without Streams.
//
// Errors: ErrNotRunning; ErrConflict for a paused container; *ExitError with 126 or 127.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Session, error) {
	if err := checkText(&o.ExecCreateRequest); err != nil {
		return nil, err
	}
	st := o.Streams
	var p *pipes
	var err error
	if o.Tty {
		p = &pipes{} // the monitor sends us the terminal
	} else if p, err = st.open(); err != nil {
		return nil, err
	}
	con, err := c.dial()
	if err != nil {
		p.close()
		return nil, c.noMonitor(err)
	}
	_, files, err := con.ask(request{Op: opExec, Streams: p.names, Exec: &o.ExecCreateRequest}, p.theirs...)
	if err != nil {
		p.close()
		_ = con.Close()
		return nil, c.noMonitor(err)
	}
	if st == nil {
		closeAll(files)
		_ = con.Close()
		return nil, nil
	}
	s := newSession(con, &Streams{Stdin: st.Stdin, Stdout: st.Stdout, Stderr: st.Stderr}, p, false)
	if len(files) > 0 {
		s.console = pollable(files[0])
		closeAll(files[1:])
		if st.Stdin != nil {
			s.input(st, s.console, true)
		}
		if st.Stdout != nil {
			s.copiers.Go(func() { copyTerminal(st.Stdout, s.console) })
		}
	}
	go s.listen()
	return s, nil
}

// copyTerminal copies until the last one has closed the terminal, which its master tells by EIO.
func copyTerminal(to io.Writer, from *os.File) {
	_, _ = io.Copy(to, from) // EIO is the end
}
