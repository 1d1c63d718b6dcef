package container

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uniontest/meanwhile"
)

// TestAttachWhileEnding: who attaches to a run whose command has ended, and which is not taken apart yet, hears how it has ended,
// and nothing of the next.
func TestAttachWhileEnding(t *testing.T) {
	b := newBox(t)
	for _, policy := range []api.RestartPolicyMode{"no", "always"} {
		t.Run(string(policy), func(t *testing.T) {
			b, arm, waiting := b.armed(t)
			arm(faultEnded.Name() + "=wait")
			id := b.start(script("echo said; exit 3"), host(func(h *api.HostConfig) { h.RestartPolicy.Name = policy }))
			waiting(faultEnded.Name())
			end := b.attached(t, id)
			arm("")
			if out, code := end(); code != 3 || out != "" {
				t.Errorf("attach: exit %d, output %q", code, out)
			}
			b.must("rm", id, "-f")
		})
	}
}

// TestAttachToFailingRestart: a run that does not come about ends for who has attached to it.
func TestAttachToFailingRestart(t *testing.T) {
	b, arm, waiting := newBox(t).armed(t)
	id := b.start(words("sleep", "1000"), host(func(h *api.HostConfig) { h.RestartPolicy.Name = "always" }))
	arm(faultRecorded.Name() + "=wait")
	if err := unix.Kill(b.inspect(id).State.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waiting(faultRecorded.Name())
	end := b.attached(t, id)
	arm(faultRecorded.Name() + "=EIO")
	if out, code := end(); code == 0 || out != "" {
		t.Errorf("attach: exit %d, output %q", code, out)
	}
	if code := b.must("wait", id, "not-running"); code == "0" {
		t.Error("the container has ended with 0")
	}
	b.must("rm", id)
}

// attached attaches to a container. end waits for the end of that, within the limit.
func (b *box) attached(t *testing.T, id string) (end func() (out string, code int)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := b.command(ctx, "attach", id, "{}")
	var out bytes.Buffer
	cmd.Stdout = &out
	says, err := cmd.StderrPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(says).ReadString('\n')
	if err != nil || line != "attached\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return func() (string, int) {
		t.Helper()
		if err := cmd.Wait(); ctx.Err() != nil {
			t.Errorf("attach does not end: %v", err)
		}
		return out.String(), cmd.ProcessState.ExitCode()
	}
}

// TestPauseThatIsNotKnown: a pause that cannot be written down is none.
func TestPauseThatIsNotKnown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a freezer")
	}
	b, arm, _ := newBox(t).armed(t)
	id := b.start(words("sleep", "1000"))
	arm(faultPaused.Name() + "=EIO")
	if _, errs, code := b.try("pause", id); code == 0 || !strings.Contains(errs, unix.EIO.Error()) {
		t.Errorf("pause: exit %d: %s", code, errs)
	}
	arm("")
	if out, errs, code := b.exec(id, "echo", "goes on"); code != 0 || out != "goes on\n" {
		t.Errorf("exec: exit %d, %q: %s", code, out, errs)
	}
	b.must("pause", id)
	b.must("unpause", id)
	b.must("rm", id, "-f")
}

// TestWaitForNextExitTooLate: who asks for the next exit when the last one has been told hears of that.
func TestWaitForNextExitTooLate(t *testing.T) {
	b, arm, waiting := newBox(t).armed(t)
	arm(faultUnmounted.Name() + "=wait")
	id := b.start(script("exit 4"))
	waiting(faultUnmounted.Name())
	c := &Container{s: &Store{o: Options{RunDir: filepath.Join(b.root, "run")}}, r: &record{ID: id}}
	con, err := c.dial()
	if err != nil {
		t.Fatal(err)
	}
	arm(faultFinal.Name() + "=wait")
	waiting(faultFinal.Name()) // who has waited so far is about to be told
	if err := con.send(request{Op: opWait, Next: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	context.AfterFunc(ctx, func() { _ = con.Close() })
	arm("")
	var r reply
	if _, err := con.receive(&r); err != nil || r.Event != eventExited || r.ExitCode != 4 {
		t.Errorf("%+v, %v; want exit status 4", r, err)
	}
	b.must("rm", id)
}

// TestOutputsAfterTheEnd: a client that comes between two runs gets nothing, and its stream's end; one that comes before the
// first takes part.
func TestOutputsAfterTheEnd(t *testing.T) {
	var o outputs
	client := func() (*sink, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		k := newSink(w)
		o.add("stdout", k)
		return k, r
	}
	read := func(r *os.File) string {
		t.Helper()
		buf := make([]byte, 100)
		n := 0
		for {
			k, err := r.Read(buf[n:])
			if n += k; err != nil {
				return string(buf[:n])
			}
		}
	}
	_, early := client()
	o.begin()
	o.write("stdout", []byte("first"))
	o.end()
	if got := read(early); got != "first" {
		t.Errorf("who came before the run got %q", got)
	}
	late, r := client()
	<-late.done
	o.begin()
	_, next := client()
	o.write("stdout", []byte("second"))
	o.end()
	if got := read(r); got != "" {
		t.Errorf("who came between the runs got %q", got)
	}
	if got := read(next); got != "second" {
		t.Errorf("who came to the second got %q", got)
	}
}

// TestUnionSyncs: a server that waits for its disk is not killed, and one that hangs is.
func TestUnionSyncs(t *testing.T) {
	old := unionPatience
	unionPatience = 50 * time.Millisecond
	defer func() { unionPatience = old }()
	serve := func(t *testing.T, says func(sock int)) *union {
		t.Helper()
		ours, theirs, err := packet.Pair()
		if err != nil {
			t.Fatal(err)
		}
		sock, err := packet.New(ours)
		if err != nil {
			t.Fatal(err)
		}
		u := &union{sock: sock, syncs: make(chan struct{}), closed: make(chan struct{}), gone: make(chan struct{}), ended: make(chan struct{})}
		go func() {
			u.said = u.saysClosed()
			close(u.closed)
		}()
		go func() {
			says(theirs)
			_ = unix.Close(theirs)
			close(u.ended)
		}()
		t.Cleanup(func() { <-u.closed; sock.Close() })
		return u
	}
	t.Run("syncs", func(t *testing.T) {
		pid := sleeper(t)
		u := serve(t, func(sock int) {
			_ = packet.Send(sock, []byte{serverSyncs}, -1)
			<-time.After(10 * unionPatience) // longer than one that hangs is waited for
			_ = packet.Send(sock, []byte{serverClosed}, -1)
		})
		u.server = identify(pid)
		<-u.syncs
		if err := u.await(u.closed); err != nil || !u.said {
			t.Errorf("%v, said that it is closed: %v", err, u.said)
		}
		if u.server.dying() {
			t.Error("it was killed")
		}
		if err := u.server.kill(); err != nil {
			t.Error(err)
		}
		_, _ = sys.WaitProgram(pid)
	})
	t.Run("in time, and nobody came to hear it", func(t *testing.T) {
		unionPatience = 0
		defer func() { unionPatience = 50 * time.Millisecond }()
		pid := sleeper(t)
		for range 100 {
			u := serve(t, func(sock int) {
				_ = packet.Send(sock, []byte{serverSyncs}, -1)
				_ = packet.Send(sock, []byte{serverClosed}, -1)
			})
			u.server = identify(pid)
			<-u.syncs
			if err := u.await(u.closed); err != nil {
				t.Fatal(err)
			}
		}
		if identify(pid).dying() {
			t.Error("it was killed")
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
		_, _ = sys.WaitProgram(pid)
	})
	t.Run("dies over it", func(t *testing.T) {
		u := serve(t, func(sock int) { _ = packet.Send(sock, []byte{serverSyncs}, -1) })
		if err := u.await(u.closed); err != nil || u.said {
			t.Errorf("%v, said that it is closed: %v", err, u.said)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		pid := sleeper(t)
		u := serve(t, func(int) { _, _ = sys.WaitProgram(pid) })
		u.server = identify(pid)
		if err := u.await(u.closed); err != nil || u.said {
			t.Errorf("%v, said that it is closed: %v", err, u.said)
		}
	})
}

// sleeper is a process that does nothing.
func sleeper(t *testing.T) (pid int) {
	t.Helper()
	pid, err := sys.StartProgram("/bin/sleep", []string{"sleep", "1000"}, nil, "/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestLastWordsOfMonitor: a monitor that has ended before it was asked has said why.
func TestLastWordsOfMonitor(t *testing.T) {
	for _, says := range []*reply{{Error: packError(fail(ErrInvalid, "of another version"))}, {Event: eventDone}, nil} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		them, err := connOf(theirs)
		if err != nil {
			t.Fatal(err)
		}
		want := errNoMonitor.Error()
		if says != nil {
			if err := them.send(*says); err != nil {
				t.Fatal(err)
			}
			if says.Error != nil {
				want = "of another version"
			}
		}
		if err := them.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ours.ask(request{Op: opStart}); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", says, err, want)
		}
		_ = ours.Close()
	}
}

// TestSizeOfRemovedDirectory: a directory that goes while it is looked at is empty.
func TestSizeOfRemovedDirectory(t *testing.T) {
	dir := t.TempDir() + "/d"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if n, err := treeSize(fd, map[uint64]bool{}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestDrain: what was written is waited for, and what somebody outside goes on to write is not.
func TestDrain(t *testing.T) {
	reader, writer, err := pipe(true)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	if _, err := writer.Write(make([]byte, 50_000)); err != nil {
		t.Fatal(err)
	}
	r := &run{readers: []*os.File{reader}}
	take := func(n int) {
		buf := make([]byte, n)
		k, err := reader.Read(buf)
		if err != nil {
			t.Error(err)
		}
		r.taken[0].Add(int64(k))
	}
	drained := make(chan struct{})
	go func() { r.drain(); close(drained) }()
	for range 5 {
		select {
		case <-drained:
			t.Fatal("it does not wait for what is there")
		case <-time.After(20 * time.Millisecond):
		}
		take(10_000)
	}
	<-drained

	if _, err := writer.Write(make([]byte, 10_000)); err != nil { // which are never all taken
		t.Fatal(err)
	}
	end := meanwhile.Do(func() {
		if _, err := writer.Write(make([]byte, 1000)); err != nil {
			t.Error(err)
		}
		take(1000)
	})
	r.drain()
	end()
	if n := r.taken[0].Load(); n < maxPipe {
		t.Errorf("given up after %d bytes, want %d", n, maxPipe)
	}
	_ = reader.Close()
	r.drain()
}
