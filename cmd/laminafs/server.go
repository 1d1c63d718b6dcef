package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/heap"
	"github.com/laminafs/lamina/internal/livemount"
	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/unionfs"
	"github.com/laminafs/lamina/unionfs/transport"
)

// A mounter makes the mount for a server.
type mounter interface {
	// attend is called before the layers are opened, which may take long, and stop when they are.
	attend() (stop func())

	// mount is called when the layers are open.
	mount() (*transport.Mount, error)

	// ready is called when the mount is served, failed when it will not be.
	ready() error
	failed(err error)

	// syncs is called when the disk is waited for.
	syncs()

	// closed is called when nothing is written to the layers any more.
	closed()

	// unmount takes the mount away.
	unmount(m *transport.Mount, lazy bool) error
}

// localMounter mounts by itself.
type localMounter struct {
	cmd    *command
	target string // checked
}

func (l localMounter) attend() (stop func()) { return func() {} }
func (l localMounter) mount() (*transport.Mount, error) {
	return transport.NewOn(l.target, l.cmd.target, l.cmd.opts.Mount)
}
func (l localMounter) ready() error                                { return nil }
func (l localMounter) failed(error)                                {}
func (l localMounter) syncs()                                      {}
func (l localMounter) closed()                                     {}
func (l localMounter) unmount(m *transport.Mount, lazy bool) error { return m.Unmount(lazy) }

// remoteMounter is the process at the other end of a socket.
type remoteMounter struct {
	cmd  *command
	role role
}

// attend ends this process when the mounter ends: nobody would mount any more.
func (r *remoteMounter) attend() (stop func()) {
	const look = 500 // milliseconds
	opened := make(chan struct{})
	go func() {
		for {
			p := []unix.PollFd{{Fd: int32(r.role.sock)}}
			_, _ = unix.Poll(p, look) // it only waits for the other end to be closed
			select {
			case <-opened:
				return
			default:
			}
			if p[0].Revents&unix.POLLHUP != 0 {
				os.Exit(finish(os.Stderr, fmt.Errorf("mounter: %w", errGone)))
			}
		}
	}()
	return func() { close(opened) }
}

func (r *remoteMounter) mount() (*transport.Mount, error) {
	if err := send(r.role.sock, msgLayers, ""); err != nil {
		return nil, fmt.Errorf("mounter: %w", err)
	}
	buf := make([]byte, maxMessage)
	n, fd, err := packet.Receive(r.role.sock, buf)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("mounter: %w", errGone)
	case err != nil:
		return nil, fmt.Errorf("mounter: %w", err)
	case fd < 0:
		return nil, errors.New(string(buf[1:n]))
	}
	return transport.Received(r.role.target, fd, buf[:n], r.cmd.opts.Mount)
}

func (r *remoteMounter) ready() error {
	if r.role.kind != roleGuest {
		defer unix.Close(r.role.sock)
	}
	return send(r.role.sock, msgReady, "")
}

func (r *remoteMounter) syncs()  { r.tellMounter(msgSyncs) }
func (r *remoteMounter) closed() { r.tellMounter(msgClosed) }

// tellMounter tells a mounter that lives as long.
func (r *remoteMounter) tellMounter(what byte) {
	if r.role.kind == roleGuest {
		_ = send(r.role.sock, what, "") // a mounter that is gone has nobody to tell
	}
}

func (r *remoteMounter) failed(err error) {
	_ = send(r.role.sock, msgFailed, oneLine(err)) // a mounter that is gone has nobody to tell
}

func (r *remoteMounter) unmount(m *transport.Mount, lazy bool) error {
	if r.role.left != 0 {
		return unmountIn(r.role.left, m.Target, lazy)
	}
	return m.Unmount(lazy)
}

// serveRole is the server of a mounter.
func serveRole(cmd *command, r role) error {
	err := serve(cmd, &remoteMounter{cmd, r}, !cmd.foreground)
	if r.kind == roleGuest {
		// The mounter waits until we hold on to nothing. The kernel would close it after our memory is taken apart.
		_ = unix.Close(r.sock)
	}
	if r.mounter != 0 {
		_, _ = unix.Wait4(r.mounter, nil, 0, nil) // it ends whatever we do, and there is nothing to learn from it
	}
	if !cmd.foreground && err != nil {
		os.Exit(exitError) // the mounter has the error line
	}
	return err
}

// serve mounts the union and serves it until it is unmounted. In the background nothing of the caller is held on to
// from the moment on when it is told that the mount is ready.
func serve(cmd *command, mt mounter, background bool) (err error) {
	told := false
	defer func() {
		if err != nil && !told {
			mt.failed(err)
		}
	}()
	unix.Umask(0)
	raiseFileLimit()
	saveMemory()
	out := &output{w: os.Stderr}
	logger := log.New(out, "laminafs: ", 0)

	signal.Ignore(unix.SIGPIPE) // a caller who has closed our stderr does not end the mount

	union := cmd.opts.Union
	union.Log, union.Syncing = logger, mt.syncs
	info := cmd.liveInfo()
	unattend := mt.attend()
	fs, err := unionfs.New(union)
	unattend()
	if err != nil {
		return err
	}
	var exp *exporter
	if a := cmd.opts.Metrics; a != nil {
		if exp, err = startExporter(*a); err != nil {
			return errors.Join(err, fs.Close())
		}
		defer exp.stop()
	}
	// Caught from here on, so that nothing is left mounted. A signal before that ends us: the wait for the layers may
	// be long.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	if err := unix.Chdir("/"); err != nil {
		return errors.Join(fmt.Errorf("chdir /: %w", err), fs.Close())
	}
	m, err := mt.mount()
	if err != nil {
		return errors.Join(err, fs.Close())
	}
	if m.Minor != 0 {
		fs.Mounted(m.Minor)
	}
	fs.SetNotifier(m.Notifier())
	live := &liveDir{}
	defer live.remove(logger)
	r, remote := mt.(*remoteMounter)
	guest := remote && r.role.kind == roleGuest
	left := remote && !guest && r.role.left != 0
	if !guest {
		live.tellOf(info, m.Target, logger)
	}
	s, err := m.Serve(fs, logger, cmd.opts.Debug, func() {
		fs.Unmounted()
		exp.leave()
		// The next mount of the layers may be there before all is on the disk.
		if guest {
			go live.remove(logger) // somebody waits for us
		} else {
			live.remove(logger)
		}
	})
	if err == nil {
		unionfs.ReadAhead(m.Minor)
	}
	if err == nil && guest {
		// A container is about to be started: what others may want to know of the mount is written meanwhile.
		told = true
		err = mt.ready()
		live.tellOf(info, m.Target, logger)
	}
	if err == nil {
		t := newTeller(fs, m, s, union, left)
		t.tell(live, logger)
		if exp != nil {
			exp.serve(t, logger)
		}
	}
	if err == nil && background {
		err = out.leaveStdio(live)
	}
	if err == nil && !guest {
		if left {
			prune()
		}
		told = true
		err = mt.ready()
	}
	if err != nil {
		if m.Target != "" {
			_ = mt.unmount(m, true) // a remote mounter does it too, whoever comes first
		}
		return errors.Join(err, fs.Close())
	}
	if end := wait(s, live, signals, func(lazy bool) error { return mt.unmount(m, lazy) }, logger); !end {
		return nil // requests may be on their way: the kernel ends them when we are gone
	}
	err = fs.Close()
	mt.closed()
	out.end()
	return err
}

// wait returns true when the mount has ended, and false when it could not be ended but is to be given up.
func wait(s *transport.Server, live *liveDir, signals <-chan os.Signal, unmount func(lazy bool) error,
	logger *log.Logger) bool {
	asked := false
	for {
		select {
		case <-s.Done():
			return true
		case sig := <-signals:
			if sig == unix.SIGUSR1 {
				live.writeRequests(s, logger)
				continue
			}
			if asked {
				return false // the second time means it
			}
			asked = true
			if s.Lost() {
				continue // what is on the mount point now is not ours
			}
			err := unmount(false)
			if err != nil {
				err = unmount(true) // in use: it goes on for those who use it
			}
			if err != nil {
				logger.Printf("%v: %v", sig, err)
				return false
			}
		}
	}
}

// raiseFileLimit takes all the descriptors the administrator allows. The runtime of Go does so too, in most versions.
func raiseFileLimit() {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil && l.Cur < l.Max {
		l.Cur = l.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &l) // the union asks what there is
	}
}

// liveInfo is what is told of the mount. Paths are as seen from here, before the working directory changes.
func (cmd *command) liveInfo() livemount.Info {
	info := livemount.Info{PID: os.Getpid(), Options: cmd.optionList()}
	if u := cmd.opts.Union.Upper; u != "" {
		info.Branches = append(info.Branches, livemount.Branch{Path: absolute(u), Writable: true})
	}
	for _, l := range cmd.opts.Union.Lowers {
		info.Branches = append(info.Branches, livemount.Branch{Path: absolute(l)})
	}
	return info
}

// saveMemory lets the garbage collector run when the heap has grown by a third: most of it is what the kernel knows of
// the tree, which lives long, and a mount should not take twice the memory of that. GOGC overrules it. The first
// collection waits for the memory of a few requests.
func saveMemory() { heap.Begin(8<<20, 30) }
