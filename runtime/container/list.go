package container

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	mobynet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/laminafs/lamina/runtime/network"
)

// ListOptions say which containers List returns, as those of docker ps.
type ListOptions struct {
	All  bool // also those that do not run; implied by Last and by filters on status
	Last int  // the newest n, whatever their state; 0 is all
	Size bool // fill SizeRw (bytes in the upper layer) and SizeRootFs (bytes of all layers)

	// Filters has values by key; a container must match one value of every key. Keys, as docker ps has them: id, name
	// (a regular expression), label (key or key=value), exited (exit code), status, ancestor (image name or ID, also of
	// an image it was built from), before, since (a container), volume (name or destination), network (as --network has it), publish,
	// expose (port[/proto], or a range), health (none).
	Filters map[string][]string
}

// seen is a container with its state, as a filter looks at it.
type seen struct {
	*Container
	st *state
}

// List returns what docker ps shows, the newest first. Ports, Status ("Up 2 minutes") and Command are filled in.
//
// Errors: ErrInvalid for an unknown filter.
func (s *Store) List(ctx context.Context, o ListOptions) ([]api.Summary, error) {
	match, err := s.listFilter(o.Filters)
	if err != nil {
		return nil, err
	}
	all, err := s.Containers()
	if err != nil {
		return nil, err
	}
	anyState := o.All || o.Last > 0 || len(o.Filters["status"])+len(o.Filters["exited"]) > 0 ||
		len(o.Filters["before"])+len(o.Filters["since"]) > 0
	list := []api.Summary{}
	now := time.Now()
	for _, c := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		st, err := c.state()
		if missing(err) {
			continue // removed meanwhile
		}
		if err != nil {
			if err := s.tell(err); err != nil {
				return nil, err
			}
			continue
		}
		if !anyState && !st.running() || !match(seen{c, st}) {
			continue
		}
		sum := c.summary(st, now)
		if o.Size {
			if sum.SizeRw, sum.SizeRootFs, err = c.sizes(); err != nil {
				return nil, err
			}
		}
		list = append(list, sum)
		if o.Last > 0 && len(list) == o.Last {
			break
		}
	}
	return list, nil
}

// summary is one line of docker ps.
func (c *Container) summary(st *state, now time.Time) api.Summary {
	sum := api.Summary{
		ID: c.r.ID, Names: []string{"/" + c.r.Name}, Image: c.imageName(), ImageID: c.r.ImageID,
		Command: c.commandText(), Created: c.r.Created.Unix(), Ports: portList(c.r.Config.ExposedPorts, st),
		Labels: c.r.Config.Labels, State: st.Status, Status: st.text(now), Mounts: c.mountPoints(),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: c.networkSettings(st).Networks},
	}
	sum.HostConfig.NetworkMode = string(c.r.HostConfig.NetworkMode)
	return sum
}

// imageName is what the image was called, unless that name is another one's by now.
func (c *Container) imageName() string {
	if c.r.ImageID == "" {
		return strings.Join(c.r.Rootfs, ":")
	}
	img, err := c.s.images.Get(c.r.Config.Image)
	if err == nil && string(img.ID) == c.r.ImageID {
		return c.r.Config.Image
	}
	return digest.Digest(c.r.ImageID).Encoded()[:shortLength]
}

// text is the state as docker ps has it. Source: moby container/state.go, String.
func (s *state) text(now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch s.Status {
	case api.StateRunning:
		return "Up " + ago(s.StartedAt)
	case api.StatePaused:
		return "Up " + ago(s.StartedAt) + " (Paused)"
	case api.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case api.StateExited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case api.StateCreated:
		return "Created"
	}
	return string(s.Status)
}

// portList is the ports as docker ps has them: published ones, and those that are exposed only.
func portList(exposed mobynet.PortSet, st *state) []api.PortSummary {
	list := []api.PortSummary{}
	published := map[mobynet.Port]bool{}
	if st.running() {
		for p, bindings := range st.Ports {
			for _, b := range bindings {
				n, err := strconv.ParseUint(b.HostPort, 10, 16)
				if err != nil {
					continue // not published yet
				}
				ip := b.HostIP
				if !ip.IsValid() {
					ip = netip.IPv4Unspecified()
				}
				published[p] = true
				list = append(list, api.PortSummary{
					IP: ip, PrivatePort: p.Num(), PublicPort: uint16(n), Type: string(p.Proto()),
				})
			}
		}
		for p := range exposed {
			if !published[p] {
				list = append(list, api.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
			}
		}
	}
	slices.SortFunc(list, func(a, b api.PortSummary) int {
		return strings.Compare(fmt.Sprintf("%05d%s%s%05d", a.PrivatePort, a.Type, a.IP, a.PublicPort),
			fmt.Sprintf("%05d%s%s%05d", b.PrivatePort, b.Type, b.IP, b.PublicPort))
	})
	return list
}

// matcher is a filter with all its values.
type matcher func(seen) bool

// listFilter makes one matcher of all filters.
func (s *Store) listFilter(filters map[string][]string) (matcher, error) {
	var all []matcher
	for _, key := range sortedKeys(filters) {
		var anyOf []matcher
		for _, value := range filters[key] {
			m, err := s.oneFilter(key, value)
			if err != nil {
				return nil, err
			}
			anyOf = append(anyOf, m)
		}
		if key == "label" { // as Docker: of labels all must match
			all = append(all, anyOf...)
			continue
		}
		all = append(all, func(c seen) bool {
			return slices.ContainsFunc(anyOf, func(m matcher) bool { return m(c) })
		})
	}
	return func(c seen) bool {
		return !slices.ContainsFunc(all, func(m matcher) bool { return !m(c) })
	}, nil
}

func (s *Store) oneFilter(key, value string) (matcher, error) {
	switch key {
	case "id":
		return func(c seen) bool { return strings.HasPrefix(c.r.ID, value) }, nil
	case "name":
		re, err := regexp.Compile(value)
		if err != nil {
			return nil, fail(ErrInvalid, "invalid filter 'name=%s': %v", value, err)
		}
		return func(c seen) bool { return re.MatchString(c.r.Name) || re.MatchString("/"+c.r.Name) }, nil
	case "label":
		return func(c seen) bool { return hasLabel(c.r.Config.Labels, value) }, nil
	case "exited":
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, fail(ErrInvalid, "invalid filter 'exited=%s'", value)
		}
		return func(c seen) bool {
			return c.st.Status == api.StateExited && c.st.ExitCode == code
		}, nil
	case "status":
		if err := api.ValidateContainerState(api.ContainerState(value)); err != nil {
			return nil, fail(ErrInvalid, "invalid filter 'status=%s': %v", value, err)
		}
		return func(c seen) bool { return string(c.st.Status) == value }, nil
	case "ancestor":
		return s.ancestorFilter(value)
	case "before", "since":
		other, err := s.Get(value)
		if err != nil {
			return nil, err
		}
		return func(c seen) bool {
			if key == "before" {
				return c.r.Created.Before(other.r.Created)
			}
			return c.r.Created.After(other.r.Created)
		}, nil
	case "volume":
		return func(c seen) bool {
			return slices.ContainsFunc(c.r.Mounts, func(m mountRecord) bool {
				return m.Name == value || m.Destination == value || m.Source == value
			})
		}, nil
	case "network":
		if value != "" && network.IsDefault(value) {
			value = string(network.Private)
		}
		return func(c seen) bool { return string(c.r.HostConfig.NetworkMode) == value }, nil
	case "publish", "expose":
		return portFilter(key, value)
	case "restart-policy":
		return func(c seen) bool { return string(c.r.HostConfig.RestartPolicy.Name) == value }, nil
	case "health":
		return func(seen) bool { return value == "none" }, nil
	}
	return nil, fail(ErrInvalid, "invalid filter '%s'", key)
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, has := strings.Cut(want, "=")
	v, ok := labels[key]
	return ok && (!has || v == value)
}

// ancestorFilter finds the containers of an image and of those that are built on it.
func (s *Store) ancestorFilter(value string) (matcher, error) {
	img, err := s.images.Get(value)
	if err != nil {
		return func(seen) bool { return false }, nil // as Docker: no such image has no containers
	}
	return func(c seen) bool {
		if c.r.ImageID == string(img.ID) {
			return true
		}
		if c.r.ImageID == "" || len(img.Chain) == 0 {
			return false
		}
		its, err := s.images.Get(c.r.ImageID)
		return err == nil && len(its.Chain) > len(img.Chain) && its.Chain[len(img.Chain)-1] == img.Layer()
	}, nil
}

func portFilter(key, value string) (matcher, error) {
	ports, err := mobynet.ParsePortRange(value)
	if err != nil {
		return nil, fail(ErrInvalid, "invalid filter '%s=%s': %v", key, value, err)
	}
	return func(c seen) bool {
		for p := range ports.All() {
			if key == "publish" && len(c.r.HostConfig.PortBindings[p]) > 0 {
				return true
			}
			if _, ok := c.r.Config.ExposedPorts[p]; key == "expose" && ok {
				return true
			}
		}
		return false
	}, nil
}

// pruneFilter reads the filters of prune.
func pruneFilter(filters map[string][]string, now time.Time) (func(*Container) bool, error) {
	var until []time.Time
	for _, key := range sortedKeys(filters) {
		for _, v := range filters[key] {
			switch key {
			case "label", "label!":
			case "until":
				t, err := parseTime(v, now)
				if err != nil {
					return nil, err
				}
				until = append(until, t)
			default:
				return nil, fail(ErrInvalid, "invalid filter '%s'", key)
			}
		}
	}
	return func(c *Container) bool {
		for _, t := range until {
			if c.r.Created.After(t) {
				return false
			}
		}
		for _, l := range filters["label"] {
			if !hasLabel(c.r.Config.Labels, l) {
				return false
			}
		}
		for _, l := range filters["label!"] {
			if hasLabel(c.r.Config.Labels, l) {
				return false
			}
		}
		return true
	}, nil
}

// parseTime reads a point in time as Docker's filters have it: RFC 3339 or a part of it, seconds since 1970, or a
// duration back from now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(n*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fail(ErrInvalid, "invalid time or duration: %q", s)
}
