package container

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/sandbox"
)

// exec runs a further command in the container, for the life of the connection or, without streams, for itself.
//
// The command gets the client's pipes as they are. With a terminal the client gets its master, and copies by itself;
// when it goes, what the command writes is thrown away, and it lives on.
func (m *monitor) exec(c *conn, req request, files []*os.File) {
	p, console, err := m.startExec(req, files)
	closeAll(files)
	if err != nil {
		_ = c.send(reply{Error: packError(err)}) // who has gone does not care
		return
	}
	r := reply{Event: eventStarted, Pid: p.Pid()}
	if console != nil {
		defer console.Close()
		err = c.send(r, console)
	} else {
		err = c.send(r)
	}
	ended := make(chan int, 1)
	go func() {
		status, err := p.Wait()
		switch {
		case err != nil:
			ended <- 255
		case status.Signaled():
			ended <- 128 + int(status.Signal())
		default:
			ended <- status.ExitStatus()
		}
	}()
	left := make(chan struct{})
	go func() {
		defer close(left)
		for err == nil {
			var req request
			var files []*os.File
			files, err = c.receive(&req)
			closeAll(files)
			if err == nil && req.Op == opSignal {
				_ = p.Signal(unix.Signal(req.Signal)) // it may have ended
			}
		}
	}()
	select {
	case code := <-ended:
		_ = c.send(reply{Event: eventExited, ExitCode: code})
	case <-left:
		if console != nil {
			go discard(console)
		}
		<-ended
	}
}

// discard reads the terminal of nobody, so that who writes to it does not wait.
func discard(console *os.File) {
	buf := make([]byte, 4096)
	for {
		if _, err := console.Read(buf); err != nil {
			return // EIO: the last one has closed it
		}
	}
}

func (m *monitor) startExec(req request, files []*os.File) (p *sandbox.Process, console *os.File, err error) {
	r, err := m.running()
	if err != nil {
		return nil, nil, err
	}
	m.mu.Lock()
	spec, status := m.spec, m.st.Status
	m.mu.Unlock()
	if status == api.StatePaused {
		return nil, nil, fail(ErrConflict, "Container %s is paused, unpause the container before exec", m.c.r.ID)
	}
	proc, err := m.execProcess(spec, req.Exec)
	if err != nil {
		select {
		case <-r.sandbox.Done():
			return nil, nil, m.c.notRunning() // the tree that was looked into is just being taken away
		default:
			return nil, nil, err
		}
	}
	var stdio [3]*os.File
	for i, f := range files {
		if at := slices.Index([]string{"stdin", "stdout", "stderr"}, req.stream(i)); at >= 0 {
			stdio[at] = f
		}
	}
	for _, f := range stdio {
		if f != nil {
			if fd, err := sys.Descriptor(f); err == nil {
				_ = unix.Fchown(fd, int(outside(proc.User.UID, m.c.r.UIDMap)), -1) // /dev/stdout is opened anew
			}
		}
	}
	p, err = r.sandbox.Exec(proc, stdio, func(master *os.File) { console = master })
	if err != nil {
		closeAll([]*os.File{console})
		return nil, nil, m.c.execFailed(err)
	}
	return p, console, nil
}

// execFailed gives the error of an exec its exit status. A working directory is as a command: 127 for one that is not
// there, 126 for one that cannot be had. Errors: ErrNotRunning. Source: moby daemon/errors.go, setExitCodeFromError.
func (c *Container) execFailed(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return c.notRunning()
	}
	var e *sandbox.StageError
	if !errors.As(err, &e) || e.Stage != sandbox.StageCwd {
		return startError(err)
	}
	if e.Errno == unix.ENOENT || e.Errno == unix.ENOTDIR {
		return &ExitError{Code: 127, Err: err}
	}
	return &ExitError{Code: 126, Err: err}
}

// execProcess is the process of an exec: that of the container with what the caller says.
func (m *monitor) execProcess(spec *specs.Spec, e *api.ExecCreateRequest) (*specs.Process, error) {
	if e == nil || len(e.Cmd) == 0 {
		return nil, fail(ErrInvalid, "no exec command specified")
	}
	rec := m.c.r
	p := *spec.Process
	p.Args, p.Terminal, p.ConsoleSize = e.Cmd, e.Tty, nil
	if e.ConsoleSize != nil && e.Tty {
		p.ConsoleSize = &specs.Box{Height: e.ConsoleSize[0], Width: e.ConsoleSize[1]}
	}
	config := *rec.Config
	config.Tty = e.Tty
	home := ""
	who := e.User
	if who == "" {
		who = userOf(rec)
	}
	root, err := m.rootForRequest()
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	if p.User, home, err = resolveUser(root, who, rec.HostConfig.GroupAdd, rec.UIDMap, rec.GIDMap); err != nil {
		return nil, &ExitError{Code: 126, Err: err}
	}
	p.Env = replaceEnv(environment(&config, rec.Config.Hostname, home), e.Env)
	if e.WorkingDir != "" {
		if e.WorkingDir[0] != '/' {
			return nil, fail(ErrInvalid, "the working directory '%s' is invalid, it needs to be an absolute path", e.WorkingDir)
		}
		p.Cwd = e.WorkingDir
	}
	var held []string
	privileged := rec.HostConfig.Privileged || e.Privileged
	if privileged || wantsAll(rec.HostConfig.CapAdd) {
		if held, err = heldCapabilities(); err != nil {
			return nil, err
		}
	}
	caps, err := capabilities(rec.HostConfig.CapAdd, rec.HostConfig.CapDrop, held)
	if err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	if privileged {
		caps = held
	}
	p.Capabilities = capabilitySets(caps, p.User)
	return &p, nil
}
