package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys/nofile"
)

// A Spawn is a process to be started in namespaces that package os/exec cannot bring it into: it waits between
// clone(2) and execve(2) until somebody else has mapped its ids, and it can join user namespaces, which only a
// process with a single thread can do (setns(2)).
type Spawn struct {
	Exe   int    // descriptor of the executable when Path is empty
	Path  string // the executable
	Args  []string
	Env   []string
	Dir   string // working directory; empty: the parent's
	Files []int  // become descriptors 0, 1, 2, ...; all others are close-on-exec

	Flags uintptr // CLONE_NEW*, made by clone(2) itself

	// Cgroup is a directory of cgroup2 that the child is born in, which costs nothing; 0 for none. Where clone3(2) is refused it
	// is not: see InCgroup.
	Cgroup   int
	InCgroup bool // set by Start

	Join []Join // joined by the child, in this order, once it is released
	Root bool   // the child becomes user and group 0 of its user namespace, without other groups

	// Undumpable lets nobody trace the process, or look into it, from its first instruction on: the real user id is
	// 65534, or 1, while it executes, and the kernel then makes the new program undumpable (fs/exec.c, begin_new_exec). The
	// program sets its id, and Pdeathsig, which such an execution clears, anew. Where the namespace has no second id,
	// or no_new_privs is set, it is left out.
	Undumpable bool

	Setsid    bool
	Pdeathsig syscall.Signal // sent when the thread ends that called Start; 0 for none
}

// otherID is an id that is nobody's (kernel.overflowuid).
const otherID = 65534

// A Join is one setns(2): a namespace's descriptor, or a process's (pidfd) with the types of all that are meant.
type Join struct {
	Fd    int
	Types int
}

// Steps of the child, as a failure names them.
const (
	stepWait = iota
	stepJoin
	stepGid
	stepUid
	stepSetsid
	stepPdeathsig
	stepChdir
	stepDup
	stepExec
)

var stepNames = [...]string{"wait", "setns", "setresgid", "setresuid", "setsid", "prctl", "chdir", "dup3", "execve"}

// A SpawnError says in which step the child failed.
type SpawnError struct {
	Step string // the system call
	Err  syscall.Errno
}

func (e *SpawnError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *SpawnError) Unwrap() error { return e.Err }

// child is what the child reads after clone(2). It may neither allocate nor call anything that grows the stack.
type child struct {
	path      *byte
	exe       uintptr
	argv, env []*byte
	dir       *byte
	files     []uintptr
	join      []Join
	root      bool
	setsid    bool
	otherID   bool
	pdeathsig uintptr
	flags     uintptr
	clone3    cloneArgs
	into      bool // clone3 is to be called
	nofile    nofile.Limit
	setNofile bool
	wait      [2]uintptr // the pipe that the parent's word comes through: read end, write end
	status    uintptr    // where a failure goes
	pidfd     int32
	word      [1]byte
	failure   [8]byte
}

// cloneArgs is struct clone_args of linux/sched.h.
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// Start starts the process. release is called while the child waits, in its new namespaces, before it joins,
// becomes or executes anything; an error of it kills the child and is returned. nil releases at once.
//
// Preconditions: with Pdeathsig, the calling goroutine is locked to a thread that lives as long as the child should.
// Errors: *SpawnError for a step of the child.
func (s *Spawn) Start(release func(pid int) error) (pid, pidfd int, err error) {
	c, parent, err := s.prepare()
	defer parent.close()
	if err != nil {
		return 0, -1, err
	}
	syscall.ForkLock.Lock()
	c.into = s.Cgroup > 0
	p, e := fork(c)
	s.InCgroup = c.into && e == 0
	if c.into && e != 0 {
		c.into = false // an old kernel, a filter that does not know the call, a cgroup that may not be entered
		p, e = fork(c)
	}
	syscall.ForkLock.Unlock()
	goruntime.KeepAlive(s)
	if e != 0 {
		return 0, -1, fmt.Errorf("clone: %w", e)
	}
	pid, pidfd = int(p), int(c.pidfd)
	undo := func(err error) (int, int, error) {
		_ = unix.Kill(pid, unix.SIGKILL) // our own child, not waited for yet: the pid is its
		_ = retry(func() error { _, err := unix.Wait4(pid, nil, 0, nil); return err })
		Close(pidfd)
		return 0, -1, err
	}
	parent.closeChildEnds()
	if release != nil {
		if err := release(pid); err != nil {
			return undo(err)
		}
	}
	if _, err := parent.word.Write([]byte{1}); err != nil && !errors.Is(err, unix.EPIPE) {
		return undo(err)
	}
	// The status pipe is close-on-exec: its end is success, if only the child still lives.
	var failure [8]byte
	switch n, err := io.ReadFull(parent.status, failure[:]); {
	case n == len(failure):
		step, errno := binary.NativeEndian.Uint32(failure[:4]), binary.NativeEndian.Uint32(failure[4:])
		return undo(&SpawnError{Step: stepNames[step], Err: syscall.Errno(errno)})
	case err != io.EOF:
		return undo(err)
	}
	return pid, pidfd, nil
}

// pipes has the parent's ends, and those that are the child's and closed once it has them.
type pipes struct {
	word, status *os.File
	theirs       []int
}

func (p *pipes) closeChildEnds() {
	for _, fd := range p.theirs {
		Close(fd)
	}
	p.theirs = nil
}

func (p *pipes) close() {
	p.closeChildEnds()
	_ = p.word.Close()   // nil is fine
	_ = p.status.Close() // read only
}

// prepare puts everything in the form that the child can use. All descriptors are moved above those that the child
// will have, so that no dup3(2) overwrites another's source.
func (s *Spawn) prepare() (*child, *pipes, error) {
	c, p := &child{pidfd: -1}, &pipes{}
	// above gives a copy of fd that is the child's.
	above := func(fd int) (uintptr, error) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, max(3, len(s.Files)))
		if err != nil {
			return 0, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		p.theirs = append(p.theirs, dup)
		return uintptr(dup), nil
	}
	var err error
	if s.Path != "" {
		c.path, err = syscall.BytePtrFromString(s.Path)
	} else {
		c.exe, err = above(s.Exe)
	}
	if err != nil {
		return nil, p, err
	}
	if c.argv, err = syscall.SlicePtrFromStrings(s.Args); err != nil {
		return nil, p, err
	}
	if c.env, err = syscall.SlicePtrFromStrings(s.Env); err != nil {
		return nil, p, err
	}
	if s.Dir != "" {
		if c.dir, err = syscall.BytePtrFromString(s.Dir); err != nil {
			return nil, p, err
		}
	}
	for _, fd := range s.Files {
		dup, err := above(fd)
		if err != nil {
			return nil, p, err
		}
		c.files = append(c.files, dup)
	}
	c.join, c.root, c.setsid, c.pdeathsig, c.flags = s.Join, s.Root, s.Setsid, uintptr(s.Pdeathsig), s.Flags
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && nnp == 0 {
		c.otherID = s.Undumpable // under no_new_privs, the execution would give up the effective id for the real one
	}
	c.nofile, c.setNofile = nofile.ForChildren()
	c.clone3 = cloneArgs{
		flags: uint64(c.flags) | unix.CLONE_PIDFD | unix.CLONE_INTO_CGROUP, pidfd: uint64(uintptr(unsafe.Pointer(&c.pidfd))),
		exitSignal: uint64(syscall.SIGCHLD), cgroup: uint64(s.Cgroup),
	}
	return c, p, p.open(c, above)
}

func (p *pipes) open(c *child, above func(int) (uintptr, error)) error {
	var word, status [2]int
	if err := unix.Pipe2(word[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	p.word = os.NewFile(uintptr(word[1]), "release")
	p.theirs = append(p.theirs, word[0])
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	p.status = os.NewFile(uintptr(status[0]), "status")
	p.theirs = append(p.theirs, status[1])
	var err error
	if c.wait[0], err = above(word[0]); err != nil {
		return err
	}
	// The child's copy of our own end is closed first thing: else it would not see us die.
	c.wait[1] = uintptr(word[1])
	c.status, err = above(status[1])
	return err
}

// These are package syscall's hooks around a fork: they keep signals away and the stack as it is. The runtime
// keeps them for users like this one (runtime/proc.go).
//
//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// fork is clone(2) and, in the child, all that comes until execve(2). The child has its own copy of the memory, so
// that a change of its credentials does not make the parent undumpable, and a single thread.
//
// No allocation, no function but assembly from here on: the locks of other threads stay locked for ever.
//
//go:norace
//go:noinline
func fork(c *child) (pid uintptr, e syscall.Errno) {
	var (
		i    int
		n    uintptr
		step uint32
	)
	beforeFork()
	if c.into {
		pid, _, e = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.clone3)), unsafe.Sizeof(c.clone3), 0)
	} else if goruntime.GOARCH == "s390x" {
		pid, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, 0, c.flags|unix.CLONE_PIDFD|uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&c.pidfd)), 0, 0, 0)
	} else {
		pid, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, c.flags|unix.CLONE_PIDFD|uintptr(syscall.SIGCHLD), 0, uintptr(unsafe.Pointer(&c.pidfd)), 0, 0, 0)
	}
	if e != 0 || pid != 0 {
		afterFork()
		return pid, e
	}
	afterForkInChild()

	// Until the parent says so. Its end of the pipe is closed when it dies.
	step = stepWait
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, c.wait[1], 0, 0)
	for {
		n, _, e = syscall.RawSyscall(syscall.SYS_READ, c.wait[0], uintptr(unsafe.Pointer(&c.word[0])), 1)
		if e != syscall.EINTR {
			break
		}
	}
	if e != 0 || n != 1 {
		goto fail
	}
	step = stepJoin
	for i = 0; i < len(c.join); i++ {
		if _, _, e = syscall.RawSyscall(unix.SYS_SETNS, uintptr(c.join[i].Fd), uintptr(c.join[i].Types), 0); e != 0 {
			goto fail
		}
	}
	if c.root {
		// Refused where the map was made without privilege: then there is nothing that could be dropped.
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0)
		step = stepGid
		if _, _, e = syscall.RawSyscall(syscall.SYS_SETRESGID, 0, 0, 0); e != 0 {
			goto fail
		}
		step = stepUid
		if _, _, e = syscall.RawSyscall(syscall.SYS_SETRESUID, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	step = stepSetsid
	if c.setsid {
		if _, _, e = syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	// After the ids: a change of them clears it (prctl(2)).
	step = stepPdeathsig
	if c.pdeathsig != 0 {
		if _, _, e = syscall.RawSyscall6(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, c.pdeathsig, 0, 0, 0, 0); e != 0 {
			goto fail
		}
	}
	step = stepChdir
	if c.dir != nil {
		if _, _, e = syscall.RawSyscall(syscall.SYS_CHDIR, uintptr(unsafe.Pointer(c.dir)), 0, 0); e != 0 {
			goto fail
		}
	}
	step = stepDup
	for i = 0; i < len(c.files); i++ {
		if _, _, e = syscall.RawSyscall(syscall.SYS_DUP3, c.files[i], uintptr(i), 0); e != 0 {
			goto fail
		}
	}
	if c.setNofile {
		// Lowering a soft limit cannot fail.
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&c.nofile)), 0, 0, 0)
	}
	if c.otherID {
		if _, _, e = syscall.RawSyscall(syscall.SYS_SETRESUID, otherID, ^uintptr(0), ^uintptr(0)); e != 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETRESUID, 1, ^uintptr(0), ^uintptr(0)) // a map that is smaller
		}
	}
	step = stepExec
	if c.path != nil {
		_, _, e = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])))
	} else {
		_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, c.exe, uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&c.argv[0])), uintptr(unsafe.Pointer(&c.env[0])), unix.AT_EMPTY_PATH, 0)
	}

fail:
	*(*uint32)(unsafe.Pointer(&c.failure[0])) = step
	*(*uint32)(unsafe.Pointer(&c.failure[4])) = uint32(e)
	_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, c.status, uintptr(unsafe.Pointer(&c.failure[0])), 8)
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 253, 0, 0)
	}
}

var empty [1]byte
