package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/beside"
	"github.com/laminafs/lamina/internal/endpoint"
	"github.com/laminafs/lamina/internal/figures"
)

// exporterName is the program that serves figures to Prometheus (metrics=). It is another process than the server, and
// another program: what HTTP and its metrics take to start, of memory and of the scheduler's attention is not for every
// mount to pay, and the mount goes on whatever happens to the exporter.
const exporterName = "laminafs-metrics"

// exporter is that process.
//
//	server                        exporter
//	                        <--   "" or what went wrong, a line: it listens, or does not
//	                        <->   package figures, on the same socket
//	closes life             -->   removes its socket, and ends
type exporter struct {
	cmd  *exec.Cmd
	sock int           // to it
	life *os.File      // the end of a pipe; closed, also by our death, when it is to end
	done chan struct{} // closed when it has ended
	left atomic.Bool   // it is to end
}

// exporterPatience is how long the exporter may take to listen, and to end.
const exporterPatience = 10 * time.Second

// startExporter returns when the exporter listens at a.
func startExporter(a endpoint.Address) (e *exporter, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("metrics=%s: %w", a, err)
		}
	}()
	if a, err = a.Abs(); err != nil {
		return nil, err
	}
	bin, err := beside.Find(exporterName, "laminafs")
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	theirLife, life, err := os.Pipe()
	if err != nil {
		_ = unix.Close(pair[0]) // nobody has the other end
		return nil, err
	}
	defer theirLife.Close()
	e = &exporter{cmd: exec.Command(bin, a.String()), sock: pair[0], life: life, done: make(chan struct{})}
	e.cmd.Dir = "/"
	e.cmd.ExtraFiles = []*os.File{theirs, theirLife}
	if err := e.cmd.Start(); err != nil {
		e.close()
		return nil, err
	}
	go func() {
		_ = e.cmd.Wait() // what it had to say it has said
		close(e.done)
	}()
	if err := e.listens(); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

// listens waits for the line that says so.
func (e *exporter) listens() error {
	limit := unix.NsecToTimeval(int64(exporterPatience))
	if err := unix.SetsockoptTimeval(e.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := unix.Read(e.sock, b) // not one byte more than the line: what follows is asked of somebody else
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return fmt.Errorf("%s does not answer", exporterName)
		case err != nil || n == 0:
			return fmt.Errorf("%s: %w", exporterName, errGone)
		case b[0] != '\n':
			line = append(line, b[0])
			continue
		case len(line) > 0:
			return errors.New(string(line))
		}
		limit = unix.Timeval{}
		return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(e.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	}
}

// serve answers the exporter.
func (e *exporter) serve(t *teller, logger *log.Logger) {
	t.s.Figures(true)
	go func() {
		figures.Serve(e.sock, t.snapshot)
		if !e.left.Load() {
			logger.Printf("%s has ended: the mount goes on without metrics", exporterName)
		}
	}()
}

// leave has the exporter give its address up: the next mount may ask for the same one. nil has none.
func (e *exporter) leave() {
	if e != nil {
		e.left.Store(true)
		_ = unix.Shutdown(e.sock, unix.SHUT_RDWR) // wakes who serves it
		_ = e.life.Close()                        // it may be closed already
	}
}

// stop ends the exporter.
func (e *exporter) stop() {
	e.leave()
	select {
	case <-e.done:
	case <-time.After(exporterPatience):
		_ = e.cmd.Process.Kill() // it has ended meanwhile
	}
}

func (e *exporter) close() {
	_ = unix.Close(e.sock) // nobody has the other end
	_ = e.life.Close()
}
