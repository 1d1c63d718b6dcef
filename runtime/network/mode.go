package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Mode is a container's kind of network.
type Mode string

const (
	Host    Mode = "host"
	None    Mode = "none"
	Private Mode = "private"
)

// The addresses of a private network; slirp4netns' own.
var (
	PrivateIP      = netip.MustParseAddr("10.0.2.100")
	PrivateGateway = netip.MustParseAddr("10.0.2.2")
	PrivateDNS     = netip.MustParseAddr("10.0.2.3")
)

const (
	PrivatePrefixLen = 24
	defaultMTU       = 65520 // bytes; as pasta, and podman for slirp4netns: frames go through memory only
)

// IsDefault tells whether a value of --network stands for the default: empty, "default", and "bridge", which is what Docker
// calls it.
func IsDefault(s string) bool { return s == "" || s == "default" || s == "bridge" }

// ParseMode reads the value of --network. The default is private where it works, else none with a warning that says why.
func ParseMode(s string) (mode Mode, warning string, err error) {
	switch m := Mode(s); {
	case m == Host, m == None:
		return m, "", nil
	case m == Private:
		if _, err := choose(""); err != nil {
			return "", "", fmt.Errorf("--network private: %w", err)
		}
		return m, "", nil
	case IsDefault(s):
		if _, err := choose(""); err != nil {
			return None, fmt.Sprintf("the container has no network: %v", err), nil
		}
		return Private, "", nil
	}
	if strings.HasPrefix(s, "container:") {
		return "", "", fmt.Errorf("--network %s: another container's network cannot be joined", s)
	}
	return "", "", fmt.Errorf("--network %s: no such network (host, none, private)", s)
}
