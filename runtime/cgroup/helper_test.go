package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the program that lives in a group: what it does is named by this variable.
const helperEnv = "LAMINA_CGROUP_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		// Nothing is done before the process is in its group.
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		helpers[what]()
		os.Exit(0)
	}
	code := m.Run()
	if m, err := look(); err == nil && os.Getenv(insideEnv) == "" {
		for _, h := range m.hierarchies {
			_ = os.Remove(filepath.Join(h.mount, folder)) // rmdir(2): refused while somebody else's group is there
		}
	}
	os.Exit(code)
}

var helpers = map[string]func(){
	"allocate": allocate,
	"spin":     spin,
	"count":    count,
	"fork":     fork,
	"sleep":    func() { <-time.After(5 * time.Minute) },
	"monitor":  monitor,
}

// allocate touches 256 MiB.
func allocate() {
	const size = 256 << 20
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for i := 0; i < size; i += os.Getpagesize() {
		b[i] = 1
	}
}

// spin burns CPU until it is killed, or for five minutes.
func spin() {
	end := time.Now().Add(5 * time.Minute)
	for time.Now().Before(end) {
	}
}

// count counts up in a file that others read, until it is killed.
func count() {
	f, err := os.OpenFile(os.Getenv("COUNTER"), os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	end := time.Now().Add(5 * time.Minute)
	for n := uint64(0); time.Now().Before(end); n++ {
		binary.NativeEndian.PutUint64(b, n)
	}
}

// fork tries to start 300 processes that stay. The shell that is refused ends; process 1 holds the others.
func fork() {
	const bomb = `(i=0; while [ $i -lt 300 ]; do sleep 300 & i=$((i+1)); done); exec sleep 300`
	fmt.Fprintln(os.Stderr, unix.Exec("/bin/sh", []string{"sh", "-c", bomb}, os.Environ()))
	os.Exit(2)
}

// monitor makes a group with a process in it, as the one who looks after a container does, and waits to be killed.
func monitor() {
	if err := monitored(os.Getenv("MONITORED"), os.Getenv("SAY")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func monitored(id, say string) error {
	g, err := New(id, nil, options())
	if err != nil {
		return err
	}
	child := exec.Command("/bin/sleep", "300")
	if err := child.Start(); err != nil {
		return err
	}
	if err := g.Add(child.Process.Pid); err != nil {
		return err
	}
	if err := os.WriteFile(say, fmt.Appendf(nil, "running %d\n", child.Process.Pid), 0o600); err != nil {
		return err
	}
	<-time.After(5 * time.Minute)
	return nil
}

// helper is a running helper.
type helper struct {
	*exec.Cmd
	stdin  io.WriteCloser
	stdout bytes.Buffer
	t      *testing.T
	ended  bool
}

// start starts a helper, which waits for run.
func start(t *testing.T, what string, attr *syscall.SysProcAttr, env ...string) *helper {
	t.Helper()
	h := &helper{Cmd: exec.Command("/proc/self/exe"), t: t}
	h.Env = append(os.Environ(), append(env, helperEnv+"="+what, "GOMAXPROCS=1")...)
	h.Stderr = &h.stdout
	h.Stdout = &h.stdout
	h.SysProcAttr = attr
	var err error
	if h.stdin, err = h.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.Process.Kill() // may have ended
		h.wait()
	})
	return h
}

func (h *helper) run() { _ = h.stdin.Close() } // the helper's end of the pipe shows it

func (h *helper) wait() *os.ProcessState {
	if !h.ended {
		h.ended = true
		var exit *exec.ExitError
		if err := h.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
			h.t.Errorf("helper: %v", err)
		}
	}
	return h.ProcessState
}

// until polls for a condition: a minute is how long a busy machine, or one that is emulated, may take.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}

// noSystemdEnv makes groups without asking systemd.
const noSystemdEnv = "LAMINA_CGROUP_NO_SYSTEMD"

func options() Options { return Options{NoSystemd: os.Getenv(noSystemdEnv) != ""} }

// newGroup makes a group that the test's end removes with all that is in it.
func newGroup(t *testing.T, r *specsResources) *Group {
	t.Helper()
	g, err := New(testID(t), r, options())
	if err != nil {
		t.Fatal(err)
	}
	if g.Path() == "" {
		t.Fatalf("no cgroup: %s", g.Why())
	}
	t.Cleanup(func() {
		if err := g.Kill(); err != nil {
			t.Error(err)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		for c, p := range g.Paths() {
			if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is left behind (%v)", c, p, err)
			}
		}
	})
	return g
}

func testID(t *testing.T) string {
	name := strings.NewReplacer("/", "-", "#", "-").Replace(t.Name())
	return fmt.Sprintf("test-%d-%s", os.Getpid(), filepath.Base(name))
}

func itoa(n int) string { return fmt.Sprint(n) }
