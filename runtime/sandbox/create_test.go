package sandbox

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestTrue(t *testing.T) {
	res := run(t, aSpec(busybox(t), "true"))
	if !res.status.Exited() || res.status.ExitStatus() != 0 || res.err != "" {
		t.Errorf("true: %v", res)
	}
}

func TestNested(t *testing.T) {
	needRoot(t)
	s := nested(t, aSpec(busybox(t)))
	out := sh(t, s, `id -u; cat /proc/self/uid_map; hostname; ls -ln /dev/null; echo hello >/dev/null && echo wrote`)
	if !strings.HasPrefix(out, "0\n") || !strings.Contains(out, "\nbox\n") || !strings.Contains(out, "wrote") {
		t.Errorf("in a user namespace of its own: %s", out)
	}
}

// Root of a nested namespace is not the owner of our executable, which may be nobody else's to execute.
func TestNestedWithPrivateExecutable(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	b, err := os.ReadFile(roleBinary())
	if err != nil {
		t.Fatal(err)
	}
	private := root + "/../lamina"
	write(t, private, string(b), 0o700)
	s := nested(t, aSpec(root, "true"))
	c, err := Create(Options{Self: private, Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Wait(); st != 0 || err != nil {
		t.Error(st, err)
	}
}

func TestExitCodes(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	write(t, root+"/plain", "#!/bin/sh\n", 0o644)
	write(t, root+"/noformat", "\x00\x01", 0o755)
	write(t, root+"/nointerpreter", "#!/not/there\n", 0o755)
	write(t, root+"/bin/notexecutable", "#!/bin/sh\n", 0o644)
	for _, tt := range []struct {
		args   []string
		code   int // of an ExecError
		status int
	}{
		{[]string{"sh", "-c", "exit 7"}, 0, 7},
		{[]string{"nosuchcommand"}, 127, 0},
		{[]string{"/no/such/file"}, 127, 0},
		{[]string{"./no-such"}, 127, 0},
		{[]string{"/nointerpreter"}, 127, 0},
		{[]string{""}, 127, 0},
		{[]string{"/plain"}, 126, 0},
		{[]string{"notexecutable"}, 126, 0},
		{[]string{"/bin"}, 126, 0},
		{[]string{"/noformat"}, 126, 0},
	} {
		for _, init := range []bool{false, true} {
			res, err := tryRun(t, Options{Spec: aSpec(root, tt.args...), Init: init})
			var exec *ExecError
			switch {
			case init && tt.code != 0 && err == nil:
				// What only execve(2) finds out, the reaper says.
				if res.status.ExitStatus() != tt.code || !strings.Contains(res.err, tt.args[0]) {
					t.Errorf("%q under a reaper: %v", tt.args, res)
				}
			case tt.code != 0 && (!errors.As(err, &exec) || exec.Code != tt.code):
				t.Errorf("%q: %v, want code %d", tt.args, err, tt.code)
			case tt.code == 0 && (err != nil || res.status.ExitStatus() != tt.status):
				t.Errorf("%q: %v, %v, want status %d", tt.args, err, res, tt.status)
			}
		}
	}
}

func TestSignalStatus(t *testing.T) {
	needRoot(t)
	c, err := Create(Options{Self: static, Spec: aSpec(busybox(t), "sleep", "1000")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status, err := c.Wait()
	if err != nil || !status.Signaled() || status.Signal() != unix.SIGKILL {
		t.Errorf("%v, %v; want killed", status, err)
	}
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%v, want os.ErrProcessDone", err)
	}
	if err := c.Start(); err == nil {
		t.Error("a container was started twice")
	}
}

func TestJoinedFails(t *testing.T) {
	needRoot(t)
	boom := errors.New("no cgroup")
	var pid int
	_, err := Create(Options{Self: static, Spec: aSpec(busybox(t), "true"), Joined: func(p int) error { pid = p; return boom }})
	if !errors.Is(err, boom) {
		t.Errorf("%v, want the hook's own error", err)
	}
	if pid == 0 || unix.Kill(pid, 0) == nil {
		t.Errorf("process %d is still there", pid)
	}
}

func TestExec(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"plain", "nested"} {
		t.Run(name, func(t *testing.T) {
			s := aSpec(busybox(t), "sleep", "1000")
			if name == "nested" {
				nested(t, s)
			}
			var joined []int
			c, err := Create(Options{Self: static, Spec: s, ExecJoined: func(pid int) error { joined = append(joined, pid); return nil }})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Delete()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			out, text := output(t)
			p := &specs.Process{
				Args: []string{"sh", "-c", "hostname; echo $$ $FOO; pwd; id -u; for n in mnt pid net uts ipc cgroup user; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done; exit 9"},
				Cwd:  "/tmp", Env: []string{"PATH=/bin", "FOO=bar"}, Capabilities: s.Process.Capabilities,
			}
			proc, err := c.Exec(p, [3]*os.File{nil, out, os.Stderr}, nil)
			if err != nil {
				t.Fatal(err)
			}
			status, err := proc.Wait()
			got := strings.Split(strings.TrimSpace(text()), "\n")
			if err != nil || status.ExitStatus() != 9 {
				t.Errorf("%v, status %d, want 9", err, status.ExitStatus())
			}
			if len(got) != 18 || got[0] != "box" || !strings.HasSuffix(got[1], " bar") || got[2] != "/tmp" || got[3] != "0" {
				t.Fatalf("exec wrote %q", got)
			}
			for i := 4; i < len(got); i += 2 {
				if got[i] != got[i+1] || got[i] == "" {
					t.Errorf("namespaces %s and %s", got[i], got[i+1])
				}
			}
			if len(joined) != 1 || joined[0] != proc.Pid() {
				t.Errorf("hook called for %v, want %d", joined, proc.Pid())
			}
			var exec *ExecError
			p.Args = []string{"nothing"}
			if _, err := c.Exec(p, [3]*os.File{}, nil); !errors.As(err, &exec) || exec.Code != 127 {
				t.Errorf("%v, want not found", err)
			}
			c.Delete()
			if _, err := c.Exec(p, [3]*os.File{}, nil); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("%v, want that the container has ended", err)
			}
		})
	}
}
