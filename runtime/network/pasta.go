package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// pastaScript is process 1 of pasta's pid namespace: when it is killed the kernel kills pasta. pasta writes its pid file
// once all is set up, and a named pipe for that file is read by us.
const pastaScript = `"$@"; exit $?`

// startPasta runs pasta(1). Descriptor 3 is the namespace: pasta gives up its rights before it would open a path.
func (n *Network) startPasta(ctx context.Context, path string, o *Options, ns *os.File, forwards []forward) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	fifo := filepath.Join(dir, "ready")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		return fmt.Errorf("mkfifo %s: %w", fifo, err)
	}
	// Open for both, so that neither opening waits. The end of the tool is seen by Done.
	ready, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ready.Close()

	args := append([]string{"-c", pastaScript, "sh", path}, pastaArgs(o, fifo, forwards)...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.ExtraFiles = []*os.File{ns}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := n.run(cmd); err != nil {
		return fmt.Errorf("%s: %w", n.Tool, err)
	}
	n.stop = func() { _ = n.proc.Kill() } // may have ended
	go func() {
		<-n.done
		_ = ready.Close() // wakes the reader below
	}()
	return n.waitReady(ctx, ready)
}

func pastaArgs(o *Options, pidFile string, forwards []forward) []string {
	args := []string{"--foreground", "--stderr", "--config-net", "--ipv4-only", "--runas", "0:0",
		"--address", PrivateIP.String(), "--netmask", strconv.Itoa(PrivatePrefixLen), "--gateway", PrivateGateway.String(),
		"--ns-ifname", "tap0", "--mtu", strconv.Itoa(o.MTU), "--dns-forward", PrivateDNS.String(),
		"--tcp-ns", "none", "--udp-ns", "none"}
	if !o.HostLoopback {
		args = append(args, "--no-map-gw")
	}
	args = append(args, "--udp-ports", "none") // see relay
	if len(forwards) == 0 {
		args = append(args, "--tcp-ports", "none")
	}
	for _, f := range forwards {
		args = append(args, "--tcp-ports", fmt.Sprintf("%s/%d:%d", f.host.Addr(), f.host.Port(), f.container))
	}
	return append(args, "--pid", pidFile, "--netns", "/proc/self/fd/3")
}
