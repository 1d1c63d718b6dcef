package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/laminafs/lamina/internal/sys"
)

func background() context.Context { return context.Background() }

var tools = []string{Slirp4netns, Pasta}

// eachTool runs a test with each of the tools.
func eachTool(t *testing.T, test func(t *testing.T, tool string)) {
	for _, tool := range tools {
		t.Run(tool, func(t *testing.T) {
			need(t, tool)
			test(t, tool)
		})
	}
}

func started(t *testing.T, o Options) *Network {
	t.Helper()
	n, err := Start(background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func ports(t *testing.T, port string, b ...network.PortBinding) network.PortMap {
	t.Helper()
	p, err := network.ParsePort(port)
	if err != nil {
		t.Fatal(err)
	}
	return network.PortMap{p: b}
}

func TestNoneHasLoopbackOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, or root of a user namespace: TestInUserNamespace runs it there")
	}
	c := start(t, "interfaces")
	started(t, Options{Mode: None, Pid: c.Process.Pid})
	if got := c.say(); !strings.HasPrefix(got, "lo true") || !strings.Contains(got, "127.0.0.1/8") {
		t.Errorf("first interface: %s", got)
	}
	for c.lines.Scan() {
		if l := c.lines.Text(); strings.Contains(l, " true ") {
			t.Errorf("one more interface is up: %s", l)
		}
	}
}

func TestPrivateInterface(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		c := start(t, "interfaces")
		n := started(t, Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, MTU: 1400})
		if n.Tool != tool || n.IP != PrivateIP {
			t.Errorf("tool %s, address %s", n.Tool, n.IP)
		}
		var tap string
		for l := c.say(); ; l = c.lines.Text() {
			if strings.HasPrefix(l, "tap0 ") {
				tap = l
			}
			if !c.lines.Scan() {
				break
			}
		}
		if !strings.HasPrefix(tap, "tap0 true 1400 ") || !strings.Contains(tap, "10.0.2.100/24") {
			t.Errorf("interface: %q", tap)
		}
	})
}

// hostService answers on the machine's loopback.
func hostService(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = echo(l) }() // ends with the listener
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestHostLoopbackWhenAllowed(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		port := hostService(t)
		for allowed, seconds := range map[bool]string{true: "20", false: "2"} { // all of them where nobody answers
			c := start(t, "dial tcp4 10.0.2.2:"+port+" "+seconds)
			n := started(t, Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, HostLoopback: allowed})
			got := c.say()
			if allowed && got != "echo ping" {
				t.Errorf("allowed: %s", got)
			}
			if !allowed && !strings.HasPrefix(got, "failed:") {
				t.Errorf("not allowed: %s", got)
			}
			n.Close()
		}
	})
}

func TestPublish(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	eachTool(t, func(t *testing.T, tool string) {
		tests := []struct {
			name, port string
			b          network.PortBinding
		}{
			{"tcp", "8080/tcp", network.PortBinding{}},
			{"tcp on loopback", "8080/tcp", network.PortBinding{HostIP: loopback}},
			{"udp", "8081/udp", network.PortBinding{HostIP: loopback}},
			{"range", "8080/tcp", network.PortBinding{HostIP: loopback, HostPort: "20000-20100"}},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				number, proto, _ := strings.Cut(tt.port, "/")
				c := start(t, "serve "+proto+"4 0.0.0.0:"+number)
				n := started(t, Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, Ports: ports(t, tt.port, tt.b)})
				if got := c.say(); !strings.HasPrefix(got, "serving") {
					t.Fatal(got)
				}
				p, err := network.ParsePort(tt.port)
				if err != nil || len(n.Ports[p]) != 1 {
					t.Fatalf("published %v, %v", n.Ports, err)
				}
				got, err := ask(proto+"4", "127.0.0.1:"+n.Ports[p][0].HostPort)
				if err != nil || got != "echo ping" {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	})
}

// ask sends a line to a published port. A packet may be lost before the other side listens.
func ask(proto, addr string) (string, error) {
	var err error
	for range 10 {
		var c net.Conn
		if c, err = net.Dial(proto, addr); err != nil {
			continue
		}
		var n int
		buf := make([]byte, 100)
		_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // a connection takes one
		if _, err = c.Write([]byte("ping\n")); err == nil {
			n, err = c.Read(buf)
		}
		_ = c.Close() // the answer is read
		if err == nil {
			return strings.TrimSpace(string(buf[:n])), nil
		}
	}
	return "", err
}

func TestTakenPortIsNamed(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		port := hostService(t)
		c := start(t, "wait")
		b := network.PortBinding{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port}
		_, err := Start(background(), Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, Ports: ports(t, "80/tcp", b)})
		if want := fmt.Sprintf("bind for 127.0.0.1:%s failed: port is already allocated", port); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		b.HostPort = "5555"
		if _, err = planPorts(background(), ports(t, "80/tcp", b, b)); err == nil || !strings.Contains(err.Error(), "already allocated") {
			t.Errorf("the same port twice: %v", err)
		}
		b.HostIP = netip.MustParseAddr("203.0.113.77")
		if _, err = planPorts(background(), ports(t, "80/tcp", b)); err == nil || !strings.Contains(err.Error(), "no such address") {
			t.Errorf("a strange address: %v", err)
		}
	})
}

// TestLostPort: a port that was free when it was chosen, and is somebody else's when it is bound, is not the only one.
func TestLostPort(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		tcp := hostService(t)
		udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		for port, lost := range map[string]string{"80/tcp": tcp, "80/udp": strconv.Itoa(udp.LocalAddr().(*net.UDPAddr).Port)} {
			times := 0
			freePort = func(ctx context.Context, f forward) (netip.AddrPort, error) {
				if times++; times == 1 {
					n, err := strconv.ParseUint(lost, 10, 16)
					return netip.AddrPortFrom(f.host.Addr(), uint16(n)), err
				}
				return tryBind(ctx, f)
			}
			defer func() { freePort = tryBind }()
			c := start(t, "wait")
			local := network.PortBinding{HostIP: netip.MustParseAddr("127.0.0.1")}
			n, err := Start(background(), Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, Ports: ports(t, port, local)})
			if err != nil {
				t.Errorf("%s: %v", port, err)
				continue
			}
			if p, _ := network.ParsePort(port); times != 2 || n.Ports[p][0].HostPort == lost {
				t.Errorf("%s: chosen %d times: %v", port, times, n.Ports)
			}
			n.Close()
			// Who names one port gets that one, or none.
			times, local.HostPort = 0, lost
			if n, err := Start(background(), Options{Mode: Private, Tool: tool, Pid: c.Process.Pid, Ports: ports(t, port, local)}); err == nil || times != 1 {
				t.Errorf("%s: a port that is taken: %v after %d tries", port, err, times)
				if err == nil {
					n.Close()
				}
			}
		}
	})
}

func TestToolEnds(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		t.Run("with Close", func(t *testing.T) {
			c := start(t, "wait")
			n := started(t, Options{Mode: Private, Tool: tool, Pid: c.Process.Pid})
			pid := n.proc.Pid
			n.Close()
			n.Close()
			if alive(pid) {
				t.Errorf("%s (%d) runs on", tool, pid)
			}
			select {
			case <-n.Done():
			default:
				t.Error("Done is open after Close")
			}
		})
		t.Run("when its caller is killed", func(t *testing.T) {
			c := start(t, "wait")
			caller := startWith(t, "connect "+tool+" "+strconv.Itoa(c.Process.Pid), 0)
			said := caller.say()
			pid, err := strconv.Atoi(strings.TrimPrefix(said, "tool "))
			if err != nil {
				t.Fatal(said)
			}
			all := append(children(pid), pid)
			if err := caller.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			until(t, "the tool ends", func() bool {
				for _, p := range all {
					if alive(p) && !zombie(p) {
						return false
					}
				}
				return true
			})
		})
	})
}

// children are the processes below one.
func children(pid int) []int {
	var out []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		c, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		f := sys.ProcStat(c)
		if f == nil {
			continue
		}
		if p, _ := strconv.Atoi(f[1]); p == pid {
			out = append(append(out, c), children(c)...)
		}
	}
	return out
}

func zombie(pid int) bool {
	f := sys.ProcStat(pid)
	return f == nil || f[0] == "Z"
}

func TestScratchOfTheDeadIsRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	used, remove, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	dead, err := os.MkdirTemp("", scratchStem)
	if err != nil {
		t.Fatal(err)
	}
	other, removeOther, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	removeOther()
	for dir, there := range map[string]bool{used: true, dead: false, other: false} {
		if _, err := os.Stat(dir); (err == nil) != there {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestScratchOfOthers: the directory for temporary files is everybody's.
func TestScratchOfOthers(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	planted := func(name string) string { return filepath.Join(tmp, scratchStem+name) }
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(syscall.Mkfifo(planted("pipe"), 0o666), os.Mkdir(elsewhere, 0o755), os.Symlink(elsewhere, planted("link")),
		os.Mkdir(planted("dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	left := []string{planted("pipe"), planted("link"), elsewhere}
	if os.Geteuid() == 0 {
		if err := os.Chown(planted("dir"), 1000, 1000); err != nil {
			t.Fatal(err)
		}
		left = append(left, planted("dir"))
	}
	done := make(chan error, 1)
	go func() {
		_, remove, err := scratch()
		if err == nil {
			remove()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for who opens another user's pipe")
	}
	for _, path := range left {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestFailureTellsWhatTheToolSaid(t *testing.T) {
	eachTool(t, func(t *testing.T, tool string) {
		f := filepath.Join(t.TempDir(), "no-namespace")
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Start(background(), Options{Mode: Private, Tool: tool, NetNS: f})
		if err == nil || !strings.Contains(err.Error(), tool+" failed: ") || strings.Contains(err.Error(), "without a word") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOwnNamespaceIsRefused(t *testing.T) {
	_, err := Start(background(), Options{Mode: None, Pid: os.Getpid()})
	if err == nil || !strings.Contains(err.Error(), "is that of the machine") {
		t.Errorf("got %v", err)
	}
}

func TestTunMessages(t *testing.T) {
	dir := t.TempDir()
	if err := tunUsable(filepath.Join(dir, "tun")); err == nil || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("missing: %v", err)
	}
	if os.Geteuid() == 0 {
		return // root opens everything; TestInUserNamespace cannot either
	}
	f := filepath.Join(dir, "closed")
	if err := os.WriteFile(f, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := tunUsable(f); err == nil || !strings.Contains(err.Error(), "chmod 0666") {
		t.Errorf("closed: %v", err)
	}
}

// An ordinary user is root of a user namespace, here of one that has his own id only.
func TestInUserNamespace(t *testing.T) {
	if os.Getenv("LAMINA_NETWORK_INSIDE") != "" {
		t.Skip("needs to be outside of the user namespace")
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	uid, gid := ordinaryUser(t)
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	attr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^Test(None|Private|HostLoopback|Publish|TakenPort|LostPort|ToolEnds|Forwarder)", "-test.v")
	cmd.SysProcAttr = attr
	cmd.Env = append(os.Environ(), "LAMINA_NETWORK_INSIDE=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Error("failed in the user namespace")
	} else if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: TestPublish") {
		t.Error("nothing was published in the user namespace")
	}
}

// ordinaryUser is whom the user namespace belongs to.
func ordinaryUser(t *testing.T) (uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid()
	}
	return testUser(t)
}
