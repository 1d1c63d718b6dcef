package container

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
)

func TestBackgroundLife(t *testing.T) {
	b := newBox(t)
	id := b.start(script("trap 'echo got; exit 7' TERM; echo up; while :; do sleep 0.05; done"), name("bg"))
	eventually(t, "it is up", func() bool { return strings.Contains(b.must("logs", id), "up") })
	ps := b.ps()
	if len(ps) != 1 || ps[0].State != "running" || !strings.HasPrefix(ps[0].Status, "Up ") || ps[0].Names[0] != "/bg" || ps[0].Image != "test" {
		t.Errorf("ps %+v", ps)
	}
	if _, errs, code := b.try("rm", "bg"); code == 0 || !strings.Contains(errs, "running") {
		t.Errorf("rm of a running one: exit %d: %s", code, errs)
	}
	b.must("stop", "bg", "60")
	i := b.inspect("bg")
	if i.State.ExitCode != 7 || i.State.Running || !strings.Contains(b.must("logs", "bg"), "got") {
		t.Errorf("state %+v", i.State)
	}
	b.must("restart", "bg")
	if i := b.inspect("bg"); !i.State.Running || i.State.Pid == 0 {
		t.Errorf("state %+v", i.State)
	}
	b.must("kill", "bg", "KILL")
	if got := b.must("wait", "bg", "not-running"); got != "137" {
		t.Errorf("exit %s", got)
	}
	for _, op := range []string{"pause", "unpause", "top"} {
		if _, errs, code := b.try(op, "bg"); code == 0 || !strings.Contains(errs, "not running") {
			t.Errorf("%s: exit %d: %s", op, code, errs)
		}
	}
	if _, errs, code := b.try("kill", "bg", "TERM"); code == 0 || !strings.Contains(errs, "is not running") {
		t.Errorf("kill: exit %d: %s", code, errs)
	}
	b.must("rm", "bg")
	if _, errs, code := b.try("inspect", "bg"); code != 125 || !strings.Contains(errs, "No such container: bg") {
		t.Errorf("inspect: exit %d: %s", code, errs)
	}
}

func TestExec(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"), config(func(c *api.Config) { c.Env = words("A=1") }))
	out, errs, code := b.exec(id, "sh", "-c", "echo o; echo e >&2; echo $A; ls /proc | grep -c '^1$'; exit 4")
	if out != "o\n1\n1\n" || errs != "e\n" || code != 4 {
		t.Errorf("out %q, err %q, exit %d", out, errs, code)
	}
	if _, errs, code := b.exec(id, "no-such"); code != 127 || !strings.Contains(errs, "no-such") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, _, code := b.exec(id, "/bin/noexec"); code != 126 {
		t.Errorf("exit %d", code)
	}
	arg := func(r runArg) string {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	big := strings.Repeat("x", 1<<20)
	out, _, code = b.with(big, "exec", id, arg(runArg{Stdin: true, Exec: api.ExecCreateRequest{Cmd: words("cat")}}))
	if code != 0 || out != big {
		t.Errorf("exit %d, %d bytes", code, len(out))
	}
	out, _, code = b.try("exec", id, arg(runArg{Exec: api.ExecCreateRequest{Cmd: script("tty; echo $TERM; pwd; echo $B"), Tty: true, Env: words("B=2"), WorkingDir: "/tmp"}}))
	if code != 0 || out != "/dev/pts/0\r\nxterm\r\n/tmp\r\n2\r\n" {
		t.Errorf("exit %d, %q", code, out)
	}
	b.must("exec", id, arg(runArg{Detach: true, Exec: api.ExecCreateRequest{Cmd: script("echo x > /made")}}))
	eventually(t, "the detached one has run", func() bool {
		_, _, code := b.exec(id, "test", "-e", "/made")
		return code == 0
	})
	var top api.TopResponse
	eventually(t, "the detached one has ended", func() bool {
		top = decode[api.TopResponse](t, b.must("top", id))
		return len(top.Processes) == 1
	})
	if !slices.Contains(top.Processes[0], "sleep 1000") {
		t.Errorf("top %+v", top)
	}
	stats := decode[api.StatsResponse](t, b.must("stats", id))
	if stats.PidsStats.Current == 0 || stats.MemoryStats.Limit == 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestPause(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"))
	if _, errs, code := b.try("pause", id); code != 0 {
		if os.Geteuid() != 0 {
			t.Skipf("needs a freezer of our own: %s", errs)
		}
		t.Fatalf("exit %d: %s", code, errs)
	}
	if i := b.inspect(id); !i.State.Paused || i.State.Status != "paused" || !i.State.Running {
		t.Errorf("state %+v", i.State)
	}
	if _, errs, code := b.exec(id, "true"); code == 0 || !strings.Contains(errs, "paused") {
		t.Errorf("exec: exit %d: %s", code, errs)
	}
	if _, _, code := b.try("pause", id); code == 0 {
		t.Error("paused twice")
	}
	b.must("unpause", id)
	if _, _, code := b.exec(id, "true"); code != 0 {
		t.Errorf("exec: exit %d", code)
	}
	b.must("pause", id)
	b.must("stop", id)
	if i := b.inspect(id); i.State.Status != "exited" {
		t.Errorf("state %+v", i.State)
	}
}

func TestAttach(t *testing.T) {
	b := newBox(t)
	id := b.start(words("cat"), func(r *runArg) { r.Create.Config.OpenStdin = true })
	text, err := json.Marshal(runArg{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.command(t.Context(), "attach", id, string(text))
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "hello\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "hello\n" {
		t.Errorf("%q, %v", buf, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if i := b.inspect(id); !i.State.Running {
		t.Errorf("the container has ended with a client that was only attached: %+v", i.State)
	}
}

func TestDetachKeys(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.with("echo hi\n\x10\x11", "run", "-", newRun(words("cat"), name("det"), tty, stdin))
	if code != 125 || !strings.Contains(errs, ErrDetached.Error()) {
		t.Fatalf("exit %d: %q %q", code, out, errs)
	}
	if i := b.inspect("det"); !i.State.Running {
		t.Errorf("state %+v", i.State)
	}
}

func TestRestartPolicy(t *testing.T) {
	b := newBox(t)
	id := b.start(script("echo run; exit 1"), host(func(h *api.HostConfig) {
		h.RestartPolicy = api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}
	}))
	if got := b.must("wait", id, "not-running"); got != "1" {
		t.Errorf("exit %s", got)
	}
	if i := b.inspect(id); i.RestartCount != 2 || b.must("logs", id) != "run\nrun\nrun" {
		t.Errorf("%d restarts, %q", i.RestartCount, b.must("logs", id))
	}
	id = b.start(script("exit 0"), host(func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }))
	eventually(t, "it is restarted", func() bool { return b.inspect(id).RestartCount > 0 })
	b.must("stop", id)
	if i := b.inspect(id); i.State.Running || i.State.Restarting {
		t.Errorf("state %+v", i.State)
	}
}

// TestNextDelay has Docker's waits: 100 ms, twice as long each time, a minute at most.
// TestRestartOfAutoRemove: --rm takes a container away when it ends, and not when it is restarted.
func TestRestartOfAutoRemove(t *testing.T) {
	b := newBox(t)
	id := b.start(script("echo begun; exec sleep 1000"), autoRemove)
	before := b.inspect(id).State.Pid
	b.must("restart", id)
	if st := b.inspect(id).State; st.Status != api.StateRunning || st.Pid == before {
		t.Errorf("state %+v", st)
	}
	b.must("stop", id)
	if left := b.ps(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// TestKillBetweenRuns: a container that is about to be restarted is one that runs, as for Docker, and has nothing to be
// attached to.
func TestKillBetweenRuns(t *testing.T) {
	b := newBox(t)
	always := host(func(h *api.HostConfig) { h.RestartPolicy.Name = api.RestartPolicyAlways })
	ids := map[string]string{"KILL": b.start(words("false"), always), "TERM": b.start(words("false"), always)}
	for sig, id := range ids {
		eventually(t, "it is at the beginning of seconds of waiting", func() bool {
			i := b.inspect(id)
			ended, err := time.Parse(time.RFC3339Nano, i.State.FinishedAt)
			return err == nil && i.RestartCount >= 6 && i.State.Restarting && time.Since(ended) < 2*time.Second // of 6.4
		})
		if _, errs, code := b.try("attach", id, "{}"); code == 0 || !strings.Contains(errs, "restarting container") {
			t.Errorf("attach: exit %d: %s", code, errs)
		}
		b.must("kill", id, sig)
		if st := b.inspect(id).State; st.Status != api.StateExited || st.ExitCode != 1 {
			t.Errorf("%s: state %+v", sig, st)
		}
	}
	b.nothingLeft()
}

// TestKillOfPaused: what is to end a container that is paused has it go on.
func TestKillOfPaused(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct {
		sig, stop string
		ends      bool
	}{{"TERM", "TERM", true}, {"USR1", "USR1", true}, {"USR1", "TERM", false}} {
		id := b.start(script("trap 'exit 7' TERM USR1; echo ok; while :; do sleep 0.1; done"), config(func(c *api.Config) { c.StopSignal = tt.stop }))
		eventually(t, "it is ready", func() bool { return strings.Contains(b.must("logs", id), "ok") })
		if _, errs, code := b.try("pause", id); code != 0 {
			if os.Geteuid() != 0 {
				t.Skipf("needs a freezer of our own: %s", errs)
			}
			t.Fatalf("exit %d: %s", code, errs)
		}
		b.must("kill", id, tt.sig)
		if !tt.ends {
			if st := b.inspect(id).State; st.Status != api.StatePaused {
				t.Errorf("%+v: %s", tt, st.Status)
			}
			continue
		}
		if code := b.must("wait", id, "not-running"); code != "7" {
			t.Errorf("%+v: exit status %s", tt, code)
		}
	}
}

func TestNextDelay(t *testing.T) {
	d := nextDelay(0, 0)
	var all []string
	for range 12 {
		all = append(all, d.String())
		d = nextDelay(d, 0)
	}
	want := "100ms 200ms 400ms 800ms 1.6s 3.2s 6.4s 12.8s 25.6s 51.2s 1m0s 1m0s"
	if got := strings.Join(all, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if d := nextDelay(d, lasted); d != firstDelay {
		t.Errorf("after a run that lasted: %v", d)
	}
}

func TestLogRotation(t *testing.T) {
	b := newBox(t)
	id := b.start(words("seq", "1", "2000"), host(func(h *api.HostConfig) {
		h.LogConfig.Config = map[string]string{"max-size": "20k", "max-file": "3"}
	}))
	b.must("wait", id, "not-running")
	files, err := filepath.Glob(filepath.Join(b.root, "containers", id, "*-json.log*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Size() > 20_000 {
			t.Errorf("%s: %v, %v", f, fi, err)
		}
	}
	lines := strings.Split(b.must("logs", id), "\n")
	if lines[len(lines)-1] != "2000" || len(lines) < 200 {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	first, err := strconv.Atoi(lines[0])
	if err != nil || first != 2001-len(lines) {
		t.Errorf("lines from %s on, %d of them", lines[0], len(lines))
	}
}

func TestFollowLogs(t *testing.T) {
	b := newBox(t)
	id := b.start(script("for i in 1 2 3; do echo $i; sleep 0.1; done"))
	out, errs, code := b.try("logs", id, "-f")
	if out != "1\n2\n3\n" || code != 0 {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
}

func TestDiffCommitExport(t *testing.T) {
	b := newBox(t)
	b.run(script("echo x > /new; rm /data/seed; mkdir /data/d"), name("chg"))
	var changes []string
	for _, ch := range decode[[]api.FilesystemChange](t, b.must("diff", "chg")) {
		changes = append(changes, ch.Kind.String()+ch.Path)
	}
	want := []string{"C/data", "A/data/d", "D/data/seed", "A/new"}
	if !slices.Equal(changes, want) {
		t.Errorf("%q, want %q", changes, want)
	}
	b.must("commit", "chg", "made:1", `CMD ["cat", "/new"]`, "ENV K=v")
	out, errs, code := b.run(nil, autoRemove, config(func(c *api.Config) { c.Image = "made:1" }))
	if out != "x\n" || code != 0 {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
	out, errs, code = b.run(script("echo $K $FROM_IMAGE; ls /data"), autoRemove, config(func(c *api.Config) { c.Image = "made:1" }))
	if out != "v yes\nd\n" || code != 0 {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
	names := tarNames(t, b.must("export", "chg"))
	for _, n := range []string{"new", "bin/busybox", "data/d/"} {
		if !slices.Contains(names, n) {
			t.Errorf("no %s in the export", n)
		}
	}
	if slices.Contains(names, "data/seed") {
		t.Error("what was deleted is in the export")
	}
	b.nothingLeft()
}

// TestRootReadsWhatIsPrivate: a container's root has the rights of one, also where no id but his own exists.
func TestRootReadsWhatIsPrivate(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script("cd /home/user/private && cat f && echo more >> f && touch g && chown 0:0 f && wc -l < f"), autoRemove)
	if out != "secret\n2\n" || code != 0 {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
}

func tarNames(t *testing.T, text string) (names []string) {
	t.Helper()
	for r := tar.NewReader(strings.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

// TestCopy is docker cp, of a container that runs and of one that does not.
func TestCopy(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running=%v", running), func(t *testing.T) {
			b := newBox(t)
			b.must("create", "-", newRun(words("sleep", "1000"), name("copy"), host(func(h *api.HostConfig) { h.Binds = words("cv:/v") })))
			if running {
				b.must("start", "copy")
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "file")
			if err := errors.Join(os.WriteFile(file, []byte("content"), 0o640), os.Mkdir(dir+"/sub", 0o755), os.WriteFile(dir+"/sub/f", []byte("1"), 0o644)); err != nil {
				t.Fatal(err)
			}
			// the machine's files belong to others in the container's eyes: who may read them does
			b.must("cpin", "copy", file, "/tmp/")
			b.must("cpin", "copy", file, "/tmp/renamed")
			b.must("cpin", "copy", dir+"/sub", "/tmp")
			b.must("cpin", "copy", dir+"/sub", "/tmp/other")
			b.must("cpin", "copy", dir+"/sub/.", "/home")
			if running { // volumes are there from the first start on
				b.must("cpin", "copy", file, "/v/in")
			}
			for _, p := range []string{"/tmp/file", "/tmp/renamed", "/tmp/sub/f", "/tmp/other/f", "/home/f"} {
				got := filepath.Join(dir, "got")
				b.must("cpout", "copy", p, got)
				if data, err := os.ReadFile(got); err != nil || string(data) != "content" && string(data) != "1" {
					t.Errorf("%s: %q, %v", p, data, err)
				}
			}
			b.must("cpout", "copy", "/tmp", dir)
			if !exists1(dir + "/tmp/sub/f") {
				t.Error("a directory was not copied out")
			}
			var w bytes.Buffer
			tw := tar.NewWriter(&w)
			_ = tw.WriteHeader(&tar.Header{Name: "t/x", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg})
			_, _ = tw.Write([]byte("y"))
			_ = tw.Close()
			if _, errs, code := b.with(w.String(), "cpin", "copy", "-", "/tmp"); code != 0 {
				t.Errorf("exit %d: %s", code, errs)
			}
			if names := tarNames(t, b.must("cpout", "copy", "/tmp/t", "-")); !slices.Equal(names, []string{"t/", "t/x"}) {
				t.Errorf("%q", names)
			}
			for _, bad := range [][]string{{file, "/none/such/"}, {dir + "/sub", "/tmp/file"}, {dir + "/absent", "/tmp"}} {
				if _, errs, code := b.try("cpin", "copy", bad[0], bad[1]); code == 0 || errs == "" {
					t.Errorf("cp %q: exit %d", bad, code)
				}
			}
			if _, errs, code := b.try("cpout", "copy", "/none", dir); code == 0 || !strings.Contains(errs, "Could not find the file /none") {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
}

// TestCopyStaysInside: links of the container lead nowhere but into it.
func TestCopyStaysInside(t *testing.T) {
	b := newBox(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := b.start(script("ln -s " + secret + " /tmp/link; ln -s " + filepath.Dir(secret) + " /tmp/dir; ln -s ../../../../../../../../.. /tmp/up; echo ok; sleep 1000"))
	eventually(t, "the links are there", func() bool { return strings.Contains(b.must("logs", id), "ok") })
	for _, p := range []string{"/tmp/dir/secret", "/tmp/up" + secret, "/tmp/link/"} {
		if out, _, code := b.try("cpout", id, p, "-"); code == 0 {
			t.Errorf("cp %s: %q", p, out)
		}
	}
	if _, _, code := b.try("cpin", id, secret, "/tmp/dir/planted"); code == 0 || exists1(filepath.Dir(secret)+"/planted") {
		t.Error("written outside")
	}
	if _, errs, code := b.try("cpin", id, secret, "/tmp/up/planted"); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if _, _, code := b.exec(id, "test", "-e", "/planted"); code != 0 {
		t.Error("a link to above the root does not lead to the root")
	}
}

// TestKilledMonitor: nothing runs on, nothing stays mounted, and the next command says so.
func TestKilledMonitor(t *testing.T) {
	b := newBox(t)
	keep := b.start(script("echo x > /kept; echo ok; sleep 1000"), name("keep"))
	gone := b.start(words("sleep", "1000"), autoRemove)
	eventually(t, "it has written", func() bool { return strings.Contains(b.must("logs", keep), "ok") })
	for _, id := range []string{keep, gone} {
		st, err := readState(filepath.Join(b.root, "containers", id))
		if err != nil || st.Monitor.Pid == 0 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err := unix.Kill(st.Monitor.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the monitors are gone", func() bool {
		return !slices.ContainsFunc(b.processes(), func(s string) bool { return strings.HasPrefix(s, MonitorArg0) })
	})
	ps := b.ps()
	if len(ps) != 1 || ps[0].ID != keep || ps[0].State != "exited" || !strings.HasPrefix(ps[0].Status, "Exited (137)") {
		t.Errorf("ps %+v", ps)
	}
	b.nothingLeft()
	b.must("start", keep)
	if out, errs, code := b.exec(keep, "cat", "/kept"); out != "x\n" || code != 0 {
		t.Errorf("%q %q, exit %d", out, errs, code)
	}
}

// TestUnionEndsBehindKilledMonitor: whoever cleans up after a monitor lets the server of its union end by itself, however
// slow it is, so that what it told of the mount does not lie there until the next mount.
func TestUnionEndsBehindKilledMonitor(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"))
	st, err := readState(filepath.Join(b.root, "containers", id))
	if err != nil || st.Monitor.Pid == 0 || st.Laminafs.Pid == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	signal := func(pid int, s unix.Signal) {
		if err := unix.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(st.Laminafs.Pid, unix.SIGSTOP)
	signal(st.Monitor.Pid, unix.SIGKILL)
	type result struct {
		errs string
		code int
	}
	ended := make(chan result, 1)
	go func() {
		_, errs, code := b.try("rm", id)
		ended <- result{errs, code}
	}()
	var r result
	select {
	case r = <-ended: // it has killed the server
	case <-time.After(500 * time.Millisecond):
		signal(st.Laminafs.Pid, unix.SIGCONT)
		r = <-ended
	}
	if r.code != 0 {
		t.Fatalf("rm: exit %d: %s", r.code, r.errs)
	}
	b.sound(r.errs, false)
	dirs, err := filepath.Glob("/run/laminafs/*/pid") // root's; the others' is in the root's run
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range dirs {
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(st.Laminafs.Pid) {
			t.Errorf("%s is left", filepath.Dir(path))
		}
	}
}

// TestKilledUnion: a container whose root has gone ends.
func TestKilledUnion(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"))
	st, err := readState(filepath.Join(b.root, "containers", id))
	if err != nil || st.Laminafs.Pid == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := unix.Kill(st.Laminafs.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := b.must("wait", id, "not-running"); got == "0" { // of SIGKILL, or SIGBUS: its program cannot be read any more
		t.Errorf("exit %s", got)
	}
	if i := b.inspect(id); !strings.Contains(i.State.Error, "laminafs") {
		t.Errorf("state %+v", i.State)
	}
}

// TestRequestAfterTheTree: what asks for the tree when it is closed does not get what has the descriptor's number since.
func TestRequestAfterTheTree(t *testing.T) {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{c: &Container{r: &record{ID: strings.Repeat("0", 64), Name: "c"}}, root: root}
	ask := func() error {
		_, err := m.treeAnswer(request{Op: opStatPath, Path: "/"}, nil)
		return err
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	if err := m.closeTree(); err != nil {
		t.Error(err)
	}
	if err := ask(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, want that it does not run", err)
	}
}

// TestKilledUnionEndsCommand: where the command ends by that, at the moment that laminafs does, the reason is told as well.
func TestKilledUnionEndsCommand(t *testing.T) {
	b := newBox(t)
	id := b.start(script("while [ -e /bin ]; do :; done"))
	for n := range 20 {
		if n > 0 {
			b.must("start", id)
		}
		st, err := readState(filepath.Join(b.root, "containers", id))
		if err != nil || st.Laminafs.Pid == 0 {
			t.Fatalf("%+v, %v", st, err)
		}
		if err := unix.Kill(st.Laminafs.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.must("wait", id, "not-running")
		if i := b.inspect(id); !strings.Contains(i.State.Error, "laminafs") {
			t.Fatalf("state %+v", i.State)
		}
	}
}

// TestKilledCommands: whatever a command that is killed has got to, the next one finds nothing half made.
func TestKilledCommands(t *testing.T) {
	b := newBox(t)
	for ms := 0; ms < 60; ms += 4 {
		cmd := b.command(t.Context(), "run", "-", newRun(words("sleep", "1000"), name(fmt.Sprintf("killed%d", ms))))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		killer := exec.Command("sh", "-c", fmt.Sprintf("sleep 0.%03d; kill -9 %d", ms*3, cmd.Process.Pid))
		if err := killer.Run(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	// A monitor sees that the client has gone, at the latest when its container runs.
	eventually(t, "the monitors have ended", func() bool {
		return !slices.ContainsFunc(b.processes(), func(s string) bool { return strings.HasPrefix(s, MonitorArg0) })
	})
	for _, c := range b.ps() {
		b.must("rm", c.ID)
	}
	b.nothingLeft()
	for _, dir := range []string{"containers", "layerdb/mounts", "run", "run/laminafs"} {
		if entries, err := b.entries(dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
}

func TestUpdate(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"), name("upd"))
	b.must("update", "upd", `{"RestartPolicy":{"Name":"always"}}`)
	if h := b.inspect(id).HostConfig; h.RestartPolicy.Name != "always" {
		t.Errorf("%+v", h.RestartPolicy)
	}
	b.must("exec", id, `{"Exec":{"Cmd":["kill","-TERM","1"]}}`)
	if _, errs, code := b.try("update", "upd", `{"Memory":1}`); code == 0 || !strings.Contains(errs, "Minimum memory") {
		t.Errorf("exit %d: %s", code, errs)
	}
	_, errs, code := b.try("update", "upd", `{"Memory":67108864}`)
	if os.Geteuid() != 0 && code != 0 {
		if !strings.Contains(errs, "memory") {
			t.Errorf("exit %d: %s", code, errs)
		}
		return
	}
	if h := b.inspect(id).HostConfig; code != 0 || h.Memory != 64<<20 {
		t.Errorf("exit %d: %s; %d", code, errs, h.Memory)
	}
	// What the policy restarts has the limits of now.
	before := b.inspect(id)
	if err := unix.Kill(before.State.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs again", func() bool {
		i := b.inspect(id)
		return i.State.Status == api.StateRunning && i.RestartCount > before.RestartCount
	})
	if stats := decode[api.StatsResponse](t, b.must("stats", id)); stats.MemoryStats.Limit != 64<<20 {
		t.Errorf("the limit behind a restart: %d", stats.MemoryStats.Limit)
	}
}

func TestOOMKilled(t *testing.T) {
	b := newBox(t)
	_, errs, code := b.run(script("head -c 200000000 /dev/zero | tr '\\0' x | sort > /dev/null; dd if=/dev/zero of=/dev/null bs=200M count=1"), name("oom"),
		host(func(h *api.HostConfig) { h.Memory = 16 << 20 }))
	if code == 125 && os.Geteuid() != 0 {
		if !strings.Contains(errs, "memory") {
			t.Errorf("a limit that cannot be had does not say so: %s", errs)
		}
		return
	}
	if i := b.inspect("oom"); !i.State.OOMKilled {
		t.Errorf("exit %d, %+v: %s", code, i.State, errs)
	}
}
