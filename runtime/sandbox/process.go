package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/seccomp"
)

// A processConfig is a process of the container, the first or one of Exec.
type processConfig struct {
	Args, Env []string
	Cwd       string
	UID, GID  uint32
	Groups    []uint32
	Umask     int
	Caps      capSets
	NoNewPriv bool
	Rlimits   []rlimit
	Terminal  bool
	Rows      uint16
	Cols      uint16
	Reaper    bool // under a PID 1 of ours
	MakeCwd   bool // the first process's working directory is made, as Docker does; another's must be there

	Filter      []byte // struct sock_filter, one after the other; empty for none
	FilterFlags uint
}

type rlimit struct {
	Name     string
	Resource int
	Cur, Max uint64
}

func newProcessConfig(p *specs.Process, profile *specs.LinuxSeccomp, reaper bool) (processConfig, error) {
	c := processConfig{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd, UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids,
		Umask: 0o022, NoNewPriv: p.NoNewPrivileges, Terminal: p.Terminal, Reaper: reaper,
	}
	if p.User.Umask != nil {
		c.Umask = int(*p.User.Umask)
	}
	if p.ConsoleSize != nil {
		c.Rows, c.Cols = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	var err error
	if c.Caps, err = parseCapabilities(p.Capabilities); err != nil {
		return c, err
	}
	c.Caps = c.Caps.known()
	if c.Rlimits, err = parseRlimits(p.Rlimits); err != nil {
		return c, err
	}
	if profile == nil {
		return c, nil
	}
	prog, flags, err := seccomp.Compile(profile)
	if err != nil {
		return c, err
	}
	return c, c.setFilter(prog, flags)
}

func (c *processConfig) setFilter(prog []unix.SockFilter, flags uint) error {
	var b bytes.Buffer
	err := binary.Write(&b, binary.NativeEndian, prog)
	c.Filter, c.FilterFlags = b.Bytes(), flags
	return err
}

var rlimitNumbers = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK": unix.RLIMIT_STACK,
}

func parseRlimits(limits []specs.POSIXRlimit) ([]rlimit, error) {
	var parsed []rlimit
	for _, l := range limits {
		n, ok := rlimitNumbers[l.Type]
		if !ok {
			return nil, fmt.Errorf("spec: unknown limit %q", l.Type)
		}
		if l.Soft > l.Hard {
			return nil, fmt.Errorf("spec: %s: the soft limit %d is above the hard one, %d", l.Type, l.Soft, l.Hard)
		}
		parsed = append(parsed, rlimit{l.Type, n, l.Soft, l.Hard})
	}
	return parsed, nil
}

// raiseLimits gives the process, from outside, the hard limits that are above ours: only who has CAP_SYS_RESOURCE on
// the machine may. The process lowers its limits itself, when it needs no more.
func (c *processConfig) raiseLimits(pid int) error {
	for _, l := range c.Rlimits {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		if l.Max <= now.Max {
			continue
		}
		raised := unix.Rlimit{Cur: now.Cur, Max: l.Max}
		if err := unix.Prlimit(pid, l.Resource, &raised, nil); err != nil {
			return fmt.Errorf("%s: raise the hard limit from %d to %d: %w", l.Name, now.Max, l.Max, err)
		}
	}
	return nil
}

// become turns the process into the command. It returns only with an error.
//
// The order is given by what each step needs: the bounding set CAP_SETPCAP, the ids CAP_SETUID; the filter either
// no_new_privs, and then it comes last, or CAP_SYS_ADMIN, and then only capset(2), prctl(2) and execve(2) follow it.
func (c *processConfig) become(parent conn, r root, initNS bool) error {
	unix.Umask(c.Umask)
	if err := c.Caps.check(); err != nil {
		return staged("capabilities", err)
	}
	c.ownStdio()
	if err := dropBounding(c.Caps.Bounding); err != nil {
		return staged("capabilities", err)
	}
	var cwd int
	var err error
	if c.MakeCwd {
		cwd, err = r.ensure(c.Cwd, true)
	} else {
		cwd, err = r.open(c.Cwd, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		return staged(StageCwd, fmt.Errorf("%s: %w", c.Cwd, err))
	}
	cwdErr := unix.Fchdir(cwd) // while we still may go everywhere
	if err := c.setUser(initNS); err != nil {
		return staged("user", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return staged("parent death signal", err)
	}
	if parent.hungUp() {
		return io.EOF
	}
	if cwdErr != nil { // a filesystem may keep root out and let the user in
		cwdErr = unix.Fchdir(cwd)
	}
	if cwdErr == nil {
		cwdErr = checkCwd()
	}
	if cwdErr != nil {
		return staged(StageCwd, fmt.Errorf("%s: %w", c.Cwd, cwdErr))
	}
	file, err := lookPath(c.Args[0], c.Env)
	if err != nil {
		return staged("exec", execError(c.Args[0], err))
	}
	for _, l := range c.Rlimits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Cur, Max: l.Max}, nil); err != nil {
			return staged("limits", fmt.Errorf("%s: %w", l.Name, err))
		}
	}
	// What our caller blocks comes all the way to here, and what he ignores where the Go runtime has not taken it.
	if err := sys.ResetIgnored(); err != nil {
		return staged("signal actions", err)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return staged("signal mask", err)
	}
	if err := c.restrict(); err != nil {
		return err
	}
	return staged("exec", execError(c.Args[0], c.exec(file)))
}

// exec executes the command, or our reaper that will.
func (c *processConfig) exec(file string) error {
	if c.Reaper {
		return sys.Execveat(fdSelf, append([]string{RoleReaper, file}, c.Args...), c.Env)
	}
	return syscall.Exec(file, c.Args, c.Env)
}

// restrict takes away what the command shall not have.
func (c *processConfig) restrict() error {
	if c.NoNewPriv {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return staged("no_new_privs", err)
		}
		if err := c.Caps.apply(); err != nil {
			return staged("capabilities", err)
		}
		return staged("seccomp", c.filter())
	}
	if len(c.Filter) > 0 {
		// The change of ids has left CAP_SYS_ADMIN permitted and not effective.
		have, err := ownPermitted()
		if err != nil {
			return staged("capabilities", err)
		}
		if err := capset(have, have, c.Caps.Inheritable); err != nil {
			return staged("capabilities", fmt.Errorf("capset: %w", err))
		}
		if err := c.filter(); err != nil {
			return staged("seccomp", err)
		}
	}
	return staged("capabilities", c.Caps.apply())
}

func (c *processConfig) filter() error {
	if len(c.Filter) == 0 {
		return nil
	}
	prog := make([]unix.SockFilter, len(c.Filter)/8)
	if _, err := binary.Decode(c.Filter, binary.NativeEndian, prog); err != nil {
		return err
	}
	return sys.SetSeccompFilter(c.FilterFlags, prog)
}

// setUser sets the ids and groups of this thread, and keeps the permitted capabilities: what of them stays is
// decided after it (capabilities(7), "Effect of user ID changes").
func (c *processConfig) setUser(initNS bool) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := sys.SetThreadGroups(c.Groups)
	if err == unix.EPERM && !initNS {
		err = nil // a namespace with a single id: there are no groups to be in, and none that can be left
	}
	if err != nil {
		return fmt.Errorf("groups %v: %w", c.Groups, err)
	}
	if err := sys.SetThreadIDs(c.UID, c.GID); err != nil {
		if err == unix.EINVAL {
			return fmt.Errorf("user %d, group %d: %w (these ids are not mapped into the container; see /etc/subuid and /etc/subgid)", c.UID, c.GID, err)
		}
		return fmt.Errorf("user %d, group %d: %w", c.UID, c.GID, err)
	}
	return unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
}

// ownStdio gives pipes and sockets to the command's user, so that it may open /dev/stdout. Files and terminals are
// somebody else's and stay so.
func (c *processConfig) ownStdio() {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Uid == c.UID {
			continue
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFSOCK {
			_ = unix.Fchown(fd, int(c.UID), -1) // a pipe of somebody else's cannot be given away
		}
	}
}

// checkCwd makes sure that the working directory is in the container's root, not one of outside that a descriptor
// has led to (CVE-2024-21626).
func checkCwd() error {
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil {
		return fmt.Errorf("getcwd: %w", err)
	}
	if n < 2 || buf[0] != '/' {
		return errors.New("it is outside of the container")
	}
	return nil
}

// SearchPath are the paths at which execvp(3) looks for a command without a slash, in the PATH of env, of which the last one counts.
func SearchPath(name string, env []string) []string {
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	files := strings.Split(path, ":")
	for i, dir := range files {
		if dir == "" {
			dir = "."
		}
		files[i] = dir + "/" + name
	}
	return files
}

// lookPath finds the command as execvp(3) does, in the PATH of env.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	if name == "" {
		return "", errNotFound
	}
	found := errNotFound
	for _, file := range SearchPath(name, env) {
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if err == unix.EACCES {
			found = err
		}
	}
	return "", found
}

// executable reports why the file cannot be executed.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// hungUp reports whether the parent has ended.
func (c conn) hungUp() bool {
	fds := []unix.PollFd{{Fd: fdSocket}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
