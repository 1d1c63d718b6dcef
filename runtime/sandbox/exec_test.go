package sandbox

import (
	"errors"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// sleeper is a container that execs can be tried in.
func sleeper(t *testing.T, o Options) *Container {
	t.Helper()
	o.Self, o.Spec = static, aSpec(busybox(t), "sleep", "1000")
	c, err := Create(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Delete)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func tryExec(c *Container, args ...string) error {
	p, err := c.Exec(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}, [3]*os.File{}, nil)
	if err == nil {
		_, err = p.Wait()
	}
	return err
}

// holdEnd has the container's first process wait for one of its pid namespace, in the middle of its end, until release: our
// own child, which nobody takes notice of.
func holdEnd(t *testing.T, c *Container) (release func()) {
	t.Helper()
	ns, err := os.Open("/proc/" + strconv.Itoa(c.Pid()) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	held := exec.Command("sleep", "1000")
	started := make(chan error)
	go func() {
		goruntime.LockOSThread() // never unlocked: nobody else is to have this thread
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID)
		if err == nil {
			err = held.Start()
		}
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = held.Process.Kill() // it may have been killed with the others
		_ = held.Wait()
	}
}

// What the kernel says of a process that is being taken apart is not what an exec says.
func TestExecWhileContainerEnds(t *testing.T) {
	needRoot(t)
	c := sleeper(t, Options{})
	release := holdEnd(t, c)
	defer release()
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first process without its namespaces", func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(c.Pid()) + "/ns/mnt")
		return err != nil
	})
	if err := tryExec(c, "true"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("exec in a container that is about to end: %v", err)
	}
	select {
	case <-c.Done():
		t.Error("the container has ended before it was tried")
	default:
	}
	release()
	<-c.Done()
}

// The container ends in the middle of an exec.
func TestExecAsContainerEnds(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name string
		hook func(o *Options, end func(pid int) error)
	}{
		{"born", func(o *Options, end func(pid int) error) { o.Born = end }},
		{"joins a cgroup that is gone", func(o *Options, end func(pid int) error) {
			o.ExecJoined = func(pid int) error { return errors.Join(end(pid), unix.ESRCH) }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c *Container
			var o Options
			tt.hook(&o, func(pid int) error {
				if c == nil {
					return nil // the container's own first process
				}
				err := c.Signal(unix.SIGKILL)
				waitFor(t, "the end of the exec's process", func() bool {
					f := sys.ProcStat(pid)
					return f == nil || f[0] == "Z"
				})
				return err
			})
			c = sleeper(t, o)
			if err := tryExec(c, "true"); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("%v, want that the container has ended", err)
			}
		})
	}
}

// What fails in a container that lives is told as it is.
func TestExecFailsInLivingContainer(t *testing.T) {
	needRoot(t)
	full := errors.New("the cgroup is full")
	nothing := func(int) error { return nil }
	born, joined := nothing, nothing
	c := sleeper(t, Options{
		Born:       func(pid int) error { return born(pid) },
		ExecJoined: func(pid int) error { return joined(pid) },
	})
	joined = func(int) error { return full }
	if err := tryExec(c, "true"); !errors.Is(err, full) {
		t.Errorf("%v, want the hook's own error", err)
	}
	joined = nothing
	born = func(pid int) error { return unix.Kill(pid, unix.SIGKILL) } // later it may have said that it is ready
	if err := tryExec(c, "true"); err == nil || !strings.Contains(err.Error(), "exec: the process was killed by SIGKILL before") {
		t.Errorf("%v, want that the process was killed", err)
	}
	born = nothing
	if err := tryExec(c, "true"); err != nil {
		t.Error(err)
	}
}
