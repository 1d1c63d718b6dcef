package figures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/allocs"
)

// sample has something in every field that is a pointer or a map.
func sample() *Mount {
	return &Mount{PID: 7, Mountpoint: "/m", Requests: Requests{
		Opcodes: []Opcode{{Name: "LOOKUP", Count: 3, Errors: map[string]uint64{"EIO": 1}, Latency: &Histogram{Seconds: 0.5}}},
		Notices: map[string]uint64{"INVAL_INODE": 2},
	}}
}

// listen serves the snapshot at the path it returns until the test ends.
func listen(t *testing.T, snapshot Snapshot) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.Repeat("x", 120), "figures")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/figures", dir.Fd())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	during(t, fd, func() { ServeAll(fd, snapshot) })
	return path
}

// during runs serve, which ends with its socket fd, until the test ends: it would go on with a descriptor that is another's by then.
func during(t *testing.T, fd int, serve func()) {
	done := make(chan struct{})
	go func() { defer close(done); serve() }()
	t.Cleanup(func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		<-done
		_ = unix.Close(fd)
	})
}

func TestAnswer(t *testing.T) {
	var timed atomic.Int32
	path := listen(t, func(tm bool) *Mount {
		if tm {
			timed.Add(1)
		}
		return sample()
	})
	for range 3 {
		m, err := Get(t.Context(), path, false)
		if err != nil || !reflect.DeepEqual(m, sample()) {
			t.Fatalf("got %+v, %v", m, err)
		}
	}
	if timed.Load() != 0 {
		t.Error("who asks for counts has requests timed")
	}
	if _, err := Get(t.Context(), path, true); err != nil || timed.Load() != 1 {
		t.Errorf("asked for times: %v", err)
	}
}

// dial connects to a socket whose path may be longer than an address.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A client that asks for nothing, or does not listen, holds up others for no longer than patience.
func TestRudeClients(t *testing.T) {
	m := sample()
	m.Mountpoint = strings.Repeat("x", 1<<20) // more than a socket holds
	path := listen(t, func(bool) *Mount { return m })
	for _, ask := range []string{"", "c"} {
		c := dial(t, path)
		defer c.Close()
		if _, err := c.Write([]byte(ask)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if got, err := Get(ctx, path, false); err != nil || !reflect.DeepEqual(got, m) {
		t.Error(err)
	}
}

func TestServerThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var timeout net.Error // of the question, or where this test was held up that long, of the connection
	if _, err := Get(ctx, path, false); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v", err)
	}
}

// pair is a client and the descriptor that Serve gets.
func pair(t *testing.T) (*Client, int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(p[0]), "client")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return NewClient(c), p[1]
}

// served is a client of Serve, which has ended when the test has.
func served(t *testing.T, snapshot Snapshot) *Client {
	t.Helper()
	client, fd := pair(t)
	during(t, fd, func() { Serve(fd, snapshot) })
	return client
}

// An answer that comes too late is not taken for that to the next question.
func TestLateAnswer(t *testing.T) {
	var n atomic.Int32
	hold := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := served(t, func(bool) *Mount {
		i := n.Add(1)
		if i == 1 {
			cancel() // when it has been asked
			<-hold
		}
		return &Mount{PID: int(i)}
	})
	_, err := client.Get(ctx, false)
	close(hold)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if m, err := client.Get(t.Context(), false); err != nil || m.PID != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	client, fd := pair(t)
	defer unix.Close(fd)
	asked := func() int {
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil {
			t.Error(err)
			return maxOwed
		}
		return n
	}
	for i := range maxOwed + 5 {
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			for asked() < min(i+1, maxOwed) {
				time.Sleep(time.Millisecond) // a poll
			}
			cancel()
		}()
		if _, err := client.Get(ctx, false); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		<-waited
	}
	if n := asked(); n != maxOwed {
		t.Errorf("%d questions, want %d", n, maxOwed)
	}
}

func TestNonsense(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "hello\n", "cut off": `{"PID":1`, "endless": strings.Repeat("x", maxAnswer+1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			client, fd := pair(t)
			go func() {
				_ = send(fd, []byte(text)) // the client may go first
				_ = unix.Close(fd)
			}()
			if m, err := client.Get(t.Context(), false); err == nil {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestConcurrentClients(t *testing.T) {
	client := served(t, func(bool) *Mount { return sample() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if m, err := client.Get(t.Context(), false); err != nil || !reflect.DeepEqual(m, sample()) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// fullest is a Mount with everything that there can be: every opcode, every errno of each, all numbers at their largest.
func fullest() *Mount {
	m := sample()
	m.Mountpoint = strings.Repeat("/\x01", 2048) // PATH_MAX, of what takes most in JSON
	m.Requests = Requests{Notices: map[string]uint64{}}
	for i := range 64 { // linux/fuse.h has 53
		o := Opcode{Name: fmt.Sprintf("AS_LONG_AS_ANY_%d", i), Count: math.MaxUint64, Errors: map[string]uint64{"other": math.MaxUint64},
			Latency: &Histogram{Seconds: math.MaxFloat64}}
		for e := range unix.Errno(134) {
			if name := unix.ErrnoName(e); name != "" {
				o.Errors[name] = math.MaxUint64
			}
		}
		for b := range o.Latency.Buckets {
			o.Latency.Buckets[b] = math.MaxUint64
		}
		m.Requests.Opcodes = append(m.Requests.Opcodes, o)
	}
	return m
}

// An answer has a bound, and so has what it takes to give it, however much was counted.
func TestAnswerIsBounded(t *testing.T) {
	m := fullest()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > maxAnswer/10 {
		t.Errorf("%d bytes, want at most a tenth of %d", len(text), maxAnswer)
	}
	client := served(t, func(bool) *Mount { return m })
	ask := func() {
		if got, err := client.Get(t.Context(), false); err != nil || len(got.Requests.Opcodes) != len(m.Requests.Opcodes) {
			t.Fatalf("%v", err)
		}
	}
	each := allocs.PerRun(20, ask)
	t.Logf("%d bytes of text, %d allocated", len(text), each)
	// Both ends are in this process. An ordinary answer takes a hundredth.
	if each > 8<<20 {
		t.Errorf("%d bytes are allocated for the fullest answer", each)
	}
}
