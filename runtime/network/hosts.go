package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// HostsOptions say what a container's /etc/hosts has.
type HostsOptions struct {
	Mode       Mode
	Hostname   string
	Domainname string
	Extra      []string // --add-host: "name:address" or "name=address"; "host-gateway" is an address
}

// hostsHead is what Docker begins the file with.
const hostsHead = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// Hosts makes a container's /etc/hosts, as Docker does: the machine's own on the host's network.
func Hosts(o HostsOptions) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(hostsHead)
	if o.Mode == Host {
		if own, err := os.ReadFile("/etc/hosts"); err == nil {
			b.Reset()
			b.Write(own)
			if len(own) > 0 && own[len(own)-1] != '\n' {
				b.WriteByte('\n')
			}
		}
	}
	for _, e := range o.Extra {
		name, addr, err := ParseHost(e)
		if err != nil {
			return nil, err
		}
		if addr == "host-gateway" {
			ip, err := hostGateway(o.Mode)
			if err != nil {
				return nil, fmt.Errorf("--add-host %s: %w", e, err)
			}
			addr = ip.String()
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	if o.Hostname != "" && o.Mode != Host {
		ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if o.Mode == Private {
			ip = PrivateIP
		}
		names := o.Hostname
		if o.Domainname != "" {
			names = o.Hostname + "." + o.Domainname + " " + o.Hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, names)
	}
	return b.Bytes(), nil
}

// ParseHost reads one value of --add-host.
func ParseHost(s string) (name, addr string, err error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 {
		return "", "", fmt.Errorf("--add-host %s: bad format: name:address is wanted", s)
	}
	name, addr = s[:i], s[i+1:]
	if strings.ContainsAny(name, " \t\r\n#") {
		return "", "", fmt.Errorf("--add-host %s: bad name %q", s, name)
	}
	if addr == "host-gateway" {
		return name, addr, nil
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]"))
	if err != nil {
		return "", "", fmt.Errorf("--add-host %s: invalid IP address %q", s, addr)
	}
	return name, ip.String(), nil
}

// hostGateway is an address at which the container reaches the machine: in a private network the one that the machine has
// on its own network.
func hostGateway(m Mode) (netip.Addr, error) {
	if m == Host {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if m != Private {
		return netip.Addr{}, errors.New("the container has no network")
	}
	// Connecting a UDP socket looks up the route and sends nothing. The address is one for documentation (RFC 5737).
	c, err := net.Dial("udp4", "198.51.100.1:9")
	if err != nil {
		return netip.Addr{}, errors.New("the machine has no network address")
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
