package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen listens at a. A Unix socket is for its owner alone (mode 0600). One that is there already is replaced if nobody
// listens to it; that no two do so at once is seen to by a lock on the directory. It is removed when the listener is
// closed, by whatever path it has then.
//
// Errors: EADDRINUSE where somebody listens; EEXIST where a socket was to be and something else is.
func Listen(a Address) (net.Listener, error) {
	if a.Path == "" {
		l, err := net.Listen(a.network(), a.Port.String())
		if err != nil {
			return nil, fmt.Errorf("listen at %s: %w", a, cause(err))
		}
		return l, nil
	}
	l, err := listenUnix(a.Path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", a, cause(err))
	}
	return l, nil
}

// cause leaves out what package net says of the address.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// socket is a listener with its file.
type socket struct {
	*net.UnixListener
	dir  *os.Root
	name string
	made fs.FileInfo
	once sync.Once
}

func listenUnix(path string) (_ net.Listener, err error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path of a socket has at most %d bytes", maxPath)
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	s := &socket{dir: dir, name: filepath.Base(path)}
	defer func() {
		if err != nil {
			_ = dir.Close() // read-only
		}
	}()
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := s.removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: ownersOnly}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	s.UnixListener = l.(*net.UnixListener)
	s.SetUnlinkOnClose(false)
	if s.made, err = dir.Lstat(s.name); err != nil {
		_ = l.Close() // the file is gone
		return nil, err
	}
	return s, nil
}

// lock keeps others like us from the directory meanwhile.
func lock(dir *os.Root) (unlock func(), err error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close() // read-only
		return nil, os.NewSyscallError("flock", err)
	}
	return func() { _ = f.Close() }, nil
}

// removeStale removes a socket to which nobody listens.
func (s *socket) removeStale(path string) error {
	st, err := s.dir.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w, and is no socket", unix.EEXIST)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // nothing was said
		return unix.EADDRINUSE
	}
	switch {
	case errors.Is(err, unix.EAGAIN): // so many want to connect that there is no room for one more
		return unix.EADDRINUSE
	case errors.Is(err, fs.ErrNotExist):
		return nil // who had it has taken it away
	case !errors.Is(err, unix.ECONNREFUSED):
		return err
	}
	if err := s.dir.Remove(s.name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ownersOnly gives the file that bind(2) makes its mode: it takes the socket's (net/unix/af_unix.c, unix_bind_bsd). A
// chmod(2) would come too late.
func ownersOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return os.NewSyscallError("fchmod", err)
}

// Close ends the listener and removes its file, if that is still there.
func (s *socket) Close() error {
	s.once.Do(func() {
		if now, err := s.dir.Lstat(s.name); err == nil && os.SameFile(now, s.made) {
			_ = s.dir.Remove(s.name) // one that stays is replaced by the next
		}
		_ = s.dir.Close() // read-only
	})
	return s.UnixListener.Close()
}
