package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/laminafs/lamina/runtime/container"
)

// attachment is how the caller's terminal and signals go to the command of a container.
type attachment struct {
	tty      bool // the command has a terminal
	stdin    bool
	stdout   bool
	stderr   bool
	sigProxy bool
	keys     []byte // that detach
}

// check refuses what would hang: a terminal in the container that reads from none here.
func (a *app) checkTerminal(at attachment) error {
	if at.tty && at.stdin && !term.IsTerminal(int(a.in.Fd())) {
		return errors.New("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
	}
	return nil
}

// streams are the ends of the session that are here.
func (a *app) streams(at attachment) *container.Streams {
	s := &container.Streams{DetachKeys: at.keys}
	if at.stdin {
		s.Stdin = a.in
	}
	if at.stdout {
		s.Stdout = a.out
	}
	if at.stderr {
		s.Stderr = a.err
	}
	return s
}

// consoleSize is height and width in characters of the terminal that is here; zero without one.
func (a *app) consoleSize() [2]uint {
	for _, f := range []*os.File{a.out.File, a.in} {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			return [2]uint{uint(h), uint(w)}
		}
	}
	return [2]uint{}
}

// raw hands every key to the command in the container, ^C too. restore may be called several times.
func (a *app) raw(at attachment) (restore func(), err error) {
	fd := int(a.in.Fd())
	if !at.tty || !at.stdin || !term.IsTerminal(fd) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = term.Restore(fd, old) }), nil
}

// session opens a session and stays in it until the command ends, or the user detaches, which is no error. Signals that
// come before the command runs are kept for it.
func (a *app) session(ctx context.Context, at attachment, open func() (*container.Session, error)) (code int, err error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, a.forwarded(at)...)
	defer func() {
		if err != nil { // without an error the process ends, and for each signal the runtime asks a thread, and waits
			signal.Stop(signals)
		}
	}()

	restore, err := a.raw(at)
	if err != nil {
		return 0, err
	}
	defer restore()
	s, err := open()
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	defer close(done)
	go a.forward(s, at, signals, done)
	if code, err = s.Wait(ctx); errors.Is(err, container.ErrDetached) {
		restore()
		_, _ = io.WriteString(a.err, "\n"+err.Error()+"\n")
		return 0, nil
	}
	if err == nil && code == 0 {
		err = a.out.failed()
	}
	return code, err
}

// notForwarded are signals that are about this process alone.
var notForwarded = map[unix.Signal]bool{
	unix.SIGCHLD: true, unix.SIGPIPE: true, unix.SIGURG: true, unix.SIGWINCH: true, unix.SIGKILL: true, unix.SIGSTOP: true,
	unix.SIGTTIN: true, unix.SIGTTOU: true,
	// What goes wrong here is not the command's.
	unix.SIGSEGV: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGILL: true, unix.SIGTRAP: true, unix.SIGPROF: true,
}

// forwarded are the signals that session wants to see.
func (a *app) forwarded(at attachment) []os.Signal {
	list := []os.Signal{unix.SIGWINCH}
	if !at.sigProxy {
		return list
	}
	for n := unix.Signal(1); n <= 31; n++ {
		if !notForwarded[n] {
			list = append(list, n)
		}
	}
	return list
}

// forward passes signals on, and the size of the terminal when it changes, until done.
func (a *app) forward(s *container.Session, at attachment, signals <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case sig := <-signals:
			n, ok := sig.(unix.Signal)
			switch {
			case !ok:
			case n == unix.SIGWINCH:
				if size := a.consoleSize(); at.tty && size != [2]uint{} {
					_ = s.Resize(size[0], size[1]) // it may have ended
				}
			default:
				_ = s.Signal(int(n)) // it may have ended
			}
		}
	}
}
