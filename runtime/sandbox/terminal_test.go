package sandbox

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// readAll reads a terminal's master until the last process on the other side is gone, which is EIO.
func readAll(f *os.File) string {
	b, _ := io.ReadAll(f) // EIO is the end
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func TestTerminal(t *testing.T) {
	needRoot(t)
	s := aSpec(busybox(t), "sh", "-c", "tty; stty size; ls -l /proc/self/fd/0 >/dev/null && readlink /proc/self/fd/0; stat -c %t /dev/console; echo to-console >/dev/console; echo to-tty >/dev/tty")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	var master *os.File
	c, err := Create(Options{Self: static, Spec: s, Console: func(f *os.File) { master = f }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if master == nil {
		t.Fatal("no terminal")
	}
	defer master.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(master); got != "/dev/pts/0\n33 77\n/dev/pts/0\n88\nto-console\nto-tty\n" {
		t.Errorf("%q", got)
	}
	if st, err := c.Wait(); st != 0 || err != nil {
		t.Error(st, err)
	}
}

// What is typed becomes signals, and a resize is seen; also under a reaper, where the command is the foreground.
func TestTerminalSignals(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	for _, init := range []bool{false, true} {
		s := aSpec(root, "sh", "-c", "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.02; done")
		s.Process.Terminal = true
		var master *os.File
		c, err := Create(Options{Self: static, Spec: s, Init: init, Console: func(f *os.File) { master = f }})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(master)
		expect := func(want string) {
			t.Helper()
			for {
				line, err := lines.ReadString('\n')
				if strings.Contains(line, want) {
					return
				}
				if err != nil {
					t.Fatalf("no %q: %v", want, err)
				}
			}
		}
		expect("ready")
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 34}); err != nil {
			t.Fatal(err)
		}
		expect("12 34")
		if _, err := master.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		expect("interrupted")
		if st, err := c.Wait(); st.ExitStatus() != 3 || err != nil {
			t.Error(st, err)
		}
		_ = master.Close()
		c.Delete()
	}
}

func TestExecTerminal(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"plain", "nested"} {
		t.Run(name, func(t *testing.T) {
			s := aSpec(busybox(t), "sleep", "1000")
			if name == "nested" {
				m, err := ownMap("/proc/self/uid_map")
				if err != nil || m[len(m)-1].Size < 100 {
					s = aSpec(s.Root.Path, "sleep", "1000") // a single id: the container's own terminals all the same
				} else {
					nested(t, s)
				}
			}
			c, err := Create(Options{Self: static, Spec: s})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Delete()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			var master *os.File
			p := &specs.Process{Terminal: true, ConsoleSize: &specs.Box{Height: 5, Width: 6}, Args: []string{"sh", "-c", "tty; stty size; exit 4"}, Cwd: "/", Env: s.Process.Env, Capabilities: s.Process.Capabilities}
			proc, err := c.Exec(p, [3]*os.File{}, func(f *os.File) { master = f })
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(master); got != "/dev/pts/0\n5 6\n" {
				t.Errorf("%q", got)
			}
			_ = master.Close()
			if st, err := proc.Wait(); st.ExitStatus() != 4 || err != nil {
				t.Error(st, err)
			}
		})
	}
}

// A container that has put something else in the place of its multiplexer gets no terminal from us.
func TestExecTerminalIsADevpts(t *testing.T) {
	needRoot(t)
	s := aSpec(busybox(t), "sleep", "1000")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/pts", Type: "tmpfs", Source: "tmpfs"})
	c, err := Create(Options{Self: static, Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &specs.Process{Terminal: true, Args: []string{"true"}, Cwd: "/", Env: s.Process.Env}
	for _, script := range []string{"mkdir -p /dev/pts; echo >/dev/pts/ptmx", "rm /dev/pts/ptmx; ln -s /dev/null /dev/pts/ptmx", "rm /dev/pts/ptmx; ln -s ../ptmx /dev/pts/ptmx"} {
		q := &specs.Process{Args: []string{"sh", "-c", script}, Cwd: "/", Env: s.Process.Env, Capabilities: s.Process.Capabilities}
		proc, err := c.Exec(q, [3]*os.File{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := proc.Wait(); st != 0 || err != nil {
			t.Fatal(st, err)
		}
		if _, err := c.Exec(p, [3]*os.File{}, nil); err == nil || !strings.Contains(err.Error(), "ptmx") {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestReaper(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	// A process whose parent has ended is PID 1's to wait for.
	script := `echo pid $$; (sleep 0.01 &) ; (setsid sh -c 'exit 0' &); i=0; while [ $i -lt 500 ]; do ps -o stat,comm | grep -q '^Z' || { echo none; break; }; sleep 0.02; i=$((i+1)); done; exit 6`
	res, err := tryRun(t, Options{Spec: aSpec(root, "sh", "-c", script), Init: true})
	if err != nil || res.status.ExitStatus() != 6 || !strings.HasSuffix(res.out, "\nnone\n") || strings.HasPrefix(res.out, "pid 1\n") {
		t.Errorf("%v, %v", err, res)
	}
	res, err = tryRun(t, Options{Spec: aSpec(root, "sh", "-c", "kill -KILL $$"), Init: true})
	if err != nil || res.status.ExitStatus() != 137 {
		t.Errorf("a command that is killed: %v, %v", err, res)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGWINCH} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
		s := aSpec(root, "sh", "-c", "trap 'exit 8' "+name+"; echo ready; while :; do sleep 0.02; done")
		c, err := Create(Options{Self: static, Spec: s, Init: true, Stdio: [3]*os.File{nil, w, nil}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if line, _ := bufio.NewReader(r).ReadString('\n'); line != "ready\n" {
			t.Errorf("%q", line)
		}
		if err := c.Signal(sig); err != nil {
			t.Error(err)
		}
		if st, _ := c.Wait(); st.ExitStatus() != 8 {
			t.Errorf("%s: %v", name, st)
		}
		_ = r.Close()
		c.Delete()
	}
}
