package container

import (
	"context"

	api "github.com/moby/moby/api/types/container"
	mobynet "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/network"
)

// setNetwork decides on the kind of network, once: hosts and ports follow from it.
//
// Errors: ErrInvalid for one that cannot be had; the warnings say what the default has become.
func setNetwork(h *api.HostConfig) (warnings []string, err error) {
	if connected(string(h.NetworkMode)) != "" {
		return nil, nil // it is the other one's
	}
	mode, warning, err := network.ParseMode(string(h.NetworkMode))
	if err != nil {
		return nil, fail(ErrInvalid, "%s", err)
	}
	h.NetworkMode = api.NetworkMode(mode)
	if mode == network.Private {
		if err := lent(network.Device, unix.S_IROTH|unix.S_IWOTH); err != nil {
			return nil, err
		}
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if len(h.PortBindings) > 0 {
		switch mode {
		case network.None:
			return nil, fail(ErrInvalid, "ports cannot be published: the container has no network%s", because(warning))
		case network.Host:
			warnings = append(warnings, "Published ports are discarded when using host network mode")
		}
	}
	return warnings, nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// startNetwork connects the run's network. pid is in its namespace, and waits.
func (m *monitor) startNetwork(r *run, pid int) error {
	h := m.c.r.HostConfig
	if connected(string(h.NetworkMode)) != "" {
		return nil
	}
	o := network.Options{Mode: network.Mode(h.NetworkMode), Pid: pid}
	if o.Mode == network.Private {
		o.Ports = published(m.c.r.Config, h)
	}
	n, err := network.Start(context.Background(), o)
	if err != nil {
		return err
	}
	r.net = n
	m.mu.Lock()
	m.st.Ports = n.Ports
	m.mu.Unlock()
	return nil
}

// published are the ports to publish: those named, and with -P all that are exposed, on any free port each.
func published(c *api.Config, h *api.HostConfig) mobynet.PortMap {
	if !h.PublishAllPorts {
		return h.PortBindings
	}
	ports := mobynet.PortMap{}
	for p := range c.ExposedPorts {
		ports[p] = []mobynet.PortBinding{{}}
	}
	for p, b := range h.PortBindings {
		if len(b) > 0 {
			ports[p] = b
		}
	}
	return ports
}

// networkFiles are the contents of hosts and resolv.conf.
func (c *Container) networkFiles() (hosts, resolv string, err error) {
	h := c.r.HostConfig
	mode := network.Mode(h.NetworkMode)
	a, err := network.Hosts(network.HostsOptions{
		Mode: mode, Hostname: c.r.Config.Hostname, Domainname: c.r.Config.Domainname, Extra: h.ExtraHosts,
	})
	if err != nil {
		return "", "", err
	}
	var servers []string
	for _, a := range h.DNS {
		servers = append(servers, a.String())
	}
	b, err := network.ResolvConf(network.ResolvOptions{Mode: mode, DNS: servers, Search: h.DNSSearch, Opts: h.DNSOptions})
	return string(a), string(b), err
}

// Ports are the published ports of the running container. One that does not run has none, as for Docker.
func (c *Container) Ports() (mobynet.PortMap, error) {
	st, err := c.state()
	if err != nil || !st.running() {
		return nil, err
	}
	return st.Ports, nil
}

// networkSettings is what inspect shows.
func (c *Container) networkSettings(st *state) *api.NetworkSettings {
	mode := string(c.r.HostConfig.NetworkMode)
	end := &mobynet.EndpointSettings{}
	s := &api.NetworkSettings{Ports: mobynet.PortMap{}, Networks: map[string]*mobynet.EndpointSettings{mode: end}}
	if !st.running() {
		return s
	}
	for p := range c.r.Config.ExposedPorts {
		s.Ports[p] = nil
	}
	for p, b := range st.Ports {
		s.Ports[p] = b
	}
	if network.Mode(mode) == network.Private {
		end.IPAddress, end.IPPrefixLen, end.Gateway = network.PrivateIP, network.PrivatePrefixLen, network.PrivateGateway
	}
	return s
}
