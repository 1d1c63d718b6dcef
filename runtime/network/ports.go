package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/network"
)

// forward is one published port.
type forward struct {
	proto     network.IPProtocol // TCP or UDP
	host      netip.AddrPort     // on the machine; the address may be unspecified
	container uint16
	chosen    bool // by us, of several
}

func (f forward) String() string {
	return fmt.Sprintf("%s -> %d/%s", f.host, f.container, f.proto)
}

// planPorts turns the ports asked for into forwards: a free port where none is named, the first free one of a range.
//
// Errors: Docker's text for a port that is taken.
func planPorts(ctx context.Context, ports network.PortMap) ([]forward, error) {
	var fs []forward
	keys := make([]network.Port, 0, len(ports))
	for p := range ports {
		keys = append(keys, p)
	}
	slices.SortFunc(keys, func(a, b network.Port) int { return strings.Compare(a.String(), b.String()) })
	for _, port := range keys {
		bindings := ports[port]
		if len(bindings) == 0 {
			continue // exposed, not published
		}
		if port.Proto() != network.TCP && port.Proto() != network.UDP {
			return nil, fmt.Errorf("port %s: a private network publishes tcp and udp only", port)
		}
		for _, b := range bindings {
			f, err := plan(ctx, port, b, fs)
			if err != nil {
				return nil, err
			}
			fs = append(fs, f)
		}
	}
	return fs, nil
}

// plan finds the port of the machine for one binding; taken are those found before it.
func plan(ctx context.Context, port network.Port, b network.PortBinding, taken []forward) (forward, error) {
	first, last, err := hostPorts(b.HostPort)
	if err != nil {
		return forward{}, fmt.Errorf("port %s: %w", port, err)
	}
	addr := b.HostIP
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	for p := int(first); p <= int(last); p++ {
		f := forward{proto: port.Proto(), host: netip.AddrPortFrom(addr.Unmap(), uint16(p)), container: port.Num(), chosen: first == 0 || first < last}
		if slices.ContainsFunc(taken, f.collides) {
			err = fmt.Errorf("bind for %s failed: port is already allocated", f.host)
			continue
		}
		if f.host, err = freePort(ctx, f); err == nil {
			return f, nil
		}
	}
	return forward{}, err
}

// collides reports whether both cannot be bound.
func (f forward) collides(g forward) bool {
	return f.proto == g.proto && f.host.Port() == g.host.Port() && f.host.Port() != 0 &&
		(f.host.Addr() == g.host.Addr() || f.host.Addr().IsUnspecified() || g.host.Addr().IsUnspecified())
}

// hostPorts reads "", "8080" or "8000-8010".
func hostPorts(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return 0, 0, fmt.Errorf("invalid host port %q", s)
	}
	b := a
	if ranged {
		if b, err = strconv.ParseUint(to, 10, 16); err != nil || b < a {
			return 0, 0, fmt.Errorf("invalid host port range %q", s)
		}
	}
	return uint16(a), uint16(b), nil
}

// lost tells whether a port that was chosen is somebody else's now.
func (f forward) lost(ctx context.Context) bool {
	if !f.chosen {
		return false
	}
	_, err := tryBind(ctx, f)
	return err != nil
}

// freePort is how a port is chosen; tests choose another way.
var freePort = tryBind

// tryBind binds the port and lets it go again, to tell what is wrong with it in words of our own and to learn which one the
// kernel gives for 0. The tool binds it a moment later; who is faster gets it, and the tool's error says so then.
func tryBind(ctx context.Context, f forward) (netip.AddrPort, error) {
	var lc net.ListenConfig
	var local net.Addr
	var err error
	if f.proto == network.UDP {
		var c net.PacketConn
		if c, err = lc.ListenPacket(ctx, udpFamily(f.host.Addr()), f.host.String()); err == nil {
			local = c.LocalAddr()
			err = c.Close()
		}
	} else {
		var l net.Listener
		if l, err = lc.Listen(ctx, tcpFamily(f.host.Addr()), f.host.String()); err == nil {
			local = l.Addr()
			err = l.Close()
		}
	}
	if err != nil {
		return f.host, bindError(f, err)
	}
	_, port, err := net.SplitHostPort(local.String())
	if err != nil {
		return f.host, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(f.host.Addr(), uint16(n)), err
}

func tcpFamily(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

func udpFamily(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}

func bindError(f forward, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("bind for %s failed: port is already allocated", f.host)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("bind for %s failed: ports below net.ipv4.ip_unprivileged_port_start (sysctl, 1024 by default) are root's", f.host)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("bind for %s failed: the machine has no such address", f.host)
	}
	return fmt.Errorf("bind for %s failed: %w", f.host, err)
}

// bound is what was published, for `inspect` and `port`.
func bound(fs []forward) network.PortMap {
	m := network.PortMap{}
	for _, f := range fs {
		if p, ok := network.PortFrom(f.container, f.proto); ok {
			m[p] = append(m[p], network.PortBinding{HostIP: f.host.Addr(), HostPort: strconv.Itoa(int(f.host.Port()))})
		}
	}
	return m
}
