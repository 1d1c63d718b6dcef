package main

import (
	"errors"
	"io"
	"io/fs"
	"log"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/livemount"
	"github.com/laminafs/lamina/unionfs/transport"
)

// liveDir is the directory that tells of our mount. Without one, where there is no place for it, nothing is told.
type liveDir struct {
	*livemount.Dir // set by tellOf, before anybody else asks for it

	mu   sync.Mutex
	gone bool // by mu
}

// tellOf makes the directory, if the mount has not ended already.
func (l *liveDir) tellOf(info livemount.Info, target string, logger *log.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	info.Mountpoint = target
	d, err := livemount.Create(livemount.Bases(), info)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) {
		logger.Printf("the mount will not be listed: %v", err)
	}
	l.Dir = d
}

// remove removes it, and returns when that is done, whoever began.
func (l *liveDir) remove(logger *log.Logger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.gone = true
	if l.Dir == nil {
		return
	}
	if err := l.Dir.Remove(); err != nil {
		logger.Printf("remove %s: %v", l.ID, err)
	}
}

// writeRequests answers SIGUSR1.
func (l *liveDir) writeRequests(s *transport.Server, logger *log.Logger) {
	var b strings.Builder
	err := s.WriteRequests(&b)
	if err == nil && l.Dir != nil {
		err = l.Write("requests", b.String())
	}
	if err != nil && !errors.Is(err, fs.ErrClosed) {
		logger.Printf("requests: %v", err)
	}
}

// output is where the log goes: to stderr, and in the background to a file beside what is told of the mount.
type output struct {
	mu   sync.Mutex
	w    io.Writer
	left int // bytes that may still be written, where file
	file bool
}

// maxLog bounds the log of a mount in the background, in bytes: it lies in memory as a rule.
const maxLog = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file {
		if o.left < len(p) {
			return len(p), nil // full: what came first tells more than what comes now
		}
		o.left -= len(p)
	}
	return o.w.Write(p)
}

// end lets go of the file. What is said after that is dropped: the directory that it was in is gone.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.w.(io.Closer); ok && o.file {
		_ = f.Close() // it is removed
		o.w, o.file = io.Discard, false
	}
}

// leaveStdio puts descriptors 0 to 2 on /dev/null, so that a caller who reads them to the end gets there.
func (o *output) leaveStdio(live *liveDir) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w = io.Discard
	if live.Dir != nil {
		f, err := live.Append("log")
		switch {
		case err == nil:
			o.w, o.left, o.file = f, maxLog, true
		case !errors.Is(err, fs.ErrClosed): // it is where the mount is gone already
			return err
		}
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}
