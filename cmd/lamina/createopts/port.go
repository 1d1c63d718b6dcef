package createopts

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/network"
)

// parsePorts reads the values of -p ("[[IP:]PUBLIC:]PRIVATE[/PROTO]", ranges too, or "published=N,target=N,protocol=P")
// and of --expose. A published port is exposed.
func parsePorts(publish, expose []string) (network.PortSet, network.PortMap, error) {
	short, err := shortNotation(publish)
	if err != nil {
		return nil, nil, err
	}
	ports, published, err := nat.ParsePortSpecs(short)
	if err != nil {
		return nil, nil, err
	}
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for p := range ports {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return nil, nil, err
		}
		exposed[port] = struct{}{}
		for _, b := range published[p] {
			binding := network.PortBinding{HostPort: b.HostPort}
			if b.HostIP != "" {
				if binding.HostIP, err = netip.ParseAddr(b.HostIP); err != nil {
					return nil, nil, err
				}
			}
			bindings[port] = append(bindings[port], binding)
		}
	}
	for _, e := range expose {
		r, err := network.ParsePortRange(e)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			exposed[p] = struct{}{}
		}
	}
	return exposed, bindings, nil
}

// shortNotation turns "published=8080,target=80,protocol=tcp" into "8080:80/tcp" and leaves all others.
func shortNotation(values []string) ([]string, error) {
	var short []string
	for _, v := range values {
		if !strings.Contains(v, "=") {
			short = append(short, v)
			continue
		}
		field := map[string]string{"protocol": "tcp"}
		for _, kv := range strings.Split(v, ",") {
			key, value, ok := strings.Cut(kv, "=")
			if !ok || key == "" {
				return nil, fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", kv)
			}
			field[key] = value
		}
		short = append(short, field["published"]+":"+field["target"]+"/"+field["protocol"])
	}
	return short, nil
}
