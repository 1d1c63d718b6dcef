package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/idmap"
)

// childEnv is the environment of our executable in the container: a short life with little to collect.
var childEnv = []string{"GOGC=off", "GOMAXPROCS=1"}

// envForChild is replaced by tests, which tell the child more.
var envForChild = func() []string { return childEnv }

// A Container is one that was created: its first process waits, runs, or has ended.
type Container struct {
	opts  Options
	ns    *namespaces
	first *Process
	conn  conn
	mu    sync.Mutex // serialises Start

	started bool // by mu
	profile processConfig
}

// Create makes a container: everything but the execution of the command has been done when it returns, and Start
// does that. On an error nothing is left.
//
// Preconditions: the caller is root of its user namespace, and its mount namespace is one that Spec.Root.Path is
// mounted in.
// Errors: *StageError for what failed inside; an error of Joined as it is.
func Create(o Options) (*Container, error) {
	ns, err := validate(o.Spec)
	if err != nil {
		return nil, err
	}
	p, err := newPlan(&o, ns)
	if err != nil {
		return nil, err
	}
	defer p.close()
	c := &Container{opts: o, ns: ns, profile: p.config.Process}
	joined, err := openNamespaces(ns)
	if err != nil {
		return nil, err
	}
	defer closeAll(joined)
	prepare := func(pid int) error {
		if o.Born != nil {
			if err := o.Born(pid); err != nil {
				return err
			}
		}
		if ns.isNew(unix.CLONE_NEWUSER) {
			if err := idmap.WriteMaps(pid, o.Spec.Linux.UIDMappings, o.Spec.Linux.GIDMappings); err != nil {
				return err
			}
		}
		if err := setOOMScoreAdj(pid, o.Spec.Process.OOMScoreAdj, p.config.InitNS); err != nil {
			return err
		}
		return p.config.Process.raiseLimits(pid)
	}
	start := sys.Spawn{
		Args: []string{RoleInit}, Flags: ns.fresh &^ unix.CLONE_NEWCGROUP, Root: ns.isNew(unix.CLONE_NEWUSER),
	}
	if o.Cgroup != nil {
		start.Cgroup = int(o.Cgroup.Fd())
	}
	c.first, c.conn, err = spawn(&start, o.Self, &p.config, o.Stdio, o.Spec.Process.Terminal, p.files, joined, prepare)
	if err != nil {
		return nil, fmt.Errorf("start in new namespaces: %w", err)
	}
	err = nil
	if o.Cgroup != nil && !start.InCgroup {
		err = c.enterCgroup2()
	}
	if err == nil {
		err = c.join(o.Joined)
	}
	if err != nil {
		c.abandon()
		return nil, err
	}
	return c, nil
}

// join is the parent's side until the container is ready.
func (c *Container) join(joined func(pid int) error) error {
	if joined != nil {
		if err := joined(c.first.Pid()); err != nil {
			return err
		}
	}
	if err := c.conn.send(message{Word: wordJoined}, -1); err != nil && !packet.Gone(err) {
		return fmt.Errorf("handshake: %w", err)
	}
	master, err := c.conn.expect(wordReady)
	if err != nil {
		return c.first.whyEnded("the container's first process", err)
	}
	handConsole(c.opts.Console, master)
	return nil
}

func handConsole(console func(*os.File), master int) {
	if master < 0 {
		return
	}
	f := os.NewFile(uintptr(master), "console")
	if console == nil {
		_ = f.Close() // nobody wants it
		return
	}
	console(f)
}

// abandon ends what cannot become a container.
func (c *Container) abandon() {
	c.conn.Close()
	_ = c.first.Signal(unix.SIGKILL)
	<-c.first.done
}

// Start executes the command.
//
// Errors: *ExecError when there is no such command, or it cannot be executed; *StageError for what comes before
// that. The container has ended then.
func (c *Container) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return errors.New("start: the container has been started already")
	}
	c.started = true
	defer c.conn.Close()
	if err := c.conn.release(c.first); err != nil {
		c.abandon()
		return err
	}
	return nil
}

// release lets the process become its command, and waits until it has.
func (c conn) release(p *Process) error {
	if err := c.send(message{Word: wordRelease}, -1); err != nil && !packet.Gone(err) {
		return fmt.Errorf("handshake: %w", err)
	}
	m, _, err := c.receive()
	switch {
	case err == io.EOF:
		// Executed; or killed before it could be, which Wait tells.
		return nil
	case err != nil:
		return fmt.Errorf("handshake: %w", err)
	case m.Failed != nil:
		return m.Failed.error()
	}
	return fmt.Errorf("handshake: %q in place of the execution", m.Word)
}

// Pid is the command's process id in the caller's pid namespace.
func (c *Container) Pid() int { return c.first.Pid() }

// Wait waits for the command, or the reaper above it, to end. It may be called any number of times.
func (c *Container) Wait() (unix.WaitStatus, error) { return c.first.Wait() }

// Done is closed when the command has ended.
func (c *Container) Done() <-chan struct{} { return c.first.done }

// Signal sends a signal to the command. To one that has ended it is os.ErrProcessDone.
func (c *Container) Signal(sig unix.Signal) error { return c.first.Signal(sig) }

// Delete ends the container if it has not ended, and releases what was held for it.
func (c *Container) Delete() { c.abandon() }

// A Process is a process of a container: the first, or one of Exec.
type Process struct {
	pid    int
	pidfd  int
	done   chan struct{}
	status unix.WaitStatus // after done, as are the others
	err    error
	mu     sync.Mutex
	gone   bool // by mu: pidfd is closed
}

func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end. It may be called any number of times.
func (p *Process) Wait() (unix.WaitStatus, error) {
	<-p.done
	return p.status, p.err
}

// Signal sends a signal; to a process that has ended it is os.ErrProcessDone.
func (p *Process) Signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return os.ErrProcessDone
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// reap waits in the thread that has started the process.
func (p *Process) reap() {
	for {
		_, err := unix.Wait4(p.pid, &p.status, 0, nil)
		if err != unix.EINTR {
			p.err = err
			break
		}
	}
	p.mu.Lock()
	p.gone = true
	sys.Close(p.pidfd)
	p.mu.Unlock()
	close(p.done)
}

// ending tells whether the process has ended, or is being taken apart by the kernel: do_exit (kernel/exit.c). A main thread
// that leaves the others alone looks so too, and has nothing more to join either.
func (p *Process) ending() bool {
	select {
	case <-p.done:
		return true
	default:
	}
	stat := sys.ProcStat(p.pid)
	return stat == nil || sys.Exiting(stat)
}

// whyEnded makes an error of the end of a process that should have said something; name is what it is called.
func (p *Process) whyEnded(name string, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	_ = p.Signal(unix.SIGKILL)
	status, _ := p.Wait()
	if status.Signaled() {
		return fmt.Errorf("%s was killed by %s before it was ready (memory limit?)", name, unix.SignalName(status.Signal()))
	}
	return fmt.Errorf("%s ended before it was ready, with exit code %d", name, status.ExitStatus())
}

// spawn starts our executable in a role. The goroutine that does so stays with its thread until the process has
// ended; join are namespaces that the thread enters first.
func spawn(s *sys.Spawn, path string, config any, stdio [3]*os.File, terminal bool, files []int, join []sys.Join, prepare func(pid int) error) (*Process, conn, error) {
	self, err := openSelf(path)
	if err != nil {
		return nil, conn{}, err
	}
	defer sys.Close(self)
	cfg, err := encodeConfig(config)
	if err != nil {
		return nil, conn{}, err
	}
	defer sys.Close(cfg)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, conn{}, err
	}
	defer null.Close()
	parent, child, err := socketpair()
	if err != nil {
		return nil, conn{}, err
	}
	defer sys.Close(child)
	s.Exe, s.Env, s.Setsid, s.Pdeathsig, s.Undumpable, s.Dir = self, envForChild(), true, syscall.SIGKILL, true, "/"
	s.Files = nil
	for _, f := range stdio {
		if f == nil || terminal {
			f = null
		}
		s.Files = append(s.Files, int(f.Fd()))
	}
	s.Files = append(append(s.Files, child, cfg, self), files...)

	p := &Process{done: make(chan struct{})}
	result := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the process, if it still lives, with the thread.
		goruntime.LockOSThread()
		err := enter(join)
		if err == nil {
			p.pid, p.pidfd, err = s.Start(prepare)
		}
		result <- err
		if err == nil {
			p.reap()
		}
	}()
	if err := <-result; err != nil {
		parent.Close()
		return nil, conn{}, err
	}
	goruntime.KeepAlive(stdio)
	return p, parent, nil
}

func enter(join []sys.Join) error {
	for _, j := range join {
		if err := unix.Setns(j.Fd, j.Types); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
	}
	return nil
}

// openNamespaces opens those that the container joins by path.
func openNamespaces(ns *namespaces) ([]sys.Join, error) {
	var joins []sys.Join
	for _, known := range nsFlags {
		path := ns.join[known.kind]
		if path == "" {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(joins)
			return nil, fmt.Errorf("%s namespace %s: %w", known.kind, path, err)
		}
		joins = append(joins, sys.Join{Fd: fd, Types: int(known.flag)})
	}
	return joins, nil
}

func closeAll(joins []sys.Join) {
	for _, j := range joins {
		sys.Close(j.Fd)
	}
}

// setOOMScoreAdj sets how soon the process is chosen when memory is short (proc_pid_oom_score_adj(5)). A session
// manager gives its users' processes a value above 0, and only the machine's root may go below what there is: then
// it stays, if no more than Docker's default was asked for.
func setOOMScoreAdj(pid int, adj *int, initNS bool) error {
	if adj == nil {
		return nil
	}
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("oom_score_adj: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(*adj))
	err = errors.Join(err, f.Close())
	if errors.Is(err, unix.EACCES) && *adj >= 0 && !initNS {
		return nil
	}
	if err != nil {
		return fmt.Errorf("oom_score_adj %d: %w", *adj, err)
	}
	return nil
}
