// Package uniontest tests union filesystems: it mounts one over layers on disk, does something there, and looks at
// what the mount shows, what the upper holds and whether the lowers are untouched.
//
// A System is what is mounted: laminafs, or one of the filesystems it is compared with. An Identity is who mounts it
// and works on it; other than root of the machine acts through a Helper process. Layers are the directories. Start
// puts the three together:
//
//	l := uniontest.NewLayers(t, 2, uniontest.As(t, uniontest.UserNS))
//	m := uniontest.Start(t, uniontest.Laminafs, l, "whiteout=overlay")
//	uniontest.Run(t, m, "rm", "-r", m.Dir()+"/etc")
//
// When the test ends, the mount is unmounted, its server must have ended with status 0 and have left its workdir
// clean, nothing may be mounted below the layers, and the lowers must be what they were, to the last time stamp.
package uniontest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// System is a filesystem that can be put under test.
type System string

const (
	Plain         System = "plain"          // a directory into which the lowers are copied, the lowest first
	Overlay       System = "overlay"        // the kernel's, with redirect_dir, index and xino on
	FuseOverlayfs System = "fuse-overlayfs" // github.com/containers/fuse-overlayfs
	Laminafs      System = "laminafs"       // ours: the binary that Binary builds
)

// Limits for what a working system does at once.
const (
	mountLimit   = 60 * time.Second
	unmountLimit = 5 * time.Minute // it waits for a disk that others write to
	busyLimit    = 20 * time.Second
)

// Mount is a System mounted over Layers.
type Mount struct {
	t    testing.TB
	sys  System
	l    *Layers
	opts []string

	up   bool
	pid  int    // of the server; 0 without one
	log  string // file with the server's output
	hurt bool   // the server was killed on purpose
}

// Start mounts sys over l with further -o options, as whom l belongs to. A failure ends the test.
func Start(t testing.TB, sys System, l *Layers, opts ...string) *Mount {
	t.Helper()
	m, err := TryStart(t, sys, l, opts...)
	if err != nil {
		t.Fatalf("mount %s: %v", sys, err)
	}
	return m
}

// TryStart is Start for mounts that may fail.
func TryStart(t testing.TB, sys System, l *Layers, opts ...string) (*Mount, error) {
	t.Helper()
	switch sys {
	case Overlay:
		NeedOverlay(t)
	case FuseOverlayfs:
		NeedFuse(t)
		if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
			t.Skipf("needs fuse-overlayfs: %v", err)
		}
	case Laminafs:
		NeedFuse(t)
		Binary(t)
	}
	m := &Mount{t: t, sys: sys, l: l, opts: opts, log: filepath.Join(l.Dir, "server.log")}
	before := l.hashLowers(t)
	t.Cleanup(func() {
		m.finish()
		for i, h := range l.hashLowers(t) {
			for _, d := range before[i].diff(h, sys != FuseOverlayfs) {
				t.Errorf("%s wrote to lower %d: %s", sys, i+1, d)
			}
		}
	})
	if sys == Plain {
		for i := len(l.Lowers) - 1; i >= 0; i-- {
			c := Command{Argv: []string{"cp", "-a", l.Lowers[i] + "/.", l.Merged}}
			if r, err := l.helper.Exec(c); err != nil || r.Code != 0 {
				return nil, fmt.Errorf("copy lower %d: %v %s", i+1, err, r.Stderr)
			}
		}
		// Copying moves the access times of symbolic links only, which are not compared, and of directories.
		before = l.hashLowers(t)
	}
	return m, m.start()
}

// Dir is the merged tree.
func (m *Mount) Dir() string { return m.l.Merged }

// Layers are what is mounted.
func (m *Mount) Layers() *Layers { return m.l }

// Pid is the server's process id, 0 where there is none: it is unmounted, or the kernel itself.
func (m *Mount) Pid() int { return m.pid }

// System tells what is mounted.
func (m *Mount) System() System { return m.sys }

// Log returns what the server has written.
func (m *Mount) Log() string {
	b, _ := os.ReadFile(m.log)
	return string(b)
}

// escape protects the characters of a path that mean something in an option string.
var escape = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)

// argv is the server's command line.
func (m *Mount) argv() []string {
	prog := "fuse-overlayfs"
	if m.sys == Laminafs {
		prog = Binary(m.t)
	}
	var lowers []string
	for _, dir := range m.l.Lowers {
		lowers = append(lowers, escape.Replace(dir))
	}
	opts := []string{"lowerdir=" + strings.Join(lowers, ":")}
	if m.l.Upper != "" {
		opts = append(opts, "upperdir="+escape.Replace(m.l.Upper), "workdir="+escape.Replace(m.l.Work))
	}
	if name := os.Getenv("LAMINA_TRANSPORT"); name != "" && m.sys == Laminafs {
		opts = append(opts, "transport="+name)
	}
	return []string{prog, "-f", "-o", strings.Join(append(opts, m.opts...), ","), m.l.Merged}
}

func (m *Mount) start() error {
	m.hurt = false
	switch m.sys {
	case Plain:
		m.up = true
		return nil
	case Overlay:
		req := overlayRequest{Layers: *m.l, Opts: m.opts, UserXattr: m.l.helper.identity() == UserNS}
		err := m.l.helper.call(mountLimit, "overlay", req, nil)
		for end := time.Now().Add(mountLimit); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
			// The kernel ends the mount before on the upper in its own time.
			time.Sleep(time.Millisecond)
			err = m.l.helper.call(mountLimit, "overlay", req, nil)
		}
		m.up = err == nil
		return err
	}
	// Created here, so that it is in a directory that the server's user may not write to.
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	log.Close()
	if err := os.Chmod(m.log, 0o666); err != nil {
		return err
	}
	if err := m.l.helper.call(mountLimit, "serve", serveRequest{m.argv(), m.log}, &m.pid); err != nil {
		return err
	}
	err = m.l.helper.call(mountLimit, "waitup", waitUpRequest{m.pid, m.l.Merged}, nil)
	if err != nil {
		_ = m.l.helper.call(mountLimit, "kill", m.pid, nil)
		m.pid = 0
		return fmt.Errorf("%w\n%s", err, m.Log())
	}
	m.up = true
	return nil
}

// Unmount unmounts and waits for the server to end, with status 0. It is an error of the test when something holds
// the mount busy.
func (m *Mount) Unmount() {
	m.t.Helper()
	if !m.up {
		return
	}
	m.up = false
	if m.sys == Plain {
		return
	}
	if err := m.unmountOnce(false); err != nil {
		m.t.Errorf("unmount %s: %v", m.sys, err)
		_ = m.unmountOnce(true)
	}
	m.waitEnd()
	m.checkWork()
}

// Ended waits for the end of a server whose mount somebody else has taken away: with status 0, as after Unmount.
func (m *Mount) Ended() {
	m.t.Helper()
	m.up = false
	m.waitEnd()
}

func (m *Mount) unmountOnce(lazy bool) error {
	req := unmountRequest{Dir: m.l.Merged, Lazy: lazy, Fusermount: m.l.helper.identity() == User}
	err := m.l.helper.call(unmountLimit, "unmount", req, nil)
	// A server may look at its mount itself, once it is up, or somebody walk over all mounts of the machine. What
	// holds it longer is left open.
	for end := time.Now().Add(busyLimit); err != nil && strings.Contains(err.Error(), "busy") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		err = m.l.helper.call(unmountLimit, "unmount", req, nil)
	}
	return err
}

func (m *Mount) waitEnd() {
	m.t.Helper()
	if m.pid == 0 {
		return
	}
	var status string
	err := m.l.helper.call(unmountLimit, "wait", m.pid, &status)
	switch {
	case err != nil:
		m.t.Errorf("%s still runs after the unmount: %v", m.sys, err)
		_ = m.l.helper.call(mountLimit, "kill", m.pid, nil)
	case status != "exit status 0" && !m.hurt:
		m.t.Errorf("%s ended with %s", m.sys, status)
	}
	m.pid = 0
}

// checkWork sees that nothing half done is left in the workdir of ours.
func (m *Mount) checkWork() {
	m.t.Helper()
	if m.sys != Laminafs || m.l.Work == "" || m.hurt {
		return
	}
	left, err := os.ReadDir(filepath.Join(m.l.Work, "work"))
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		m.t.Errorf("look into workdir: %v", err)
	}
	for _, e := range left {
		// What had no name any more when the mount went stays: nothing is written then. The next mount removes it.
		if !strings.HasPrefix(e.Name(), "orphan-") {
			m.t.Errorf("left in workdir: work/%s", e.Name())
		}
	}
}

// Remount unmounts, where it is mounted, and mounts the same again, with other further options where any are given.
func (m *Mount) Remount(opts ...string) {
	m.t.Helper()
	m.Unmount()
	if len(opts) > 0 {
		m.opts = opts
	}
	if err := m.start(); err != nil {
		m.t.Fatalf("mount %s again: %v", m.sys, err)
	}
}

// Dump makes a server that is written in Go write its goroutines to its log, and ends it.
func (m *Mount) Dump() {
	m.t.Helper()
	if m.pid == 0 {
		return
	}
	m.hurt = true
	if err := unix.Kill(m.pid, unix.SIGQUIT); err != nil {
		m.t.Errorf("SIGQUIT to %s: %v", m.sys, err)
	}
	for end := time.Now().Add(5 * time.Second); unix.Kill(m.pid, 0) == nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// Kill ends the server as a crash would (SIGKILL) and unmounts what it leaves.
func (m *Mount) Kill() {
	m.t.Helper()
	if m.pid == 0 || !m.up {
		m.t.Fatalf("kill %s: no server", m.sys)
	}
	m.hurt, m.up = true, false
	if err := m.l.helper.call(mountLimit, "kill", m.pid, nil); err != nil {
		m.t.Errorf("kill %s: %v", m.sys, err)
	}
	if err := m.unmountOnce(true); err != nil && !errors.Is(err, unix.EINVAL) { // gone with the server
		m.t.Errorf("unmount the dead %s: %v", m.sys, err)
	}
	m.waitEnd()
}

// finish ends what is left when the test ends, and shows the server's words where it failed.
func (m *Mount) finish() {
	m.t.Helper()
	m.Unmount()
	if m.pid != 0 {
		_ = m.l.helper.call(mountLimit, "kill", m.pid, nil)
		m.pid = 0
	}
	if out := m.Log(); m.t.Failed() && out != "" {
		m.t.Logf("%s wrote:\n%s", m.sys, out)
	}
}

// Run runs a command as whom the mount belongs to, where it can see it, and returns its output. A status other than
// 0 ends the test.
func Run(t testing.TB, m *Mount, argv ...string) string {
	t.Helper()
	r, err := m.l.helper.Exec(Command{Argv: argv})
	if err != nil {
		t.Fatalf("run %q: %v", argv, err)
	}
	if r.Code != 0 {
		t.Fatalf("run %q: status %d\n%s%s", argv, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

var overlayOnce = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "uniontest-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := Layers{Lowers: []string{dir + "/l"}, Upper: dir + "/u", Work: dir + "/w", Merged: dir + "/m"}
	for _, d := range []string{l.Lowers[0], l.Upper, l.Work, l.Merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if _, err := mountOverlay(overlayRequest{Layers: l}); err != nil {
		return err
	}
	return unix.Unmount(l.Merged, unix.MNT_DETACH)
})

// NeedOverlay skips the test where the kernel's overlay cannot be mounted with all it has.
func NeedOverlay(t testing.TB) {
	t.Helper()
	NeedRoot(t)
	if err := overlayOnce(); err != nil {
		t.Skipf("needs kernel overlayfs with redirect_dir, index and xino: %v", err)
	}
}

type overlayRequest struct {
	Layers    Layers
	Opts      []string
	UserXattr bool // marks in user.overlay.*, all that a user namespace may write
}

// mountOverlay mounts the kernel's overlay by fsopen(2), whose parameters are not limited to a page.
func mountOverlay(r overlayRequest) (none, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	params := [][2]string{{"source", "overlay"}}
	for _, dir := range r.Layers.Lowers {
		params = append(params, [2]string{"lowerdir+", dir})
	}
	if r.Layers.Upper != "" {
		params = append(params, [2]string{"upperdir", r.Layers.Upper}, [2]string{"workdir", r.Layers.Work},
			[2]string{"index", "on"})
	}
	if r.UserXattr {
		params = append(params, [2]string{"userxattr", ""}, [2]string{"xino", "on"})
	} else {
		params = append(params, [2]string{"redirect_dir", "on"}, [2]string{"xino", "on"})
	}
	attr := 0
	for _, o := range r.Opts {
		key, value, _ := strings.Cut(o, "=")
		if key == "ro" {
			attr |= unix.MOUNT_ATTR_RDONLY
		}
		params = append(params, [2]string{key, value})
	}
	for _, p := range params {
		if p[1] == "" {
			err = unix.FsconfigSetFlag(fs, p[0])
		} else {
			err = unix.FsconfigSetString(fs, p[0], p[1])
		}
		if err != nil {
			return false, fmt.Errorf("overlay option %s=%s: %w: %s", p[0], p[1], err, fsLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return false, fmt.Errorf("create overlay: %w: %s", err, fsLog(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return false, fmt.Errorf("fsmount overlay: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, r.Layers.Merged, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return false, fmt.Errorf("move_mount overlay to %s: %w", r.Layers.Merged, err)
	}
	return false, nil
}

// fsLog is what the kernel says about the configuration that fails.
func fsLog(fs int) string {
	buf := make([]byte, 4096)
	n, err := unix.Read(fs, buf)
	if err != nil || n <= 0 {
		return "no reason given"
	}
	return strings.TrimSpace(string(buf[:n]))
}

type unmountRequest struct {
	Dir        string
	Lazy       bool
	Fusermount bool // by the set-id program
}

func unmount(r unmountRequest) (none, error) {
	if r.Fusermount {
		argv := []string{"-u", "--", r.Dir}
		if r.Lazy {
			argv = []string{"-u", "-z", "--", r.Dir}
		}
		if out, err := exec.Command("fusermount3", argv...).CombinedOutput(); err != nil {
			return false, fmt.Errorf("fusermount3: %w: %s", err, out)
		}
		return false, nil
	}
	flags := 0
	if r.Lazy {
		flags = unix.MNT_DETACH
	}
	return false, unix.Unmount(r.Dir, flags)
}

// server is a child that serves a mount.
type server struct {
	cmd  *exec.Cmd
	dir  string        // where it is mounted
	done chan struct{} // closed once it has ended and status is set

	status string
}

// servers are the children of this process, by pid, until somebody has waited for their end.
var servers sync.Map

type serveRequest struct {
	Argv []string
	Log  string
}

func serve(r serveRequest) (int, error) {
	log, err := os.OpenFile(r.Log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	s := &server{cmd: exec.Command(r.Argv[0], r.Argv[1:]...), dir: r.Argv[len(r.Argv)-1], done: make(chan struct{})}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = "/", log, log
	// With the race detector a program would wait a second before it ends.
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	servers.Store(s.cmd.Process.Pid, s)
	go func() {
		_ = s.cmd.Wait() // the state says it
		s.status = s.cmd.ProcessState.String()
		close(s.done)
	}()
	return s.cmd.Process.Pid, nil
}

func findServer(pid int) (*server, error) {
	if s, ok := servers.Load(pid); ok {
		return s.(*server), nil
	}
	return nil, fmt.Errorf("no server has pid %d: %w", pid, syscall.ESRCH)
}

type waitUpRequest struct {
	Pid int
	Dir string
}

// waitUp returns once dir is the root of a mount that answers. A server has no other way to say so that is common to
// all of them.
func waitUp(r waitUpRequest) (none, error) {
	s, err := findServer(r.Pid)
	if err != nil {
		return false, err
	}
	for deadline := time.Now().Add(mountLimit); time.Now().Before(deadline); {
		select {
		case <-s.done:
			return false, fmt.Errorf("server ended with %s", s.status)
		case <-time.After(time.Millisecond):
		}
		var in, parent unix.Stat_t
		if unix.Stat(filepath.Dir(r.Dir), &parent) == nil && unix.Stat(r.Dir, &in) == nil && in.Dev != parent.Dev {
			return false, nil
		}
	}
	return false, fmt.Errorf("not mounted after %v", mountLimit)
}

func waitServer(pid int) (string, error) {
	s, err := findServer(pid)
	if err != nil {
		return "", err
	}
	select {
	case <-s.done:
		servers.Delete(pid)
		return s.status, nil
	case <-time.After(unmountLimit / 2):
		return "", errors.New("timeout")
	}
}

func killServer(pid int) (none, error) {
	s, err := findServer(pid)
	if err != nil {
		return false, err
	}
	_ = s.cmd.Process.Kill() // one that has ended already is as good
	<-s.done
	return false, nil
}
