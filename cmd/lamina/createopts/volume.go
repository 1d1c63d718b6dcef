package createopts

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// parseVolumes sorts the values of -v: "SOURCE:TARGET[:OPTIONS]" are binds, SOURCE being a path or the name of a volume,
// and "TARGET" alone is an anonymous volume. A source that begins with a dot is relative to the working directory.
func parseVolumes(values []string) (binds []string, anonymous map[string]struct{}, err error) {
	seen := map[string]bool{}
	for _, v := range values {
		if seen[v] {
			continue
		}
		seen[v] = true
		fields := strings.Split(v, ":")
		for _, s := range fields {
			if s == "" {
				return nil, nil, fmt.Errorf("invalid spec: %s: empty section between colons", v)
			}
		}
		switch {
		case len(fields) > 3:
			return nil, nil, fmt.Errorf("invalid spec: %s: too many colons", v)
		case len(fields) == 1:
			if !path.IsAbs(v) {
				return nil, nil, fmt.Errorf("invalid volume specification: '%s': the mount path must be absolute", v)
			}
			if anonymous == nil {
				anonymous = map[string]struct{}{}
			}
			anonymous[path.Clean(v)] = struct{}{}
			continue
		case !path.IsAbs(fields[1]):
			return nil, nil, fmt.Errorf("invalid volume specification: '%s': the mount path must be absolute", v)
		}
		if strings.HasPrefix(fields[0], ".") {
			if fields[0], err = filepath.Abs(fields[0]); err != nil {
				return nil, nil, fmt.Errorf("-v %s: %w", v, err)
			}
		}
		binds = append(binds, strings.Join(fields, ":"))
	}
	return binds, anonymous, nil
}

// parseDevice reads "HOST[:CONTAINER][:PERMISSIONS]".
func parseDevice(value string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	fields := strings.Split(value, ":")
	m.PathOnHost, m.PathInContainer = fields[0], fields[0]
	switch rest := fields[1:]; {
	case len(rest) == 0:
	case len(rest) == 1 && isDeviceMode(rest[0]):
		m.CgroupPermissions = rest[0]
	case len(rest) == 1:
		m.PathInContainer = rest[0]
	case len(rest) == 2 && isDeviceMode(rest[1]):
		m.PathInContainer, m.CgroupPermissions = rest[0], rest[1]
	case len(rest) == 2:
		return m, fmt.Errorf("bad mode specified: %s", rest[1])
	default:
		return m, fmt.Errorf("bad format for path: %s", value)
	}
	if m.PathOnHost == "" {
		return m, fmt.Errorf("bad format for path: %s", value)
	}
	m.PathInContainer = path.Clean(m.PathInContainer)
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	return m, nil
}

// isDeviceMode tells whether s is some of r, w and m, each at most once.
func isDeviceMode(s string) bool {
	if s == "" || len(s) > 3 {
		return false
	}
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return true
}
