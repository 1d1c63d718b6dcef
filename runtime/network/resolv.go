package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// ResolvOptions say what a container's /etc/resolv.conf has.
type ResolvOptions struct {
	Mode   Mode
	DNS    []string // --dns: addresses, instead of the machine's
	Search []string // --dns-search, instead of the machine's; "." is none
	Opts   []string // --dns-opt, instead of the machine's
}

const (
	resolvFile = "/etc/resolv.conf"
	// systemd-resolved's list of the servers that it asks itself; /etc/resolv.conf names only its own address then.
	resolvedFile = "/run/systemd/resolve/resolv.conf"
	resolvedStub = "127.0.0.53"
)

// ResolvConf makes a container's /etc/resolv.conf, as Docker does: the machine's, less the name servers that a container
// cannot reach, with what the options say instead.
//
// Errors: an address or a search domain that is none.
func ResolvConf(o ResolvOptions) ([]byte, error) {
	host, err := os.ReadFile(resolvFile)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if c := parseResolv(host); o.Mode != Host && len(c.servers) == 1 && c.servers[0] == resolvedStub {
		if b, err := os.ReadFile(resolvedFile); err == nil {
			host = b
		}
	}
	return resolvConf(host, o)
}

// resolv is a resolv.conf(5), as far as containers go.
type resolv struct {
	servers, search, options []string
}

func parseResolv(b []byte) resolv {
	var c resolv
	for line := range strings.Lines(string(b)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.servers = append(c.servers, f[1])
		case "search", "domain": // the last one counts
			c.search = f[1:]
		case "options":
			c.options = append(c.options, f[1:]...)
		}
	}
	return c
}

func resolvConf(host []byte, o ResolvOptions) ([]byte, error) {
	for _, s := range o.DNS {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, fmt.Errorf("--dns %s: no IP address", s)
		}
	}
	for _, s := range slices.Concat(o.Search, o.Opts) {
		if s == "" || strings.ContainsAny(s, " \t\r\n#;") {
			return nil, fmt.Errorf("--dns-search, --dns-opt: bad value %q", s)
		}
	}
	if o.Mode == Host && len(o.DNS)+len(o.Search)+len(o.Opts) == 0 {
		return host, nil
	}
	c := parseResolv(host)
	if o.Mode == Private {
		c.servers = reachable(c.servers)
	}
	if len(o.DNS) > 0 {
		c.servers = o.DNS
	}
	if len(o.Search) > 0 {
		c.search = o.Search
		if slices.Equal(o.Search, []string{"."}) {
			c.search = nil
		}
	}
	if len(o.Opts) > 0 {
		c.options = o.Opts
	}
	var b bytes.Buffer
	for _, s := range c.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(c.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.search, " "))
	}
	if len(c.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.options, " "))
	}
	return b.Bytes(), nil
}

// reachable leaves the servers that a private network reaches: no loopback addresses, and no IPv6, which it does not have.
// Where that leaves none, or some that the machine prefers are gone, the forwarder asks the machine's first one.
func reachable(servers []string) []string {
	var out []string
	for _, s := range servers {
		addr, err := netip.ParseAddr(s)
		switch {
		case err != nil:
		case addr.IsLoopback() || !addr.Is4():
			if !slices.Contains(out, PrivateDNS.String()) && addr.IsLoopback() {
				out = append(out, PrivateDNS.String())
			}
		default:
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		out = []string{PrivateDNS.String()}
	}
	return out
}
