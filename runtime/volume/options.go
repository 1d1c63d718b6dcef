package volume

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Options of a volume, as Docker's local driver has them: --opt type=none --opt device=/dir --opt o=bind is a directory of
// the machine, --opt type=tmpfs --opt device=tmpfs --opt o=size=64m memory. A tmpfs here is each container's own: it
// is mounted in the container's mount namespace.

// Kinds of a Mount.
const (
	Bind  = "bind"
	Tmpfs = "tmpfs"
)

// Mount says what is mounted for a volume.
type Mount struct {
	Type    string   // Bind or Tmpfs
	Source  string   // of a bind
	Options []string // as of mount(8): "ro", "size=64m"
}

// parseOptions checks the options of a volume and says what they mean; nil is for none.
func parseOptions(opts map[string]string) (*Mount, error) {
	if len(opts) == 0 {
		return nil, nil
	}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		if key != "type" && key != "device" && key != "o" {
			return nil, fmt.Errorf("invalid option: %q: a local volume has type, device and o", key)
		}
	}
	for _, key := range []string{"type", "device"} {
		if opts[key] == "" {
			return nil, fmt.Errorf("missing required option: %q", key)
		}
	}
	var list []string
	if opts["o"] != "" {
		list = strings.Split(opts["o"], ",")
	}
	bind := slices.Contains(list, "bind") || slices.Contains(list, "rbind")
	switch {
	case bind && !filepath.IsAbs(opts["device"]):
		return nil, fmt.Errorf("invalid option device=%s: it must be an absolute path", opts["device"])
	case bind:
		return &Mount{Bind, filepath.Clean(opts["device"]), without(list, "bind", "rbind", "rw")},
			known(list, "bind", "rbind", "ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime")
	case opts["type"] == "tmpfs":
		return &Mount{Tmpfs, "", without(list, "rw")}, known(list, "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks",
			"ro", "rw", "nosuid", "nodev", "noexec", "noatime", "relatime", "strictatime")
	}
	return nil, fmt.Errorf("invalid option type=%s: only tmpfs, and none with o=bind, can be mounted here", opts["type"])
}

func without(list []string, what ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(o string) bool { return slices.Contains(what, o) })
}

func known(list []string, names ...string) error {
	for _, o := range list {
		if key, _, _ := strings.Cut(o, "="); !slices.Contains(names, key) {
			return fmt.Errorf("invalid option o=%s: it cannot be had here", o)
		}
	}
	return nil
}

// Mount is what the volume's options ask for, nil for one that is a directory of the store.
func (v *Volume) Mount() (*Mount, error) { return parseOptions(v.Options) }

// Source is the directory of the machine that a container gets: that of the store, or the one that a bind names.
func (v *Volume) Source() string {
	if m, err := v.Mount(); err == nil && m != nil && m.Type == Bind {
		return m.Source
	}
	return v.Mountpoint()
}
