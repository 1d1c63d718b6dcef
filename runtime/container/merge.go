package container

import (
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// merge fills what config leaves open from the image, by Docker's rules (daemon/commit.go, merge): lists of ports,
// labels, volumes and environment variables are united, and the entry point of the caller stands without the image's
// command. healthcheck and onbuild are kept as they are.
//
// Errors: ErrInvalid for an exposed port of the image that is none.
func merge(config *api.Config, image dockerspec.DockerOCIImageConfig) error {
	if config.User == "" {
		config.User = image.User
	}
	for p := range image.ExposedPorts {
		port, err := network.ParsePort(p)
		if err != nil {
			return fail(ErrInvalid, "the image exposes %q: %v", p, err)
		}
		if config.ExposedPorts == nil {
			config.ExposedPorts = network.PortSet{}
		}
		config.ExposedPorts[port] = struct{}{}
	}
	given := map[string]bool{}
	for _, e := range config.Env {
		key, _, _ := strings.Cut(e, "=")
		given[key] = true
	}
	for _, e := range image.Env {
		if key, _, _ := strings.Cut(e, "="); !given[key] {
			config.Env = append(config.Env, e)
		}
	}
	config.Labels = united(image.Labels, config.Labels)
	config.Volumes = united(image.Volumes, config.Volumes)
	if len(config.Entrypoint) == 0 {
		if len(config.Cmd) == 0 {
			config.Cmd = slices.Clone(image.Cmd)
		}
		if config.Entrypoint == nil {
			config.Entrypoint = slices.Clone(image.Entrypoint)
		}
	}
	if config.WorkingDir == "" {
		config.WorkingDir = image.WorkingDir
	}
	if config.StopSignal == "" {
		config.StopSignal = image.StopSignal
	}
	if config.Healthcheck == nil {
		config.Healthcheck = image.Healthcheck
	}
	if config.Shell == nil {
		config.Shell = slices.Clone(image.Shell)
	}
	if config.OnBuild == nil {
		config.OnBuild = slices.Clone(image.OnBuild)
	}
	return nil
}

// united is below with what above says put over it.
func united[V any](below, above map[string]V) map[string]V {
	all := maps.Clone(below)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, above)
	return all
}

// commandLine is what is executed: entry point and command.
//
// Errors: ErrInvalid where both are empty.
func commandLine(config *api.Config) ([]string, error) {
	// docker run --entrypoint="" takes the image's away.
	if len(config.Entrypoint) == 1 && config.Entrypoint[0] == "" {
		config.Entrypoint = nil
	}
	args := slices.Concat(config.Entrypoint, config.Cmd)
	if len(args) == 0 {
		return nil, fail(ErrInvalid, "no command specified")
	}
	return args, nil
}
