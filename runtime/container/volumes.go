package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/volume"
)

// Volumes is the volume store of the same root.
func (s *Store) Volumes() *volume.Store { return s.volumes }

// VolumeUsers are the names of the containers that have a volume mounted, those in the making included: the
// volume.Users of Volumes().Remove and Prune.
func (s *Store) VolumeUsers(name string) (users []string, err error) {
	return s.otherUsers(name, "")
}

// otherUsers leaves one container out, which is about to go.
func (s *Store) otherUsers(name, but string) (users []string, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if id == but {
			continue
		}
		for _, file := range []string{configFile, creatingFile} {
			r := &record{}
			err := readJSON(s.dir()+"/"+id, file, r)
			if err == nil && r.mounts(name) {
				users = append(users, r.Name)
				break
			}
			if err == nil || missing(err) {
				continue
			}
			if err := s.tell(err); err != nil {
				return nil, err
			}
			users = append(users, id[:shortLength]) // it may have any volume: none goes while nobody knows
			break
		}
	}
	return users, nil
}

// mounts tells whether the container has the volume.
func (r *record) mounts(volume string) bool {
	for _, m := range r.Mounts {
		if m.Name == volume {
			return true
		}
	}
	return false
}

// makeVolume makes a volume, where there is none of that name.
func (s *Store) makeVolume(m mountRecord) error {
	labels := map[string]string{}
	maps.Copy(labels, m.VolumeLabels)
	if m.Anonymous {
		labels[volume.AnonymousLabel] = ""
	} else if _, err := s.volumes.Get(m.Name); missing(err) {
		if err := s.expectOutside(); err != nil {
			return err
		}
	}
	_, err := s.volumes.Create(m.Name, labels, m.VolumeOptions)
	return err
}

// checkVolumes gives all mounts of one volume the options and labels that are asked for with any of them, as the first of
// them makes it, and tells what is wrong with them while nothing is made yet.
//
// Errors: ErrInvalid for two mounts with different options; those of volume.Store.Check.
func (s *Store) checkVolumes(wanted []wantedMount) error {
	options, labels := map[string]map[string]string{}, map[string]map[string]string{}
	for _, m := range wanted {
		if m.Type != mount.TypeVolume {
			continue
		}
		if labels[m.Name] == nil {
			labels[m.Name] = map[string]string{}
		}
		for key, value := range m.VolumeLabels {
			if _, ok := labels[m.Name][key]; !ok {
				labels[m.Name][key] = value
			}
		}
		if o := options[m.Name]; len(o) > 0 && len(m.VolumeOptions) > 0 && !maps.Equal(o, m.VolumeOptions) {
			return fail(ErrInvalid, "volume %s: two mounts give it different options", m.Name)
		}
		if len(options[m.Name]) == 0 {
			options[m.Name] = m.VolumeOptions
		}
	}
	for _, name := range sortedKeys(options) {
		if err := s.volumes.Check(name, options[name]); err != nil {
			return err
		}
	}
	for i, m := range wanted {
		wanted[i].VolumeOptions, wanted[i].VolumeLabels = options[m.Name], labels[m.Name]
	}
	return nil
}

// removeVolume removes an anonymous volume of the container id, unless another one has taken to it by its name.
func (s *Store) removeVolume(name, id string) error {
	err := s.volumes.Remove(name, func(name string) ([]string, error) { return s.otherUsers(name, id) })
	if errors.Is(err, volume.ErrNotFound) || errors.Is(err, volume.ErrInUse) {
		return nil
	}
	return err
}

// volumeDir is where the files of a volume are. Those of a tmpfs are nowhere that others could see. Errors: volume.ErrNotFound.
func (s *Store) volumeDir(m mountRecord) (string, error) {
	v, err := s.volumes.Get(m.Name)
	if err != nil {
		return "", err
	}
	return v.Source(), nil
}

// populate fills a new volume from the image: src, a directory.
func (s *Store) populate(ctx context.Context, m mountRecord, src *os.File) error {
	v, err := s.volumes.Get(m.Name)
	if err != nil {
		return err
	}
	_, err = v.Populate(ctx, src) // what cannot be made here, devices, is left out
	return err
}

// openSubpath opens a part of a volume. Its name is a path to just that, whatever becomes of the names. What is in a volume
// is another container's to change: a link in it leads nowhere else.
func openSubpath(dir, subpath string) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openHow(root, subpath, how)
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
	case unix.EXDEV:
		return nil, fail(ErrInvalid, "subpath %q leads out of the volume", subpath)
	}
	return nil, &os.PathError{Op: "open", Path: dir + "/" + subpath, Err: err}
}
