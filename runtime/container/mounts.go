package container

import (
	"cmp"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/laminafs/lamina/runtime/sandbox"
)

// volumeLetters is what Docker allows in names of volumes.
var volumeLetters = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`) })

// wantedMount is a mount as it was asked for: makeDir is a bind source that -v makes when it is missing.
type wantedMount struct {
	mountRecord
	makeDir bool
}

// mountsOf reads all that asks for mounts, by destination; flags stand over what is inherited from other containers, and
// that over what the image's configuration says. New anonymous volumes get names.
//
// Errors: ErrInvalid; two mounts for one destination among the flags are one.
func mountsOf(config *api.Config, h *api.HostConfig, inherited map[string]wantedMount) ([]wantedMount, error) {
	byDest := map[string]wantedMount{}
	add := func(m wantedMount, err error) error {
		if err != nil {
			return err
		}
		if _, ok := byDest[m.Destination]; ok {
			return fail(ErrInvalid, "Duplicate mount point: %s", m.Destination)
		}
		byDest[m.Destination] = m
		return nil
	}
	for _, b := range h.Binds {
		if err := add(parseBind(b)); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Mounts {
		if err := add(parseMount(m)); err != nil {
			return nil, err
		}
	}
	for _, dest := range sortedKeys(h.Tmpfs) {
		if err := add(tmpfsMount(dest, h.Tmpfs[dest])); err != nil {
			return nil, err
		}
	}
	for dest, m := range inherited {
		if _, ok := byDest[dest]; !ok {
			byDest[dest] = m
		}
	}
	for _, dest := range sortedKeys(config.Volumes) {
		m, err := anonymousVolume(dest)
		if err != nil {
			return nil, err
		}
		if _, ok := byDest[m.Destination]; !ok {
			byDest[m.Destination] = m
		}
	}
	all := make([]wantedMount, 0, len(byDest))
	for _, dest := range sortedKeys(byDest) {
		m := byDest[dest]
		bound := m.Source
		if m.Type != mount.TypeBind {
			bound = ""
		}
		if err := sandbox.CheckProcTarget(dest, bound); err != nil {
			return nil, fail(ErrInvalid, "%v", err)
		}
		all = append(all, m)
	}
	// A mount below another one is made after it.
	slices.SortStableFunc(all, func(a, b wantedMount) int {
		return cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
	})
	return all, nil
}

// destination is a clean absolute path that is not the root.
func destination(spec, dest string) (string, error) {
	if !path.IsAbs(dest) {
		return "", fail(ErrInvalid, "invalid mount path: '%s' mount path must be absolute", dest)
	}
	if strings.IndexByte(dest, 0) >= 0 {
		return "", fail(ErrInvalid, "invalid mount path: %q", dest)
	}
	clean := path.Clean(dest)
	if clean == "/" {
		return "", fail(ErrInvalid, "invalid volume specification: '%s': destination can't be '/'", spec)
	}
	return clean, nil
}

// modeKind has the modes of -v, and what each is about: Docker takes one mode of a kind.
var modeKind = map[string]string{
	"rw": "write", "ro": "write", "z": "label", "Z": "label", "nocopy": "copy", "bind-nonrecursive": "recursive",
	"private": "propagation", "rprivate": "propagation", "slave": "propagation", "rslave": "propagation",
	"shared": "propagation", "rshared": "propagation",
	"cached": "consistency", "consistent": "consistency", "delegated": "consistency",
}

// parseBind reads -v SOURCE:DESTINATION[:MODE].
func parseBind(spec string) (wantedMount, error) {
	bad := func(why string) (wantedMount, error) {
		return wantedMount{}, fail(ErrInvalid, "invalid volume specification: '%s'%s", spec, why)
	}
	f := strings.Split(spec, ":")
	if len(f) > 3 || f[0] == "" {
		return bad("")
	}
	if len(f) == 1 {
		return anonymousVolume(f[0])
	}
	dest, err := destination(spec, f[1])
	if err != nil {
		return wantedMount{}, err
	}
	m := wantedMount{mountRecord: mountRecord{MountPoint: api.MountPoint{
		Source: f[0], Destination: dest, RW: true, Propagation: mount.PropagationRPrivate,
	}}}
	recursive, copyUp, propagation := true, true, mount.PropagationRPrivate
	if len(f) == 3 {
		m.Mode = f[2]
		given := map[string]bool{}
		for _, o := range strings.Split(f[2], ",") {
			kind := modeKind[o]
			if kind == "" || given[kind] {
				return bad(": invalid mode: " + f[2])
			}
			given[kind] = true
			switch o {
			case "ro":
				m.RW = false
			case "nocopy":
				copyUp = false
			case "bind-nonrecursive":
				recursive = false
			case "slave", "rslave":
				propagation = mount.Propagation(o)
			case "shared", "rshared":
				return bad(notShared)
			}
		}
	}
	if path.IsAbs(f[0]) {
		if !copyUp {
			return bad(": nocopy is for a volume")
		}
		m.Type, m.Source, m.makeDir, m.Propagation = mount.TypeBind, filepath.Clean(f[0]), true, propagation
	} else {
		if !volumeLetters().MatchString(f[0]) {
			return wantedMount{}, fail(ErrInvalid, "%q includes invalid characters for a local volume name, only "+
				"[a-zA-Z0-9][a-zA-Z0-9_.-] are allowed. If you intended to pass a host directory, use absolute path", f[0])
		}
		m.Type, m.Name, m.Source, m.Driver, m.Populate = mount.TypeVolume, f[0], "", "local", copyUp
		if propagation != mount.PropagationRPrivate {
			return bad(": a volume has no propagation")
		}
		m.Propagation, propagation = "", mount.PropagationRPrivate
	}
	m.Options = bindOptions(m.RW, recursive, propagation)
	return m, nil
}

// notShared is why a bind is no peer of what it shows.
const notShared = ": shared propagation cannot be had: the machine never sees what is mounted in a container; with rslave a " +
	"container sees what is mounted on the machine"

func bindOptions(rw, recursive bool, propagation mount.Propagation) []string {
	o := []string{"rbind", string(propagation)}
	if !recursive {
		o[0] = "bind"
	}
	if !rw {
		return append(o, "ro")
	}
	return append(o, "rw")
}

// anonymousVolume is -v DESTINATION, or a volume of the image.
func anonymousVolume(dest string) (wantedMount, error) {
	clean, err := destination(dest, dest)
	if err != nil {
		return wantedMount{}, err
	}
	return wantedMount{mountRecord: mountRecord{
		MountPoint: api.MountPoint{Type: mount.TypeVolume, Name: newID(), Destination: clean, Driver: "local", RW: true},
		Anonymous:  true, Populate: true, Options: bindOptions(true, true, mount.PropagationRPrivate),
	}}, nil
}

// parseMount reads --mount.
func parseMount(spec mount.Mount) (wantedMount, error) {
	bad := func(format string, args ...any) (wantedMount, error) {
		return wantedMount{}, fail(ErrInvalid, "invalid mount config for type %q: "+format, append([]any{string(spec.Type)}, args...)...)
	}
	if spec.Target == "" {
		return bad("field Target must not be empty")
	}
	dest, err := destination(spec.Target, spec.Target)
	if err != nil {
		return wantedMount{}, err
	}
	m := wantedMount{mountRecord: mountRecord{MountPoint: api.MountPoint{
		Type: spec.Type, Destination: dest, RW: !spec.ReadOnly,
	}}}
	switch spec.Type {
	case mount.TypeBind:
		if spec.Source == "" {
			return bad("field Source must not be empty")
		}
		if !path.IsAbs(spec.Source) {
			return bad("invalid mount path: '%s' mount path must be absolute", spec.Source)
		}
		recursive := true
		m.Source, m.Propagation = filepath.Clean(spec.Source), mount.PropagationRPrivate
		if o := spec.BindOptions; o != nil {
			switch o.Propagation {
			case "", mount.PropagationPrivate, mount.PropagationRPrivate:
			case mount.PropagationSlave, mount.PropagationRSlave:
				m.Propagation = o.Propagation
			default:
				return bad("propagation %s%s", o.Propagation, notShared)
			}
			recursive, m.makeDir = !o.NonRecursive, o.CreateMountpoint
		}
		m.Options = bindOptions(m.RW, recursive, m.Propagation)
		if o := spec.BindOptions; o != nil && o.ReadOnlyNonRecursive {
			if m.RW {
				return bad("mount options conflict: ReadOnlyNonRecursive && !ReadOnly")
			}
			m.Options = append(m.Options, "ro-non-recursive")
		}
	case mount.TypeVolume:
		if spec.Source != "" && !volumeLetters().MatchString(spec.Source) {
			return bad("volume name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", spec.Source)
		}
		m.Name, m.Driver, m.Populate = spec.Source, "local", true
		if spec.Source == "" {
			m.Name, m.Anonymous = newID(), true
		}
		if o := spec.VolumeOptions; o != nil {
			if o.DriverConfig != nil && o.DriverConfig.Name != "" && o.DriverConfig.Name != "local" {
				return bad("volume driver %q: only local", o.DriverConfig.Name)
			}
			if o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
				return bad("subpath %q leads out of the volume", o.Subpath)
			}
			m.Populate, m.Subpath, m.VolumeLabels = !o.NoCopy, o.Subpath, o.Labels
			if o.DriverConfig != nil {
				m.VolumeOptions = o.DriverConfig.Options
			}
		}
		m.Options = bindOptions(m.RW, true, mount.PropagationRPrivate)
	case mount.TypeTmpfs:
		if spec.Source != "" {
			return bad("field Source must not be specified")
		}
		var opts []string
		if o := spec.TmpfsOptions; o != nil {
			if o.SizeBytes > 0 {
				opts = append(opts, "size="+strconv.FormatInt(o.SizeBytes, 10))
			}
			if o.Mode != 0 {
				opts = append(opts, "mode="+strconv.FormatUint(uint64(o.Mode&0o7777), 8)) // bits as chmod(2) has them, not as Go
			}
			for _, kv := range o.Options {
				opts = append(opts, strings.Join(kv, "="))
			}
		}
		if spec.ReadOnly {
			opts = append(opts, "ro")
		}
		return tmpfsMount(dest, strings.Join(opts, ","))
	default:
		return bad("mount type unknown or not supported: want bind, volume or tmpfs")
	}
	return m, nil
}

// tmpfsMount is --tmpfs DESTINATION[:OPTIONS], with Docker's defaults.
func tmpfsMount(dest, options string) (wantedMount, error) {
	clean, err := destination(dest, dest)
	if err != nil {
		return wantedMount{}, err
	}
	m := wantedMount{mountRecord: mountRecord{
		MountPoint: api.MountPoint{Type: mount.TypeTmpfs, Destination: clean, Mode: options, RW: true},
		Options:    []string{"noexec", "nosuid", "nodev", "rprivate"},
	}}
	for _, o := range strings.Split(options, ",") {
		key, _, _ := strings.Cut(o, "=")
		switch key {
		case "":
			continue
		case "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "noexec", "nosuid", "nodev", "noatime", "relatime", "strictatime":
		case "ro", "rw": // of several the last one counts, as in the sandbox
			m.RW = key == "rw"
			m.Options = slices.DeleteFunc(m.Options, func(s string) bool { return s == "ro" || s == "rw" })
		case "exec", "suid", "dev":
			m.Options = slices.DeleteFunc(m.Options, func(s string) bool { return s == "no"+key })
		default:
			return wantedMount{}, fail(ErrInvalid, "invalid tmpfs option %q", o)
		}
		if !slices.Contains(m.Options, o) {
			m.Options = append(m.Options, o)
		}
	}
	return m, nil
}
