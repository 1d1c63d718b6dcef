// Package endpoint is where metrics are served: an address as users write it, and a listener on it that others cannot
// get at by accident.
package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Address is a TCP port or a Unix socket.
type Address struct {
	Path string         // of a Unix socket; empty for a port
	Port netip.AddrPort // where Path is empty
}

// maxPath is the longest path of a socket in bytes: unix(7), sun_path without the zero byte.
const maxPath = 107

// Parse reads "unix:PATH" and "ADDRESS:PORT". The address is a number or localhost, and is not left out: who wants to be
// reached by the network says so.
func Parse(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return parsePath(path)
	}
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		return Address{}, errors.New("want unix:PATH or 127.0.0.1:PORT")
	case host == "":
		return Address{}, errors.New("no address: want 127.0.0.1:PORT, or 0.0.0.0:PORT for the whole network")
	case host == "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: want a number, 127.0.0.1 for example", host)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Address{}, fmt.Errorf("port %q: want 1 to 65535", port)
	}
	return Address{Port: netip.AddrPortFrom(ip, uint16(n))}, nil
}

func parsePath(path string) (Address, error) {
	if path == "" {
		return Address{}, errors.New("unix: has no path behind it")
	}
	if filepath.Clean(path) == "/" {
		return Address{}, errors.New("unix:/ is a directory, no socket")
	}
	return Address{Path: path}, nil
}

// Abs is the address from any working directory.
func (a Address) Abs() (Address, error) {
	if a.Path == "" {
		return a, nil
	}
	path, err := filepath.Abs(a.Path)
	return Address{Path: path}, err
}

// String is what Parse reads.
func (a Address) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.Port.String()
}

// network is what package net is to listen on. With "tcp" 0.0.0.0 would be every address of IPv6 too, which nobody has asked for.
func (a Address) network() string {
	if a.Port.Addr().Unmap().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// Local reports whether only this machine can reach it.
func (a Address) Local() bool { return a.Path != "" || a.Port.Addr().Unmap().IsLoopback() }
