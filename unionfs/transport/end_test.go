package transport

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// stat starts a process that looks at a name in the mount. Package os would make this process wait for itself.
func (x *mounted) stat(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("stat", "--", x.dir+"/"+name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// waitFor polls, which is what is left where nobody says that something has happened.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// A client that is killed does not wait for its answer, and its request is told so.
func TestKilledClient(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		for range 5 {
			cmd := x.stat(t, "patient")
			waitFor(t, "the request", func() bool { return x.fs.waiting.Load() == 1 })
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			waitFor(t, "the end of the request", func() bool { return x.fs.waiting.Load() == 0 })
		}
		if b, err := x.read(); err != nil || b != helloText {
			t.Errorf("read %q, %v", b, err)
		}
	})
}

// connectionFile is one of the files by which the kernel lets an administrator end a mount.
func (x *mounted) connectionFile(t *testing.T, name string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to abort a connection")
	}
	dir := "/sys/fs/fuse/connections"
	if _, err := os.Stat(fmt.Sprintf("%s/%d", dir, x.m.Minor)); err != nil {
		dir = t.TempDir()
		if err := unix.Mount("fusectl", dir, "fusectl", 0, ""); err != nil {
			t.Skipf("needs fusectl: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
	return fmt.Sprintf("%s/%d/%s", dir, x.m.Minor, name)
}

// An administrator ends the connection under the requests: who can give up does, and all clients are free at once.
func TestAbort(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		file := x.connectionFile(t, "abort")
		clients := []*exec.Cmd{x.stat(t, "slow"), x.stat(t, "patient")}
		waitFor(t, "both requests", func() bool { return x.fs.waiting.Load() == 2 })
		if err := os.WriteFile(file, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			var exit *exec.ExitError
			if err := c.Wait(); !errors.As(err, &exit) {
				t.Errorf("client: %v", err)
			}
		}
		waitFor(t, "that one gives up", func() bool { return x.fs.waiting.Load() == 1 })
		waitFor(t, "that the mount is gone", func() bool { return x.gone.Load() == 1 })
		select {
		case <-x.Done():
			t.Error("it has ended while a request is at work")
		default:
		}
		close(x.fs.release)
		x.waitEnd(t)
		if _, err := x.read(); err != unix.ENOTCONN {
			t.Errorf("read after the abort: %v", err)
		}
	})
}

// A mount that is lazily taken away under a request is served until that has its answer.
func TestLazyUnmountUnderRequest(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		c := x.stat(t, "slow")
		waitFor(t, "the request", func() bool { return x.fs.waiting.Load() == 1 })
		if err := x.m.Unmount(true); err != nil {
			t.Fatal(err)
		}
		close(x.fs.release)
		if err := c.Wait(); err != nil {
			t.Errorf("client: %v", err)
		}
		x.waitEnd(t)
	})
}

// What the kernel is told from within a request does not wait for another request that nobody reads.
func TestNotifyFromRequest(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		x := mount(t, o)
		x.fs.notifier.Store(x.m.Notifier())
		// The kernel drops the page before it is read again, so that READ and notification meet.
		script := `for i in $(seq 50); do dd if=hello iflag=nocache,direct of=/dev/null 2>/dev/null; dd of=/dev/null if=hello iflag=nocache 2>/dev/null; cat hello >/dev/null; echo $i; done; echo done`
		reader := exec.Command("bash", "-c", script)
		reader.Dir = x.dir
		out, err := reader.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := reader.Start(); err != nil {
			t.Fatal(err)
		}
		said := make(chan string, 100)
		go func() {
			defer close(said)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				said <- lines.Text()
			}
		}()
		for end := time.Now().Add(limit); ; {
			if time.Now().After(end) {
				t.Fatal("the reader waits for ever")
			}
			if _, err := sys.XattrValue(sys.At{Dirfd: unix.AT_FDCWD, Name: x.dir + "/hello"}, "user.notify"); err != nil {
				t.Fatalf("notify: %v", err)
			}
			select {
			case line, ok := <-said:
				end = time.Now().Add(limit)
				if ok && line != "done" {
					continue
				}
				if !ok {
					t.Error("the reader has ended early")
				}
				_ = reader.Wait() // it has said that it is done
				return
			default:
			}
		}
	})
}
