package container

import (
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/internal/heap"
	"github.com/laminafs/lamina/internal/sysmon"
	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/network"
	"github.com/laminafs/lamina/runtime/sandbox"
)

// MonitorArg0 is os.Args[0] of a monitor: main calls MonitorMain for it, before anything else.
const MonitorArg0 = "lamina-monitor"

// monitorVersion is os.Args[6]: of the arguments, and of the messages that follow them. lamina-monitor is a program of its own.
const monitorVersion = "3"

// The descriptors that a monitor is started with.
const (
	startFD = 3 // the socket to who starts it
	lockFD  = 4 // monitor.lock, locked
)

// modes of a monitor: os.Args[1].
const (
	modeRun  = "run"  // runs the container
	modeTree = "tree" // mounts its tree, for one request
)

// monitor is the process that a running container belongs to.
//
// A run is one life of the container's command; a restart policy makes several of them. What a run has is made by
// begin and taken away by end; the mount stays from the first to the last.
type monitor struct {
	c     *Container
	lock  *os.File // monitor.lock
	log   *logFile
	out   outputs
	union *union        // nil before openTree
	root  int           // O_PATH descriptor of the mounted tree, without what is mounted in it for the container
	over  chan struct{} // closed when all is done and the state is on disk

	server    *union // what is to be the union: taken by openTree
	serverErr error  // why there is none

	others []*os.File // namespaces of other containers, and parts of volumes, while a run begins

	initOnce sync.Once
	initPath string // of the program that the container's processes begin with; by initOnce

	mu        sync.Mutex
	st        *state
	run       *run          // nil between runs
	spec      *specs.Spec   // of the run
	waiters   []chan<- int  // for the next exit code; each has room for it
	closing   bool          // the tree is being unmounted
	manual    bool          // stop or kill: no restart
	keep      bool          // --rm does not take it away: it is to be started again
	goingDown bool          // it was the machine that stopped it, not the user
	canceled  chan struct{} // closed with manual
	lastStats *api.StatsResponse
	policy    api.RestartPolicy
	limits    api.Resources // of the next run: update changes them
	pauses    int           // how many there have been, to tell one from the next
}

// run is one life of the container's command.
type run struct {
	sandbox *sandbox.Container
	group   *cgroup.Group
	net     *network.Network
	stdin   *os.File // what the container reads, our end; nil without
	console *os.File // the master of its terminal; nil without
	copiers sync.WaitGroup
	readers []*os.File
	taken   [2]atomic.Int64 // bytes of output, by stream
	started time.Time
	done    chan struct{} // closed when it has ended and its output is passed on; exitCode is set
	told    chan struct{} // closed when that is on disk

	exitCode  int
	oomKilled bool
}

// MonitorMain is the monitor. It does not return.
func MonitorMain() {
	sysmon.Watch(nil, nil)
	heap.Begin(16<<20, 100)
	os.Exit(monitorMain(os.Args[1:]))
}

func monitorMain(args []string) int {
	first, err := connOf(os.NewFile(startFD, "start"))
	if err != nil {
		return 125 // nobody to tell
	}
	if len(args) < 6 || len(args) > 7 || args[5] != monitorVersion {
		err := errors.New("lamina and lamina-monitor are of different versions: install both anew")
		_ = first.send(reply{Error: packError(err)}) // who has gone does not care
		return 125
	}
	mode, root, id, runDir, laminafs := args[0], args[1], args[2], args[3], args[4]
	m := &monitor{root: -1, over: make(chan struct{}), canceled: make(chan struct{})}
	expected := len(args) == 7
	if !expected {
		unix.CloseOnExec(lockFD)
		m.lock = os.NewFile(lockFD, "monitor.lock")
	}
	s, err := openStore(root, Options{RunDir: runDir, Laminafs: laminafs})
	if err == nil {
		err = errors.Join(cutMounts(), unix.Chdir("/"))
	}
	if err == nil {
		m.server, m.serverErr = s.newUnion(id) // whoever needs it says what is wrong
		defer m.dropServer()
	}
	if expected {
		var e error
		if m.lock, e = awaitContainer(first); e != nil {
			return 125 // nobody needs us
		}
	}
	if err == nil {
		m.c, err = s.load(id)
	}
	if err != nil {
		_ = first.send(reply{Error: packError(err)}) // who has gone does not care
		return 125
	}
	m.policy, m.limits = m.c.r.HostConfig.RestartPolicy, m.c.r.HostConfig.Resources
	if mode == modeTree {
		defer m.lock.Close() // held until then
		return m.serveTree(first)
	}
	return m.main(first)
}

// main runs the container from its first start to its end.
func (m *monitor) main(first *conn) int {
	// The terminal of who started us is none of our business; SIGTERM is that of a machine that goes down.
	// Caught and dropped: what is ignored stays ignored in the container's command, and a shell cannot even trap it then.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE)
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)

	var req request
	files, err := first.receive(&req)
	if err != nil || req.Op != opStart {
		m.leave()
		return 125
	}
	lock, files := req.take("lock", files)
	m.st, err = m.c.state()
	if err == nil {
		m.log, err = openLog(m.c.logPath(), m.logConfig())
	}
	if err != nil {
		closeAll(files)
		m.leave()
		m.notStarted(lock)
		_ = first.send(reply{Error: packError(err)})
		return 125
	}
	m.st.Monitor = identify(os.Getpid())
	m.st.RestartCount, m.st.Error, m.st.OOMKilled, m.st.ManuallyStopped = 0, "", false, false
	sess := m.attach(first, req, files)
	listener, err := m.prepare(req.Console)
	if err != nil {
		m.abort(err)
		m.notStarted(lock)
		sess.fail(err)
		m.reapTree()
		return 125
	}
	_ = lock.Close() // nil is fine: who started us lets go of it when he knows
	_ = first.send(reply{Event: eventStarted, Pid: m.st.Init.Pid})
	var sessions sync.WaitGroup
	r := m.run // before supervise: it may be a short one
	sessions.Go(func() { sess.serve(r) })
	go m.accept(listener, &sessions)
	go m.watchTree(m.union)
	go func() {
		<-terminated
		m.mu.Lock()
		m.goingDown = true
		m.mu.Unlock()
		_ = m.stop(m.stopSignal(), m.stopTimeout()) // a container that cannot be stopped is killed
	}()
	m.supervise()
	m.finish(listener)
	sessions.Wait()
	m.reapTree()
	return 0
}

func (m *monitor) logConfig() logConfig {
	o, err := logOptions(m.c.r.HostConfig.LogConfig)
	if err != nil {
		return logConfig{maxFiles: 1} // create has checked it
	}
	return o
}

// prepare mounts the tree, opens the socket and begins the first run.
func (m *monitor) prepare(console [2]uint) (*net.UnixListener, error) {
	if err := m.openTree(); err != nil {
		return nil, err
	}
	if err := faultMounted.Hit(); err != nil {
		return nil, err
	}
	listener, err := m.c.listen()
	if err != nil {
		return nil, err
	}
	if err := m.begin(console); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// openTree mounts the container's layers.
func (m *monitor) openTree() (err error) {
	u := m.server
	m.server = nil
	if u == nil {
		return m.serverErr
	}
	if err := u.mount(m.c); err != nil {
		return err
	}
	m.union = u
	m.root, err = unix.Open(m.union.target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.union.target, Err: err}
	}
	m.mu.Lock()
	if m.st != nil {
		m.st.Laminafs = m.union.server
	}
	m.mu.Unlock()
	return nil
}

// dropServer ends laminafs where no tree was opened.
func (m *monitor) dropServer() {
	if m.server != nil {
		m.server.drop()
	}
}

// rootForRequest opens the tree's root for a request, which may come while the tree is closed, and the number of its descriptor
// given to another one.
func (m *monitor) rootForRequest() (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.root < 0 {
		return -1, m.c.notRunning()
	}
	return unix.FcntlInt(uintptr(m.root), unix.F_DUPFD_CLOEXEC, 0)
}

// errUnionEnded is why a container has ended that nobody has stopped.
var errUnionEnded = errors.New("laminafs, which served the container's root, has ended")

// watchTree ends the container when its root is gone: all that it could do is fail.
func (m *monitor) watchTree(u *union) {
	<-u.ended
	m.mu.Lock()
	r, closing := m.run, m.closing
	m.mu.Unlock()
	if r != nil && !closing {
		m.stopRun(r, unix.SIGKILL)
	}
}

// closeTree unmounts it. What has served it may still be about to end: endTree.
func (m *monitor) closeTree() error {
	m.mu.Lock()
	if m.root >= 0 {
		_ = unix.Close(m.root) // O_PATH: it has nothing to lose
		m.root = -1
	}
	m.closing = true
	m.mu.Unlock()
	if m.union == nil {
		return nil
	}
	early := m.union.hasEnded()
	err := m.union.unmount()
	// One that is killed ends the container's files before it is seen to end itself, and the container may end by that first.
	if m.union.wait() == nil && (early || !m.union.said) {
		err = errors.Join(errUnionEnded, err)
	}
	return err
}

// endTree waits until laminafs has let go of everything.
func (m *monitor) endTree() error {
	if m.union == nil {
		return nil
	}
	return m.union.end()
}

// reapTree waits until nothing is left of laminafs: the last thing that a monitor does.
func (m *monitor) reapTree() {
	if m.union != nil {
		<-m.union.ended
	}
}

// abort takes back what a failed start has made, and keeps the reason.
func (m *monitor) abort(err error) {
	_ = os.Remove(m.c.socket())
	err = errors.Join(err, m.closeTree(), m.endTree())
	m.mu.Lock()
	m.st.Status = api.StateExited // as it was before
	if m.st.FinishedAt.IsZero() {
		m.st.Status, m.st.StartedAt = api.StateCreated, time.Time{}
	}
	m.st.ExitCode, m.st.Error = ExitCode(err), err.Error()
	m.forgetLocked()
	_ = writeState(m.c.dir(), m.st) // the error at hand is the one to tell
	m.mu.Unlock()
	m.log.close()
	m.leave()
	close(m.over)
}

// forgetLocked drops what is true of a running container only.
func (m *monitor) forgetLocked() {
	m.st.Monitor, m.st.Init, m.st.Laminafs, m.st.Cgroup, m.st.Ports = process{}, process{}, process{}, nil, nil
}

// leave says that nothing is left to clean up, and lets the next monitor begin.
func (m *monitor) leave() {
	if m.lock == nil {
		return
	}
	_ = m.lock.Truncate(0) // a mark that stays costs the next command a look
	_ = m.lock.Close()
	m.lock = nil
}

// notStarted removes a container with --rm that could not be started: lock is its own.
func (m *monitor) notStarted(lock *os.File) {
	if lock != nil {
		_ = m.c.removeLocked(true) // what it leaves is swept by the next command
		_ = lock.Close()
	}
}

// autoRemove is --rm.
func (m *monitor) autoRemove() {
	if !m.c.r.HostConfig.AutoRemove {
		return
	}
	lock, err := m.c.lock()
	if err != nil {
		return // somebody was faster
	}
	defer lock.Close()
	_ = m.c.removeLocked(true) // what it leaves is swept by the next command
}

// supervise waits for the end of the last run.
func (m *monitor) supervise() {
	var delay time.Duration
	for {
		m.mu.Lock()
		r := m.run
		m.mu.Unlock()
		<-r.done
		again := m.end(r)
		m.told(r, again)
		if !again {
			return
		}
		delay = nextDelay(delay, time.Since(r.started))
		select {
		case <-m.canceled:
			return
		case <-time.After(delay):
		}
		m.mu.Lock()
		m.st.RestartCount++
		m.mu.Unlock()
		if err := m.begin([2]uint{}); err != nil {
			m.mu.Lock()
			m.st.Error, m.st.ExitCode = err.Error(), ExitCode(err)
			m.mu.Unlock()
			return
		}
		select {
		case <-m.canceled: // by who has not seen this run
			m.kill()
		default:
		}
	}
}

// How long to wait before a restart: twice as long each time, and from the beginning after a run that lasted.
// Source: moby restartmanager.
const (
	firstDelay  = 100 * time.Millisecond
	longestWait = time.Minute
	lasted      = 10 * time.Second
)

func nextDelay(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= lasted {
		return firstDelay
	}
	return min(2*last, longestWait)
}

// restartsLocked tells whether the restart policy begins another run.
func (m *monitor) restartsLocked(r *run) bool {
	if m.manual {
		return false
	}
	switch p := m.policy; p.Name {
	case api.RestartPolicyAlways, api.RestartPolicyUnlessStopped:
		return true
	case api.RestartPolicyOnFailure:
		return r.exitCode != 0 && (p.MaximumRetryCount == 0 || m.st.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// end takes away what the run had, and tells whether another one begins.
func (m *monitor) end(r *run) (again bool) {
	var errs []error
	if r.net != nil {
		r.net.Close()
	}
	if r.group != nil {
		r.oomKilled = r.group.OOMKilled()
		errs = append(errs, r.group.Kill(), r.group.Remove())
	}
	if r.stdin != nil {
		_ = r.stdin.Close() // nobody reads any more
	}
	if r.console != nil {
		_ = r.console.Close() // the same
	}
	errs = append(errs, faultEnded.Hit())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.run = nil
	m.st.ExitCode, m.st.OOMKilled, m.st.FinishedAt = r.exitCode, r.oomKilled, time.Now().UTC()
	m.st.Init, m.st.Cgroup, m.st.Ports = process{}, nil, nil
	if err := errors.Join(errs...); err != nil {
		m.st.Error = err.Error()
	}
	if again = m.restartsLocked(r); again {
		m.st.Status = api.StateRestarting
	}
	return again
}

// told writes down that the run has ended. What is final is written by finish.
func (m *monitor) told(r *run, again bool) {
	m.mu.Lock()
	waiters := m.waiters
	m.waiters = nil
	if again {
		_ = writeState(m.c.dir(), m.st) // the next one is written soon
	}
	m.mu.Unlock()
	for _, w := range waiters {
		w <- r.exitCode
	}
	if again {
		close(r.told)
		return
	}
	go m.tellAtEnd(r)
}

// tellAtEnd lets those know of the run's end who are to hear of it when all is at an end.
func (m *monitor) tellAtEnd(r *run) {
	<-m.over
	close(r.told)
}

// finish ends it all: when it returns the container is as if no monitor had been.
func (m *monitor) finish(listener net.Listener) {
	err := errors.Join(m.closeTree(), faultUnmounted.Hit())
	m.mu.Lock()
	remove := m.c.r.HostConfig.AutoRemove && !m.keep
	m.mu.Unlock()
	if !remove {
		_ = m.endTree() // state.json names it as long as it lives
	}
	m.mu.Lock()
	m.st.Status, m.st.ManuallyStopped = api.StateExited, m.manual && !m.goingDown
	if err != nil {
		m.st.Error = err.Error()
	}
	m.forgetLocked()
	if !remove {
		_ = writeState(m.c.dir(), m.st) // where it fails the next command finds a dead monitor, and says exited too
	}
	waiters := m.waiters
	m.waiters = nil
	code := m.st.ExitCode
	m.mu.Unlock()
	_ = faultFinal.Hit() // nothing that is left to do can be left out
	m.log.close()
	_ = os.Remove(m.c.socket()) // before the lock: the next monitor's has the same name
	_ = listener.Close()
	if remove {
		m.autoRemove()
	}
	_ = m.endTree() // it has had nothing of the container since closeTree
	m.leave()
	for _, w := range waiters {
		w <- code
	}
	close(m.over)
}

// accept serves further commands.
func (m *monitor) accept(l *net.UnixListener, sessions *sync.WaitGroup) {
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			return // closed by finish
		}
		select {
		case <-m.over:
			_ = u.Close()
			return
		default:
		}
		sessions.Add(1)
		go func() {
			defer sessions.Done()
			m.handle(&conn{c: u})
		}()
	}
}

// logPath is the container's log.
func (c *Container) logPath() string { return filepath.Join(c.dir(), c.r.ID+"-json.log") }
