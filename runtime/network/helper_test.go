package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the process in the container's network; what it does is named by this variable.
const helperEnv = "LAMINA_NETWORK_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		os.Unsetenv(helperEnv)
		if err := helper(strings.Fields(what)); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(args []string) error {
	if args[0] == "connect" { // a caller of Start that is about to be killed
		return connect(args[1], args[2])
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the network is there
		return err
	}
	switch args[0] {
	case "dial":
		return dial(args[1], args[2], args[3])
	case "serve":
		return serve(args[1], args[2])
	case "interfaces":
		return interfaces()
	case "wait":
		<-time.After(5 * time.Minute)
	}
	return nil
}

func connect(tool, pid string) error {
	p, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	n, err := Start(background(), Options{Mode: Private, Tool: tool, Pid: p})
	if err != nil {
		return err
	}
	fmt.Println("tool", n.proc.Pid)
	<-time.After(5 * time.Minute)
	return nil
}

// dial asks for a line, and says it. It takes so many seconds at most; a packet, which may be lost, is sent once a second.
func dial(network, addr, seconds string) error {
	n, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	limit := time.Duration(n) * time.Second
	end := time.Now().Add(limit)
	c, err := net.DialTimeout(network, addr, limit)
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		until := end
		if again := time.Now().Add(time.Second); network == "udp4" && again.Before(end) {
			until = again
		}
		if err := c.SetDeadline(until); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "ping\n"); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if until.Before(end) && errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		fmt.Print(line)
		return err
	}
}

// serve answers one line, or one packet, with itself and whom it came from, until it is killed.
func serve(network, addr string) error {
	if network == "udp4" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		fmt.Println("serving", c.LocalAddr())
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			if _, err := c.WriteTo(append([]byte("echo "), buf[:n]...), from); err != nil {
				return err
			}
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	fmt.Println("serving", l.Addr())
	return echo(l)
}

func echo(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			_, _ = io.WriteString(c, "echo "+line) // the client tells
		}
		_ = c.Close()
	}
}

func interfaces() error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		fmt.Println(i.Name, i.Flags&net.FlagUp != 0, i.MTU, addrs)
	}
	return nil
}

// child is a helper in a network namespace of its own.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
	t     *testing.T
}

func start(t *testing.T, what string) *child {
	t.Helper()
	return startWith(t, what, syscall.CLONE_NEWNET)
}

func startWith(t *testing.T, what string, flags uintptr) *child {
	t.Helper()
	c := &child{Cmd: exec.Command("/proc/self/exe"), t: t}
	c.Env = append(os.Environ(), helperEnv+"="+what)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	c.Stderr = os.Stderr
	var err error
	if c.stdin, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // may have ended
		_ = c.Wait()         // killed, or read by the test
	})
	return c
}

// say lets the helper go on, and returns the next line that it says.
func (c *child) say() string {
	c.t.Helper()
	_ = c.stdin.Close() // the second time it is closed already
	if !c.lines.Scan() {
		c.t.Fatalf("the helper said nothing (%v)", c.lines.Err())
	}
	return c.lines.Text()
}

// need skips where a tool, or what it needs, is missing.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := choose(tool); err != nil {
		t.Skipf("needs %s: %v", tool, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, or root of a user namespace: TestInUserNamespace runs it there")
	}
}

// until polls for a condition: 20 s is how long a busy machine may take.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
