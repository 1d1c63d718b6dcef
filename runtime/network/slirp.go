package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// startSlirp runs slirp4netns(1). Its descriptors: 3 says that it is ready, 4 that it should end, 5 is the namespace.
func (n *Network) startSlirp(ctx context.Context, path string, o *Options, ns *os.File, forwards []forward) error {
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer readyR.Close()
	exitR, exitW, err := os.Pipe()
	if err != nil {
		_ = readyW.Close() // nothing was written
		return fmt.Errorf("pipe: %w", err)
	}
	n.stop = func() { _ = exitW.Close() } // the closing is the message

	args := []string{"--configure", "--mtu=" + strconv.Itoa(o.MTU), "--enable-sandbox", "--enable-seccomp",
		"--ready-fd=3", "--exit-fd=4", "--netns-type=path"}
	if !o.HostLoopback {
		args = append(args, "--disable-host-loopback")
	}
	socket := ""
	if len(forwards) > 0 {
		// The socket is needed for a moment only. /tmp keeps its path below the 108 bytes of a socket's address.
		dir, remove, err := scratch()
		if err != nil {
			_, _ = readyW.Close(), exitR.Close() // nothing was written
			n.stop()
			return err
		}
		defer remove()
		socket = filepath.Join(dir, "api")
		args = append(args, "--api-socket="+socket)
	}
	cmd := exec.Command(path, append(args, "/proc/self/fd/5", "tap0")...)
	cmd.ExtraFiles = []*os.File{readyW, exitR, ns}
	err = n.run(cmd)
	_ = readyW.Close() // the tool has its own
	_ = exitR.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", n.Tool, err)
	}
	if err := n.waitReady(ctx, readyR); err != nil {
		return err
	}
	for _, f := range forwards {
		if err := slirpForward(ctx, socket, f); err != nil {
			return err
		}
	}
	return nil
}

// slirpRequest and slirpReply are the messages of its API (slirp4netns(1), "API SOCKET").
type slirpRequest struct {
	Execute   string         `json:"execute"`
	Arguments slirpArguments `json:"arguments"`
}

type slirpArguments struct {
	Proto     string `json:"proto"`
	HostAddr  string `json:"host_addr"`
	HostPort  uint16 `json:"host_port"`
	GuestAddr string `json:"guest_addr"`
	GuestPort uint16 `json:"guest_port"`
}

type slirpReply struct {
	Error *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

// slirpForward publishes one port: one connection each, its request ended by a shutdown.
func slirpForward(ctx context.Context, socket string, f forward) error {
	if !f.host.Addr().Is4() {
		return fmt.Errorf("bind for %s failed: slirp4netns publishes on IPv4 addresses only", f.host)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("slirp4netns: %w", err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return fmt.Errorf("slirp4netns: %w", err)
		}
	}
	request := slirpRequest{Execute: "add_hostfwd", Arguments: slirpArguments{
		Proto: string(f.proto), HostAddr: f.host.Addr().String(), HostPort: f.host.Port(),
		GuestAddr: PrivateIP.String(), GuestPort: f.container,
	}}
	if err := json.NewEncoder(c).Encode(request); err != nil {
		return fmt.Errorf("slirp4netns: publish %s: %w", f, err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return fmt.Errorf("slirp4netns: publish %s: %w", f, err)
	}
	var reply slirpReply
	if err := json.NewDecoder(c).Decode(&reply); err != nil {
		return fmt.Errorf("slirp4netns: publish %s: %w", f, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("bind for %s failed: %s", f.host, reply.Error.Desc)
	}
	return nil
}
