package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/image"
)

// CreateOptions are what a container is made of.
type CreateOptions struct {
	// Name, without a slash; empty for a random one like "brave_lovelace".
	Name string

	// Config as Docker's client fills it from flags; what is empty comes from the image. Config.Image names the image,
	// which is in the store; empty with Rootfs. AttachStdin/out/err, OpenStdin, StdinOnce and Tty as docker run sets them.
	Config *api.Config

	// HostConfig as Docker's client fills it from flags. NetworkMode is "host", "none", "private", "container:NAME" or ""
	// (private where that is possible, otherwise none with a warning). UsernsMode is "" or "host" (none of its own), "private" (one of
	// its own, see UIDMap), "keep-id" (the caller's own IDs are seen as they are outside).
	HostConfig *api.HostConfig

	// Rootfs are directories to use instead of an image, the topmost first; "/" is possible. They are never written to.
	Rootfs []string

	// UIDMap and GIDMap are --uidmap and --gidmap: a user namespace of its own with these IDs. Only one of them given
	// stands for both. HostID counts in the namespace of the caller.
	UIDMap, GIDMap []specs.LinuxIDMapping
}

// Create makes a container, which does not run yet. The warnings are for the user.
//
// Errors: ErrConflict for a name in use, ErrInvalid for options that contradict each other or that cannot be had here
// (the message says why); outside those of Expect's monitor. Nothing is left behind.
func (s *Store) Create(ctx context.Context, o CreateOptions) (c *Container, warnings []string, err error) {
	if o.Name != "" {
		o.Name = strings.TrimPrefix(o.Name, "/")
		if err := checkName(o.Name); err != nil {
			return nil, nil, err
		}
	}
	r, wanted, warnings, err := s.newRecord(o)
	if err != nil {
		return nil, nil, err
	}
	lock, err := s.reserve(r)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	c = &Container{s: s, r: r}
	defer func() {
		if err != nil {
			c = nil
			err = errors.Join(err, s.sweepLocked(r.ID))
		}
	}()
	if err := faultReserved.Hit(); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(s.makeSources(wanted), faultSources.Hit()); err != nil {
		return nil, nil, err
	}
	if _, err := s.images.NewMount(r.ID, digest.Digest(r.ImageID), r.Rootfs...); err != nil {
		return nil, nil, err
	}
	if err := errors.Join(ctx.Err(), s.expectOutside(), faultLayers.Hit()); err != nil {
		return nil, nil, err
	}
	if err := os.Rename(filepath.Join(c.dir(), creatingFile), filepath.Join(c.dir(), configFile)); err != nil {
		return nil, nil, err
	}
	_ = faultCreated.Hit() // it is made: nothing can fail any more
	return c, warnings, nil
}

// newRecord is all of the container but its name. Nothing is made yet.
func (s *Store) newRecord(o CreateOptions) (*record, []wantedMount, []string, error) {
	if err := checkText(o.Config, o.HostConfig, o.Rootfs); err != nil {
		return nil, nil, nil, err
	}
	config, host := clone(o.Config), clone(o.HostConfig)
	r := &record{
		Version: recordVersion, ID: s.nextID(), Name: o.Name, Created: time.Now().UTC(),
		Config: config, HostConfig: host, RemoveVolumes: host.AutoRemove,
	}
	var err error
	if host.SecurityOpt, err = inlineSeccomp(host.SecurityOpt); err != nil {
		return nil, nil, nil, err
	}
	if err := s.shareNamespaces(config, host); err != nil {
		return nil, nil, nil, err
	}
	if err := s.setImage(r, o.Rootfs); err != nil {
		return nil, nil, nil, err
	}
	fillHost(host)
	if err := check(config, host); err != nil {
		return nil, nil, nil, err
	}
	if _, err := commandLine(config); err != nil {
		return nil, nil, nil, err
	}
	if config.NetworkDisabled {
		host.NetworkMode = "none"
	}
	warnings, err := setNetwork(host)
	if err != nil {
		return nil, nil, nil, err
	}
	if config.Hostname == "" {
		config.Hostname = r.ID[:shortLength]
		if host.UTSMode.IsHost() || host.NetworkMode == "host" {
			if config.Hostname, err = os.Hostname(); err != nil {
				return nil, nil, nil, err
			}
		}
	} else if host.UTSMode.IsHost() {
		return nil, nil, nil, fail(ErrInvalid, "conflicting options: hostname and the UTS mode")
	}
	if err := r.setIDMaps(o); err != nil {
		return nil, nil, nil, err
	}
	inherited, err := s.inherited(host.VolumesFrom)
	if err != nil {
		return nil, nil, nil, err
	}
	wanted, err := mountsOf(config, host, inherited)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := s.checkVolumes(wanted); err != nil {
		return nil, nil, nil, err
	}
	for _, m := range wanted {
		r.Mounts = append(r.Mounts, m.mountRecord)
	}
	return r, wanted, warnings, nil
}

// clone is a deep copy, so that the caller's is left alone. Nil gives an empty one.
func clone[T any](from *T) *T {
	to := new(T)
	if from == nil {
		return to
	}
	b, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		panic("container: a configuration does not survive JSON: " + err.Error()) // what is on disk is JSON too
	}
	return to
}

// setImage finds image or rootfs and merges the image's configuration.
func (s *Store) setImage(r *record, rootfs []string) error {
	if len(rootfs) == 0 {
		if r.Config.Image == "" {
			return fail(ErrInvalid, "no image given, and no --rootfs")
		}
		img, err := s.images.Get(r.Config.Image)
		if err != nil {
			return err
		}
		r.ImageID = string(img.ID)
		return merge(r.Config, img.Config)
	}
	for _, dir := range rootfs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if err := lent(abs, unix.S_IROTH|unix.S_IXOTH); err != nil {
			return err
		}
		fi, err := os.Stat(abs)
		if err != nil {
			return fail(ErrInvalid, "--rootfs: %v", err)
		}
		if !fi.IsDir() {
			return fail(ErrInvalid, "--rootfs: %s is not a directory", abs)
		}
		r.Rootfs = append(r.Rootfs, abs)
	}
	return nil
}

// setIDMaps decides on a user namespace of the container's own.
func (r *record) setIDMaps(o CreateOptions) error {
	r.UIDMap, r.GIDMap = o.UIDMap, o.GIDMap
	uidFlag, gidFlag := "uidmap", "gidmap"
	if len(r.UIDMap) == 0 {
		r.UIDMap, uidFlag = r.GIDMap, gidFlag
	}
	if len(r.GIDMap) == 0 {
		r.GIDMap, gidFlag = r.UIDMap, uidFlag
	}
	mode := string(r.HostConfig.UsernsMode)
	if len(r.UIDMap) == 0 && mode != "private" && mode != "keep-id" {
		return nil
	}
	uids, gids, err := ownIDs()
	if err != nil {
		return err
	}
	switch {
	case len(r.UIDMap) > 0 && mode != "" && mode != "private":
		return fail(ErrInvalid, "--userns=%s contradicts --uidmap", mode)
	case len(r.UIDMap) > 0:
		err = cmp.Or(checkIDMap(uidFlag, r.UIDMap), checkIDMap(gidFlag, r.GIDMap),
			checkOwn(uidFlag, "user", r.UIDMap, uids), checkOwn(gidFlag, "group", r.GIDMap, gids))
	case mode == "private":
		r.UIDMap, r.GIDMap, err = privateIDs()
	case mode == "keep-id":
		r.UIDMap, r.GIDMap, err = keepIDs()
	}
	r.UIDMap, r.GIDMap = within(r.UIDMap, uids), within(r.GIDMap, gids)
	return err
}

// checkIDMap wants root of the container, without whom it has no files, and ranges that do not overlap.
func checkIDMap(flag string, m []specs.LinuxIDMapping) error {
	hasRoot := false
	for i, a := range m {
		if a.Size == 0 || uint64(a.ContainerID)+uint64(a.Size) > 1<<32 || uint64(a.HostID)+uint64(a.Size) > 1<<32 {
			return fail(ErrInvalid, "--%s %d:%d:%d: not a range of IDs", flag, a.ContainerID, a.HostID, a.Size)
		}
		hasRoot = hasRoot || a.ContainerID == 0
		for _, b := range m[:i] {
			if overlap(a.ContainerID, b.ContainerID, a.Size, b.Size) || overlap(a.HostID, b.HostID, a.Size, b.Size) {
				return fail(ErrInvalid, "--%s %d:%d:%d: overlaps another range", flag, a.ContainerID, a.HostID, a.Size)
			}
		}
	}
	if !hasRoot {
		return fail(ErrInvalid, "--%s: ID 0 is not mapped", flag)
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// reserve gives the container its name and makes its directory. The container's lock is returned held.
func (s *Store) reserve(r *record) (lock *os.File, err error) {
	names, err := s.lockNames()
	if err != nil {
		return nil, err
	}
	defer names.Close()
	taken, err := s.takenLocked()
	if err != nil {
		return nil, err
	}
	if id, ok := taken[r.Name]; ok {
		return nil, inUse(r.Name, id)
	}
	if r.Name == "" {
		r.Name = freeName(taken)
	}
	dir := filepath.Join(s.dir(), r.ID)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return nil, err
	}
	lock, err = lockPath(filepath.Join(dir, lockFile), false)
	if err == nil && r.HostConfig.AutoRemove {
		err = setVolatile(dir)
	}
	if err == nil {
		err = writeJSON(dir, creatingFile, r)
	}
	if err != nil {
		if lock != nil {
			_ = lock.Close()
		}
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return lock, nil
}

// makeSources makes new volumes, and the directories that -v names and that are missing. These stay when the container is not made
// after all: outside, they wait for what could fail yet.
func (s *Store) makeSources(wanted []wantedMount) error {
	for _, m := range wanted {
		switch m.Type {
		case mount.TypeBind:
			if err := lent(m.Source, 0); err != nil {
				return err
			}
			_, err := os.Lstat(m.Source)
			switch {
			case err == nil:
			case missing(err) && m.makeDir:
				if err := s.expectOutside(); err != nil {
					return err
				}
				if err := os.MkdirAll(m.Source, 0o755); err != nil {
					return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
				}
			case missing(err):
				return fail(ErrInvalid, "invalid mount config for type %q: bind source path does not exist: %s", "bind", m.Source)
			default:
				return err
			}
			if err := m.checkPropagation(); err != nil {
				return err
			}
		case mount.TypeVolume:
			if err := s.makeVolume(m.mountRecord); err != nil {
				return fmt.Errorf("volume %s: %w", m.Name, err)
			}
		}
	}
	return nil
}

// ordinary tells whether we run for an ordinary user, and not for root of the machine.
func ordinary() bool { return identity().UID != 0 }

// Images is the image store of the same root. It knows which images have containers.
func (s *Store) Images() *image.Store { return s.images }

// imageContainers tells the image store which containers there are.
func (s *Store) imageContainers() ([]image.Container, error) {
	all, err := s.Containers()
	if err != nil {
		return nil, err
	}
	list := make([]image.Container, 0, len(all))
	for _, c := range all {
		st, err := c.state()
		running := err != nil || st.running() // what is damaged may run
		if err := s.tell(err); err != nil {
			return nil, err
		}
		list = append(list, image.Container{ID: c.r.ID, Image: digest.Digest(c.r.ImageID), Running: running})
	}
	return list, nil
}

// removeLocked removes the container, which does not run, and with volumes those that have no name. Preconditions: the
// container's lock is held.
func (c *Container) removeLocked(volumes bool) error {
	if c.r.RemoveVolumes != volumes {
		c.r.RemoveVolumes = volumes
		if err := c.saveLocked(); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(c.dir(), configFile), filepath.Join(c.dir(), removingFile)); err != nil {
		return err
	}
	if err := faultRemoving.Hit(); err != nil {
		return err
	}
	return c.s.sweepLocked(c.r.ID)
}
