package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func (a *app) portCommand() *cobra.Command {
	cmd := command("port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container",
		between(1, 2), "container port, port", func(cmd *cobra.Command, args []string) error {
			c, err := a.container(args[0])
			if err != nil {
				return err
			}
			ports, err := c.Ports()
			if err != nil {
				return err
			}
			lines, err := portLines(ports, args[0], args[1:])
			for _, l := range lines {
				a.println(l)
			}
			return err
		})
	a.completeContainers(cmd, 1, running)
	return cmd
}

// portLines has a line for each published port, or for those of one private port, without naming that.
func portLines(ports network.PortMap, name string, want []string) ([]string, error) {
	if len(want) > 0 {
		p, err := network.ParsePort(want[0])
		if err != nil {
			return nil, err
		}
		bindings := ports[p]
		if len(bindings) == 0 {
			return nil, fmt.Errorf("no public port '%s' published for %s", p, name)
		}
		var lines []string
		for _, b := range bindings {
			lines = append(lines, hostPort(b))
		}
		return lines, nil
	}
	var private []network.Port
	for p := range ports {
		private = append(private, p)
	}
	slices.SortFunc(private, func(x, y network.Port) int {
		if x.Num() != y.Num() {
			return int(x.Num()) - int(y.Num())
		}
		return slices.Compare([]byte(x.Proto()), []byte(y.Proto()))
	})
	var lines []string
	for _, p := range private {
		for _, b := range ports[p] {
			lines = append(lines, fmt.Sprintf("%s -> %s", p, hostPort(b)))
		}
	}
	return lines, nil
}

// hostPort is an address as one would call it; no address is all of them.
func hostPort(b network.PortBinding) string {
	ip := b.HostIP
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return net.JoinHostPort(ip.String(), b.HostPort)
}
