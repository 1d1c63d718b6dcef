package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/internal/beside"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/cgroup"
	"github.com/laminafs/lamina/runtime/sandbox"
	"github.com/laminafs/lamina/runtime/volume"
)

// streamPatience is how long after the end of a container its output may take to end, as in Docker: somebody outside
// may have got hold of a pipe.
const streamPatience = 2 * time.Second

// begin starts the container's command.
func (m *monitor) begin(console [2]uint) (err error) {
	defer m.forgetOthers()
	in, err := m.lookAround(console)
	if err != nil {
		return err
	}
	r := &run{done: make(chan struct{}), told: make(chan struct{})}
	defer func() {
		if err == nil {
			return
		}
		m.mu.Lock()
		known := m.run == r
		m.run = nil
		m.mu.Unlock()
		r.undo()
		if known { // to who attaches, too
			r.exitCode = ExitCode(err)
			m.out.end()
			close(r.done)
			go m.tellAtEnd(r)
		}
	}()
	m.mu.Lock()
	limits := m.limits
	m.mu.Unlock()
	// First of all: on cgroup v2 we may be moved, and our children are to be where we are.
	if r.group, err = cgroup.New(m.c.r.ID, resources(&limits, in), cgroup.Options{Parent: m.c.r.HostConfig.CgroupParent}); err != nil {
		return err
	}
	if err := errors.Join(m.checkShared(r.group), faultGrouped.Hit()); err != nil {
		return err
	}
	spec, err := m.newSpec(in)
	if err != nil {
		return err
	}
	go m.warm(spec.Process)
	stdio, theirs, err := m.stdio(r, spec)
	defer closeAll(theirs)
	if err != nil {
		return err
	}
	doors, err := r.group.Doors()
	if err != nil {
		return err
	}
	defer func() { doors.Close() }()
	add, born := r.group.Add, (func(pid int) error)(nil)
	if len(doors.Tasks) > 0 && ordinary() && len(m.c.r.UIDMap) > 0 { // its root is another user than we: too late for v1
		doors.Close()
		doors, born, add = &cgroup.Doors{}, add, func(int) error { return nil }
	}
	r.sandbox, err = sandbox.Create(sandbox.Options{
		Spec: spec, Self: m.init(), Stdio: stdio, Init: wantsInit(m.c.r.HostConfig),
		Console: func(master *os.File) { r.console = master },
		Tasks:   doors.Tasks, Cgroup: doors.Dir,
		Joined: func(pid int) error {
			if len(doors.Tasks) == 0 {
				if err := add(pid); err != nil {
					return err
				}
			}
			return errors.Join(m.startNetwork(r, pid), faultJoined.Hit())
		},
		Born:       born,
		ExecJoined: add,
	})
	if err != nil {
		return startError(err)
	}
	closeAll(theirs)
	if err := faultMade.Hit(); err != nil {
		return err
	}
	r.started = time.Now()
	m.copyOutput(r, spec.Process.Terminal)
	if err := m.record(r, spec); err != nil {
		return err
	}
	if err := errors.Join(r.group.Narrow(), faultRecorded.Hit()); err != nil {
		return err
	}
	if err := r.sandbox.Start(); err != nil {
		return startError(err)
	}
	if err := faultExecuted.Hit(); err != nil {
		return err
	}
	go m.wait(r)
	return nil
}

// record makes the run known: on disk before its command is executed.
func (m *monitor) record(r *run, spec *specs.Spec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.run, m.spec, m.lastStats = r, spec, nil
	m.st.Status, m.st.StartedAt = api.StateRunning, r.started.UTC()
	m.st.Init, m.st.Cgroup = identify(r.sandbox.Pid()), r.group.State()
	return writeState(m.c.dir(), m.st)
}

// undo takes back what a start that failed has made.
func (r *run) undo() {
	if r.sandbox != nil {
		r.sandbox.Delete()
	}
	if r.net != nil {
		r.net.Close()
	}
	if r.group != nil {
		_ = r.group.Kill()
		_ = r.group.Remove()
	}
	closeAll([]*os.File{r.stdin, r.console})
	closeAll(r.readers)
	r.copiers.Wait()
}

// init is the program that the container's processes begin with, "" for our own: lamina-init, which takes a third of
// the time to begin. It is opened once, so that an exec finds the same one when another version is installed meanwhile.
func (m *monitor) init() string {
	m.initOnce.Do(func() {
		if path := beside.Path("lamina-init"); path != "" {
			if fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
				m.initPath = "/proc/self/fd/" + strconv.Itoa(fd) // for the life of this process
			}
		}
	})
	return m.initPath
}

// startError is the exit status of a command that cannot be executed.
func startError(err error) error {
	var e *sandbox.ExecError
	if errors.As(err, &e) {
		return &ExitError{Code: e.Code, Err: err}
	}
	return err
}

func wantsInit(h *api.HostConfig) bool { return h.Init != nil && *h.Init }

// lookAround looks up what the specification is made from outside of the container's tree, and writes the files that
// are mounted into it.
func (m *monitor) lookAround(console [2]uint) (in *specInput, err error) {
	r := m.c.r
	in = &specInput{
		Record: r, Rootfs: m.union.target, Dir: m.c.dir(), Host: r.Config.Hostname, Console: console,
		TTYGroup: exists(ttyGroup, r.GIDMap, identity().GIDs), BindSys: bindSys(r), Volumes: map[string]string{},
	}
	if in.Devices, in.DeviceRules, err = hostDevices(r.HostConfig.Devices, r.HostConfig.DeviceCgroupRules); err != nil {
		return nil, err
	}
	if in.Numbers, err = deviceNumbers(&r.HostConfig.Resources); err != nil {
		return nil, err
	}
	return in, m.writeFiles()
}

// newSpec looks up the rest in the tree, for which it waits, and makes the specification.
func (m *monitor) newSpec(in *specInput) (_ *specs.Spec, err error) {
	r := m.c.r
	if err := m.union.wait(); err != nil {
		return nil, err
	}
	if in.User, in.Home, err = resolveUser(m.root, userOf(r), r.HostConfig.GroupAdd, r.UIDMap, r.GIDMap); err != nil {
		return nil, err
	}
	for _, v := range r.Mounts {
		if v.Type == mount.TypeVolume {
			if in.Volumes[v.Name], err = m.volume(v); err != nil {
				return nil, fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
	}
	if err := m.share(in); err != nil {
		return nil, err
	}
	return newSpec(in)
}

// userOf is the user of the command: with --userns=keep-id the caller, where nobody is named.
func userOf(r *record) string {
	if r.Config.User == "" && r.HostConfig.UsernsMode == "keep-id" {
		return fmt.Sprintf("%d:%d", identity().UID, identity().GID)
	}
	return r.Config.User
}

// bindSys tells whether a sysfs of our own cannot be mounted: that takes power over the network namespace. Root of the
// machine has it over all, and a user namespace over those made in it.
func bindSys(r *record) bool {
	return r.HostConfig.NetworkMode == "host" && (ordinary() || len(r.UIDMap) > 0)
}

// stdio makes what the command gets as 0, 1 and 2. theirs is to be closed when it has it.
func (m *monitor) stdio(r *run, spec *specs.Spec) (stdio [3]*os.File, theirs []*os.File, err error) {
	if spec.Process.Terminal {
		return stdio, nil, nil
	}
	if m.c.r.Config.OpenStdin {
		var inside *os.File
		if inside, r.stdin, err = pipe(false); err != nil {
			return stdio, theirs, err
		}
		stdio[0] = inside
		theirs = append(theirs, inside)
	}
	for i := 1; i < 3; i++ {
		var ours *os.File
		if ours, stdio[i], err = pipe(true); err != nil {
			return stdio, theirs, err
		}
		r.readers = append(r.readers, ours)
		theirs = append(theirs, stdio[i])
	}
	// A command that is not root opens /dev/stdout anew, as runc lets it.
	for _, f := range theirs {
		if fd, err := sys.Descriptor(f); err == nil {
			_ = unix.Fchown(fd, int(outside(spec.Process.User.UID, m.c.r.UIDMap)), -1)
		}
	}
	return stdio, theirs, nil
}

// outside is the container's ID as we see it.
func outside(id uint32, m []specs.LinuxIDMapping) uint32 {
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return id - e.ContainerID + e.HostID
		}
	}
	return id
}

// pipe makes a pipe. The end that is ours does not block, which lets Close end a read or write that waits; the other
// one does, as programs expect. oursReads tells which is which; the reading end comes first.
func pipe(oursReads bool) (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	ours := p[1]
	if oursReads {
		ours = p[0]
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// copyOutput passes on what the container writes.
func (m *monitor) copyOutput(r *run, terminal bool) {
	m.out.begin()
	if terminal {
		r.copiers.Go(func() { m.copy(r.console, "stdout", &r.taken[0]) })
		return
	}
	for i, stream := range []string{"stdout", "stderr"} {
		f := r.readers[i]
		r.copiers.Go(func() {
			m.copy(f, stream, &r.taken[i])
			_ = f.Close() // nothing more comes
		})
	}
}

// copy passes on one stream until it ends. A terminal ends with EIO. A log that cannot be written, on a full disk for
// example, does not stop the container.
func (m *monitor) copy(from io.Reader, stream string, taken *atomic.Int64) {
	w := &lines{log: m.log, stream: stream, now: time.Now}
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			taken.Add(int64(n))
			_ = w.write(buf[:n])
			m.out.write(stream, buf[:n])
		}
		if err != nil {
			_ = w.end()
			return
		}
	}
}

// wait waits for the end of the run and of its output.
func (m *monitor) wait(r *run) {
	status, err := r.sandbox.Wait()
	switch {
	case err != nil:
		r.exitCode = 255
	case status.Signaled():
		r.exitCode = 128 + int(status.Signal())
	default:
		r.exitCode = status.ExitStatus()
	}
	m.out.release()
	if m.c.r.sharedPIDs() {
		_ = r.group.Kill() // no kernel does it for us; end says what has failed
	}
	copied := make(chan struct{})
	go func() { r.copiers.Wait(); close(copied) }()
	select {
	case <-copied:
	case <-time.After(streamPatience):
		r.drain()
		closeAll(r.readers)
		if r.console != nil {
			_ = r.console.Close() // somebody outside holds the terminal
		}
		<-copied
	}
	m.out.end()
	close(r.done)
}

// maxPipe is the most that a pipe holds, in bytes, where nobody has raised the limit (pipe(7), pipe-max-size).
const maxPipe = 1 << 20

// drain waits until what the container has written is taken, by a disk that is slow to take the log. What somebody outside goes
// on to write is no part of that.
func (r *run) drain() {
	from := r.readers
	if r.console != nil {
		from = []*os.File{r.console}
	}
	for i, f := range from {
		for begin := r.taken[i].Load(); unread(f) > 0 && r.taken[i].Load()-begin < maxPipe; {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// unread is how many bytes wait in a pipe or terminal: none where it is closed.
func unread(f *os.File) int {
	fd, err := sys.Descriptor(f)
	if err != nil {
		return 0
	}
	n, _ := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD; 0 with an error
	return n
}

// volume is the directory of a volume, made anew where it was removed, and filled from the image when it is new.
func (m *monitor) volume(v mountRecord) (string, error) {
	if err := m.c.s.makeVolume(v); err != nil {
		return "", err
	}
	dir, err := m.c.s.volumeDir(v)
	if err != nil {
		return "", err
	}
	o, err := m.volumeMount(v)
	if err != nil || o != nil && o.Type == volume.Tmpfs {
		return dir, err
	}
	if uid, gid := int(outside(0, m.c.r.UIDMap)), int(outside(0, m.c.r.GIDMap)); o == nil && (uid != 0 || gid != 0) {
		// The container's root is another one than ours: what nobody has written to is his.
		if names, err := os.ReadDir(dir); err == nil && len(names) == 0 {
			if err := os.Chown(dir, uid, gid); err != nil {
				return "", err
			}
		}
	}
	if !v.Populate {
		return dir, nil
	}
	src, err := openIn(m.root, v.Destination, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return dir, nil // the image has nothing there
	}
	if err != nil {
		return "", &os.PathError{Op: "open", Path: v.Destination, Err: err}
	}
	f := os.NewFile(uintptr(src), v.Destination)
	defer f.Close() // read-only
	return dir, m.c.s.populate(context.Background(), v, f)
}

// writeFiles writes hosts, hostname and resolv.conf.
func (m *monitor) writeFiles() error {
	if connected(string(m.c.r.HostConfig.NetworkMode)) != "" {
		return nil // they are the other container's
	}
	hosts, resolv, err := m.c.networkFiles()
	if err != nil {
		return err
	}
	uid, gid := int(outside(0, m.c.r.UIDMap)), int(outside(0, m.c.r.GIDMap))
	for _, f := range []struct{ name, text string }{
		{hostnameFile, m.c.r.Config.Hostname + "\n"}, {hostsFile, hosts}, {resolvFile, resolv},
	} {
		path := filepath.Join(m.c.dir(), f.name)
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the caller's umask
			return err
		}
		if uid != 0 || gid != 0 {
			if err := os.Chown(path, uid, gid); err != nil {
				return err
			}
		}
	}
	return nil
}
