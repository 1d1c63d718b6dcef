package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// An execConfig is what a process that joins the container is told.
type execConfig struct {
	Process processConfig
	InitNS  bool
}

// Exec runs a further process in the container, under the container's seccomp filter, and returns when it executes
// its command. stdio and console are as in Options; the terminal is of the container's own devpts.
//
// The parent's thread joins what a thread can join; the child, which has a single thread, joins the user namespace
// and then the mount namespace (setns(2)):
//
//	parent                             child (ExecMain)
//	setns(net, ipc, uts, cgroup, pid)
//	clone()                         -> waits in read(2)
//	a byte                          -> setns(user), root of it, setns(mnt), execve of our
//	                                   executable, by descriptor
//	ExecJoined: cgroup                 configuration read, terminal made
//	                                <- ready (with the terminal's master)
//	release                         -> user, capabilities, seccomp, execve
//	Exec returns                    <- end of file, or failed{...}
//
// Errors: *ExecError when the command cannot be executed; os.ErrProcessDone when the container has ended, or is about to.
func (c *Container) Exec(p *specs.Process, stdio [3]*os.File, console func(master *os.File)) (*Process, error) {
	if err := validateProcess(p); err != nil {
		return nil, err
	}
	proc, err := c.exec(p, stdio, console)
	if err != nil && c.isEnd(err) {
		return nil, fmt.Errorf("exec: %w", os.ErrProcessDone)
	}
	return proc, err
}

func (c *Container) exec(p *specs.Process, stdio [3]*os.File, console func(master *os.File)) (*Process, error) {
	cfg := execConfig{}
	var err error
	if cfg.Process, err = newProcessConfig(p, nil, false); err != nil {
		return nil, err
	}
	cfg.Process.Filter, cfg.Process.FilterFlags = c.profile.Filter, c.profile.FilterFlags
	here, there, err := c.openOwn()
	defer closeAll(here)
	defer closeAll(there)
	if err != nil {
		return nil, err
	}
	nested := c.ns.isNew(unix.CLONE_NEWUSER)
	cfg.InitNS = initNamespace(nested)
	prepare := func(pid int) error {
		if c.opts.Born != nil {
			if err := c.opts.Born(pid); err != nil {
				return err
			}
		}
		if err := setOOMScoreAdj(pid, p.OOMScoreAdj, cfg.InitNS); err != nil {
			return err
		}
		return cfg.Process.raiseLimits(pid)
	}
	proc, conn, err := spawn(&sys.Spawn{Args: []string{RoleExec}, Join: there, Root: nested}, c.opts.Self, &cfg, stdio, p.Terminal, nil, here, prepare)
	if err != nil {
		var step *sys.SpawnError
		if errors.As(err, &step) && step.Step == "execve" && step.Err == unix.ENOENT {
			err = fmt.Errorf("%w (an executable that needs shared libraries does not find them in the container: build it with CGO_ENABLED=0)", err)
		}
		return nil, fmt.Errorf("exec: join the container: %w", err)
	}
	defer conn.Close()
	if err := c.runExec(proc, conn, console); err != nil {
		conn.Close()
		_ = proc.Signal(unix.SIGKILL)
		<-proc.done
		return nil, err
	}
	return proc, nil
}

func (c *Container) runExec(p *Process, conn conn, console func(*os.File)) error {
	if c.opts.ExecJoined != nil {
		if err := c.opts.ExecJoined(p.Pid()); err != nil {
			return err
		}
	}
	master, err := conn.expect(wordReady)
	if errors.Is(err, io.EOF) {
		return p.whyEnded("exec: the process", err)
	}
	if err != nil {
		return err
	}
	handConsole(console, master)
	return conn.release(p)
}

// openOwn opens the namespaces of the container that are not ours: here are those for the thread, there those for
// the child.
func (c *Container) openOwn() (here, there []sys.Join, err error) {
	dir := "/proc/" + strconv.Itoa(c.Pid()) + "/ns/"
	for _, known := range nsFlags {
		if !c.ns.own(known.kind, known.flag) {
			continue
		}
		fd, err := unix.Open(dir+known.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return here, there, fmt.Errorf("exec: %s namespace: %w", known.kind, err)
		}
		j := sys.Join{Fd: fd, Types: int(known.flag)}
		if known.flag == unix.CLONE_NEWUSER || known.flag == unix.CLONE_NEWNS {
			there = append(there, j)
		} else {
			here = append(here, j)
		}
	}
	// Now that they are open: were they those of the container, or of whoever has its number by now?
	return here, there, c.first.Signal(0)
}

// endPatience is how long a container that an exec fails in may take to begin to end: what is killed together with its
// first process may go before that one does.
const endPatience = 2 * time.Second

// isEnd tells whether an exec has failed since the container ends.
//
// The kernel takes a process apart in steps: its namespaces are not found (ENOENT), nobody can be born into its pid
// namespace (ENOMEM), and those that just were are killed, all before its end can be waited for.
func (c *Container) isEnd(err error) bool {
	var stage *StageError
	var exec *ExecError
	if c.first.ending() {
		return true
	}
	if errors.As(err, &stage) || errors.As(err, &exec) {
		return false // the child itself has said what is wrong
	}
	for end := time.Now().Add(endPatience); time.Now().Before(end); {
		select {
		case <-c.first.done:
		case <-time.After(10 * time.Millisecond):
		}
		if c.first.ending() {
			return true
		}
	}
	return false
}

// ExecMain is a process of Exec. It does not return.
func ExecMain() {
	cfg := &execConfig{}
	conn, err := childStart(cfg)
	if err == nil {
		err = cfg.run(conn)
	}
	childFailed(conn, err)
}

func (cfg *execConfig) run(c conn) error {
	r, err := openRoot()
	if err == nil {
		err = newKeyring()
	}
	if err != nil {
		return staged("start", err)
	}
	master := -1
	if cfg.Process.Terminal {
		var slave int
		if master, slave, err = cfg.Process.openTerminal(r); err != nil {
			return staged("console", err)
		}
		if err := cfg.Process.useTerminal(slave); err != nil {
			return staged("console", err)
		}
	}
	if err := c.send(message{Word: wordReady}, master); err != nil {
		return io.EOF
	}
	sys.Close(master)
	if _, err := c.expect(wordRelease); err != nil {
		return io.EOF
	}
	return cfg.Process.become(c, r, cfg.InitNS)
}
