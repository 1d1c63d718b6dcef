package idmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// Start starts cmd in a new user namespace with the maps, and in further new namespaces: flags are CLONE_NEW*. When
// the program begins, its ids are mapped and it is user and group 0 with all capabilities of its namespace; it needs
// no help of its own for that, and it is executed once.
//
// Of cmd's SysProcAttr, Pdeathsig and Setsid are respected; its standard files are files or nil, and ExtraFiles
// follow them. Then cmd.Wait and cmd.Process work as usual.
//
// Preconditions: both maps map 0. With Pdeathsig, see [sys.Spawn.Start].
// Errors: say what is missing when the kernel, newuidmap(1) or newgidmap(1) refuses.
// Source: user_namespaces(7), "User and group ID mappings".
func Start(cmd *exec.Cmd, uids, gids []specs.LinuxIDMapping, flags uintptr) error {
	return start(cmd, func(s *sys.Spawn) (pid int, err error) {
		s.Flags = flags
		return spawnMapped(s, uids, gids)
	})
}

// StartProgram is sys.StartProgram as root of a new user namespace, in which Inside tells the identity. Of attr, Cloneflags
// and Setsid are respected.
//
// Errors: those of Start.
func (id *Identity) StartProgram(path string, args, env []string, dir string, files []*os.File, attr *syscall.SysProcAttr) (pid int, err error) {
	if env, err = id.environ(env); err != nil {
		return 0, err
	}
	s := &sys.Spawn{Path: path, Args: args, Env: env, Dir: dir, Flags: attr.Cloneflags, Setsid: attr.Setsid}
	for _, f := range files {
		fd, err := sys.Descriptor(f)
		if err != nil {
			return 0, err
		}
		s.Files = append(s.Files, fd)
	}
	defer goruntime.KeepAlive(files)
	return spawnMapped(s, id.UIDs, id.GIDs)
}

// StartBeside starts cmd, as Start does, in the user namespace that the process pid is in. It belongs to the caller, who has
// all capabilities in it (user_namespaces(7), "Capabilities").
func StartBeside(cmd *exec.Cmd, pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	return start(cmd, func(s *sys.Spawn) (pid int, err error) {
		s.Join = []sys.Join{{Fd: int(ns.Fd()), Types: unix.CLONE_NEWUSER}}
		return spawn(s, nil)
	})
}

// start starts cmd by a spawn of its program.
func start(cmd *exec.Cmd, spawn func(*sys.Spawn) (pid int, err error)) error {
	files, undo, err := stdio(cmd)
	defer undo()
	if err != nil {
		return err
	}
	s := &sys.Spawn{Path: cmd.Path, Args: cmd.Args, Env: cmd.Environ(), Dir: cmd.Dir, Files: files}
	if a := cmd.SysProcAttr; a != nil {
		s.Setsid, s.Pdeathsig = a.Setsid, a.Pdeathsig
	}
	pid, err := spawn(s)
	if err != nil {
		return err
	}
	cmd.Process, err = os.FindProcess(pid) // never fails on Unix; not waited for, so the pid is still its
	return err
}

// spawnMapped starts a process as root of a new user namespace with the maps.
func spawnMapped(s *sys.Spawn, uids, gids []specs.LinuxIDMapping) (pid int, err error) {
	if !mapped(uids, 0) || !mapped(gids, 0) {
		return 0, errors.New("start in a user namespace: user and group 0 must be mapped")
	}
	s.Flags |= unix.CLONE_NEWUSER
	var mapErr error
	pid, err = spawn(s, func(pid int) error {
		mapErr = WriteMaps(pid, uids, gids)
		return mapErr
	})
	switch {
	case mapErr != nil:
		return 0, mapErr
	case isClone(err):
		return 0, thisHost.explain(err)
	}
	return pid, err
}

// spawn starts a process as root of the user namespace that s says.
func spawn(s *sys.Spawn, release func(pid int) error) (pid int, err error) {
	s.Root = true
	pid, pidfd, err := s.Start(release)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", s.Path, err)
	}
	sys.Close(pidfd)
	return pid, nil
}

// isClone reports whether err is of clone(2) itself, not of what came after it.
func isClone(err error) bool {
	var step *sys.SpawnError
	var errno syscall.Errno
	return err != nil && !errors.As(err, &step) && errors.As(err, &errno)
}

func isErrno(err error, e unix.Errno) bool { return errors.Is(err, e) }

// stdio returns the child's descriptors; nil files are /dev/null as in os/exec.
func stdio(cmd *exec.Cmd) (fds []int, undo func(), err error) {
	var null *os.File
	undo = func() {
		if null != nil {
			_ = null.Close() // the child has its own
		}
	}
	for _, f := range []any{cmd.Stdin, cmd.Stdout, cmd.Stderr} {
		switch f := f.(type) {
		case nil:
			if null == nil {
				if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
					return nil, undo, err
				}
			}
			fds = append(fds, int(null.Fd()))
		case *os.File:
			fds = append(fds, int(f.Fd()))
		default:
			return nil, undo, fmt.Errorf("start %s: standard files must be files, not %T", cmd.Path, f)
		}
	}
	for _, f := range cmd.ExtraFiles {
		fds = append(fds, int(f.Fd()))
	}
	return fds, undo, nil
}

// WriteMaps maps the ids of the process's namespace: by hand where we may, which is as root of the outer namespace
// and for the caller's own id, and otherwise through newuidmap(1) and newgidmap(1), side by side.
func WriteMaps(pid int, uids, gids []specs.LinuxIDMapping) error {
	if os.Geteuid() == 0 {
		if err := writeMap(pid, "uid_map", uids); err != nil {
			return err
		}
		return writeMap(pid, "gid_map", gids)
	}
	helped := make(chan error, 1)
	byHand := ownOnly(uids, os.Geteuid()) && ownOnly(gids, os.Getegid())
	if !byHand {
		go func() { helped <- runHelper("newuidmap", pid, uids) }()
		err := runHelper("newgidmap", pid, gids)
		return errors.Join(<-helped, err)
	}
	// Without privilege a group may be mapped only if it can drop no other (user_namespaces(7), CVE-2014-8989).
	if err := writeProc(pid, "setgroups", "deny"); err != nil {
		return err
	}
	if err := writeMap(pid, "uid_map", uids); err != nil {
		return err
	}
	return writeMap(pid, "gid_map", gids)
}

// ownOnly reports whether the map has the caller's own id and nothing else.
func ownOnly(m []specs.LinuxIDMapping, own int) bool {
	return len(m) == 1 && m[0].Size == 1 && int(m[0].HostID) == own
}

// mapText spells a map as uid_map has it.
func mapText(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}

func writeMap(pid int, file string, m []specs.LinuxIDMapping) error {
	text := mapText(m)
	if err := writeProc(pid, file, text); err != nil {
		return fmt.Errorf("map ids %q: %w", strings.ReplaceAll(strings.TrimSpace(text), "\n", ", "), err)
	}
	return nil
}

// writeProc writes a file of the process with one write(2), as the kernel wants it.
func writeProc(pid int, file, text string) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// runHelper has newuidmap or newgidmap write the map.
func runHelper(tool string, pid int, m []specs.LinuxIDMapping) error {
	args := []string{strconv.Itoa(pid)}
	for _, e := range m {
		args = append(args, strconv.FormatUint(uint64(e.ContainerID), 10), strconv.FormatUint(uint64(e.HostID), 10), strconv.FormatUint(uint64(e.Size), 10))
	}
	said, err := runTool(tool, args)
	if err == nil {
		return nil
	}
	if missing := thisHost.missingTools(); len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	why := strings.TrimSpace(said)
	if why == "" {
		why = err.Error()
	}
	return fmt.Errorf("%s %s: %s (do /etc/subuid and /etc/subgid still give these ids?)", tool, strings.Join(args, " "), why)
}

// runTool runs a program to its end and returns what it has said.
func runTool(tool string, args []string) (said string, err error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return "", err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close() // read only
	_ = w.Fd()      // makes it block, as programs expect
	pid, err := sys.StartProgram(path, append([]string{tool}, args...), os.Environ(), "", []*os.File{null, w, w}, nil)
	_ = w.Close()
	if err != nil {
		return "", err
	}
	text, readErr := io.ReadAll(r)
	status, err := sys.WaitProgram(pid)
	switch {
	case err != nil:
	case status.Signaled():
		err = fmt.Errorf("signal: %v", status.Signal())
	case status.ExitStatus() != 0:
		err = fmt.Errorf("exit status %d", status.ExitStatus())
	default:
		err = readErr
	}
	return string(text), err
}
