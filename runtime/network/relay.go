package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// relayIdle is how long a client of a relay may be silent before it is forgotten; Docker's proxy waits as long.
const relayIdle = 90 * time.Second

// relayClients bounds the sockets of one published port.
const relayClients = 1024

// relay publishes one UDP port: packets go between a socket on the machine and one in the container for each client.
//
// The tools cannot do that for clients on the machine itself. They show the machine's loopback as the gateway's address,
// and drop the answer that goes there unless the container may reach the machine's loopback (libslirp 4.7, with
// --disable-host-loopback; passt of 2023, with --no-map-gw). The container sees its own address as every client's.
type relay struct {
	host      *net.UDPConn
	container netip.AddrPort
	in        *inside

	mu      sync.Mutex // guards what follows
	clients map[netip.AddrPort]*relayClient
	closed  bool
}

// relayClient is one client, and its socket in the container.
type relayClient struct {
	conn *net.UDPConn
	oob  []byte // the address that the client sent to, as a control message; answers come from there
}

// startRelays publishes the UDP ports among the forwards, and returns the others.
func (n *Network) startRelays(ctx context.Context, ns *os.File, forwards []forward) (others []forward, err error) {
	for _, f := range forwards {
		if f.proto != network.UDP {
			others = append(others, f)
			continue
		}
		if n.in == nil {
			if n.in, err = enter(ns); err != nil {
				return nil, err
			}
		}
		r, err := listenRelay(ctx, n.in, f)
		if err != nil {
			return nil, err
		}
		n.relays = append(n.relays, r)
	}
	return others, nil
}

func listenRelay(ctx context.Context, in *inside, f forward) (*relay, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, udpFamily(f.host.Addr()), f.host.String())
	if err != nil {
		return nil, bindError(f, err)
	}
	r := &relay{host: c.(*net.UDPConn), container: netip.AddrPortFrom(PrivateIP, f.container), in: in,
		clients: map[netip.AddrPort]*relayClient{}}
	if err := wantPktinfo(r.host, f.host.Addr().Is4()); err != nil {
		_ = c.Close() // nothing was written
		return nil, fmt.Errorf("bind for %s failed: %w", f.host, err)
	}
	return r, nil
}

// wantPktinfo has every packet tell which of the machine's addresses it was sent to (ip(7), ipv6(7)).
func wantPktinfo(c *net.UDPConn, v4 bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		if v4 {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	}); err != nil {
		return err
	}
	return set
}

// serve passes packets on to the container until the relay is closed. What cannot be passed on is lost, as packets are.
func (r *relay) serve() {
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for {
		n, nn, _, from, err := r.host.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // what an earlier answer met
		}
		if err != nil {
			return // closed
		}
		if c := r.client(from, oob[:nn]); c != nil {
			_, _ = c.Write(buf[:n]) // lost
		}
	}
}

// client is the socket in the container for a client; made for a new one.
func (r *relay) client(from netip.AddrPort, oob []byte) *net.UDPConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.clients[from]; ok {
		c.oob = append(c.oob[:0], oob...)
		return c.conn
	}
	if r.closed || len(r.clients) >= relayClients {
		return nil
	}
	var conn *net.UDPConn
	var err error
	r.in.do(func() { conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.container)) })
	if err != nil {
		return nil
	}
	c := &relayClient{conn: conn, oob: append([]byte(nil), oob...)}
	r.clients[from] = c
	go r.answer(from, c)
	return conn
}

// answer passes the container's packets back until nothing has come for a while.
func (r *relay) answer(to netip.AddrPort, c *relayClient) {
	defer func() {
		r.mu.Lock()
		delete(r.clients, to)
		r.mu.Unlock()
		_ = c.conn.Close() // nothing is buffered
	}()
	buf := make([]byte, 64<<10)
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(relayIdle)); err != nil {
			return
		}
		n, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		oob := append([]byte(nil), c.oob...)
		r.mu.Unlock()
		_, _, _ = r.host.WriteMsgUDPAddrPort(buf[:n], oob, to) // lost
	}
}

func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	for _, c := range r.clients {
		_ = c.conn.Close() // ends answer
	}
	r.mu.Unlock()
	_ = r.host.Close() // ends serve
}
