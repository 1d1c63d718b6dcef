package network

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dnsEnv is set in the process that has a machine of its own: a network, and a resolv.conf.
const dnsEnv = "LAMINA_NETWORK_DNS"

// The forwarder asks the machine's name server also where that listens on the machine's loopback, which the container does
// not reach otherwise.
func TestForwarderReachesLoopbackServer(t *testing.T) {
	if os.Getenv(dnsEnv) != "" {
		eachTool(t, forwarderReaches)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, or root of a user namespace: TestInUserNamespace runs it there")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip, for a machine with a route")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestForwarderReachesLoopbackServer$", "-test.v")
	cmd.Env = append(os.Environ(), dnsEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

func forwarderReaches(t *testing.T, tool string) {
	if tool == tools[0] {
		makeMachine(t)
	}
	server, err := net.ListenPacket("udp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			_, _ = server.WriteTo(append([]byte("answer to "), buf[:n]...), from) // the client tells
		}
	}()
	c := start(t, "dial udp4 10.0.2.3:53 20")
	started(t, Options{Mode: Private, Tool: tool, Pid: c.Process.Pid})
	if got := c.say(); got != "answer to ping" {
		t.Errorf("the forwarder says %q", got)
	}
}

// makeMachine sets up the network and the resolv.conf of this process's namespaces.
func makeMachine(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, resolvFile, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs to mount over %s: %v", resolvFile, err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "wan", "type", "veth", "peer", "name", "peer"},
		{"address", "add", "192.0.2.7/24", "dev", "wan"},
		{"link", "set", "wan", "up"},
		{"link", "set", "peer", "up"},
		{"route", "add", "default", "via", "192.0.2.1", "dev", "wan"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
}
