package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Mount is where the layers of a container are. Nothing is mounted by the store itself.
type Mount struct {
	LayersDir string // absolute; the working directory in which Lowers are short

	// Lowers are the read-only layers, topmost first, as short links relative to LayersDir ("l/XXXX"): the
	// container's init layer, and then those of its image.
	Lowers []string

	Upper  string // the container's own layer, absolute
	Work   string // laminafs's work directory, absolute
	Merged string // an empty directory to mount on, absolute
	Init   string // the init layer's directory, absolute
}

// GraphDriver is how inspect shows the mount.
func (m *Mount) GraphDriver() *storage.DriverData {
	lowers := make([]string, len(m.Lowers))
	for i, link := range m.Lowers {
		lowers[i] = filepath.Join(m.LayersDir, link)
		if to, err := os.Readlink(lowers[i]); err == nil {
			lowers[i] = filepath.Join(m.LayersDir, "l", to)
		}
	}
	return &storage.DriverData{Name: Driver, Data: map[string]string{
		"LowerDir": strings.Join(lowers, ":"), "UpperDir": m.Upper, "WorkDir": m.Work, "MergedDir": m.Merged,
	}}
}

// NewMount makes the layers of a container on an image, or, with an empty imageID, on nothing. rootfs are then the
// directories that the caller puts below the init layer (lamina run --rootfs), topmost first: the init layer fits
// itself to them.
//
// Errors: ErrNotFound where there is no such image; fs.ErrExist where the container has layers already.
func (s *Store) NewMount(containerID string, imageID digest.Digest, rootfs ...string) (_ *Mount, err error) {
	if !validContainerID(containerID) {
		return nil, fmt.Errorf("new layers of container %q: bad ID", containerID)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("new layers of container %s: %w", short(containerID), err)
		}
	}()
	var top digest.Digest
	lower := ""
	below := rootfs
	t, err := s.begin(func(t *txn) error {
		if imageID == "" {
			return nil
		}
		img, err := s.read(imageID)
		if err != nil || len(img.Chain) == 0 {
			return err
		}
		top = img.Layer()
		l, err := s.layer(top)
		if err != nil {
			return err
		}
		if lower, err = s.lower(l.CacheID); err != nil {
			return err
		}
		below = s.below(lower)
		return t.hold(top)
	})
	if err != nil {
		return nil, err
	}
	defer t.end()

	mountID := newCacheID()
	initID := mountID + "-init"
	initLink, err := t.stageMountLayer(initID, lower, func(dir int) error { return makeInitLayer(dir, below) })
	if err != nil {
		return nil, err
	}
	if lower != "" {
		lower = ":" + lower
	}
	link, err := t.stageMountLayer(mountID, "l/"+initLink+lower, func(dir int) error {
		for _, name := range []string{"work", "merged"} {
			if err := os.Mkdir(filepath.Join(t.dir, "layers", mountID, name), 0o700); err != nil {
				return err
			}
		}
		from, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: filepath.Join(t.dir, "layers", initID, "diff")}, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer sys.Close(from)
		return copyAttributes(sys.Fd(dir), sys.Fd(from))
	})
	if err != nil {
		return nil, err
	}
	files := map[string]string{"mount-id": mountID, "init-id": initID, "parent": string(top)}
	for name, text := range files {
		if text == "" {
			continue
		}
		if err := t.stage("mount/"+name, []byte(text)); err != nil {
			return nil, err
		}
	}
	err = t.commit(func() error {
		if s.exists(mountPath(containerID)) {
			return os.ErrExist
		}
		t.move("layers/"+initID, layerPath(initID))
		t.move("l/"+initLink, linkPath(initLink))
		t.move("layers/"+mountID, layerPath(mountID))
		t.move("l/"+link, linkPath(link))
		t.move("mount", mountPath(containerID))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.mount(mountID, "l/"+initLink+lower), nil
}

// below are the directories that a file lower names.
func (s *Store) below(lower string) []string {
	var dirs []string
	for link := range strings.SplitSeq(lower, ":") {
		if link != "" {
			dirs = append(dirs, s.path("layers", link))
		}
	}
	return dirs
}

// stageMountLayer stages one of the two layers of a container. fill gets its diff directory.
func (t *txn) stageMountLayer(id, lower string, fill func(dir int) error) (link string, err error) {
	link, err = t.stageLayerFolder(id)
	if err != nil {
		return "", err
	}
	if lower != "" {
		if err := t.stage("layers/"+id+"/lower", []byte(lower)); err != nil {
			return "", err
		}
	}
	dir, err := t.openDiff(id)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return link, fill(int(dir.Fd()))
}

// stageLayerFolder stages layers/<id> with an empty diff, and its short link.
func (t *txn) stageLayerFolder(id string) (link string, err error) {
	dir := filepath.Join(t.dir, "layers", id)
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return "", err
	}
	diff := filepath.Join(dir, "diff")
	if err := os.Mkdir(diff, 0o755); err != nil {
		return "", err
	}
	if err := os.Chmod(diff, 0o755); err != nil { // whatever the umask
		return "", err
	}
	link = newLink()
	if err := t.stage("layers/"+id+"/link", []byte(link)); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(t.dir, "l"), 0o710); err != nil {
		return "", err
	}
	return link, os.Symlink("../"+id+"/diff", filepath.Join(t.dir, "l", link))
}

// openDiff opens the diff directory of a staged layer.
func (t *txn) openDiff(id string) (*os.File, error) {
	return os.Open(filepath.Join(t.dir, "layers", id, "diff"))
}

func (s *Store) mount(mountID, lowers string) *Mount {
	dir := s.path(layerPath(mountID))
	return &Mount{
		LayersDir: s.LayersDir(),
		Lowers:    strings.Split(lowers, ":"),
		Upper:     filepath.Join(dir, "diff"),
		Work:      filepath.Join(dir, "work"),
		Merged:    filepath.Join(dir, "merged"),
		Init:      filepath.Join(dir+"-init", "diff"),
	}
}

// Mount returns the layers of a container. Errors: fs.ErrNotExist where it has none.
func (s *Store) Mount(containerID string) (m *Mount, err error) {
	if !validContainerID(containerID) {
		return nil, fmt.Errorf("layers of container %q: bad ID", containerID)
	}
	err = s.shared(func() error {
		mountID, err := s.mountID(containerID)
		if err != nil {
			return err
		}
		lowers, err := os.ReadFile(s.path(layerPath(mountID), "lower"))
		if err != nil {
			return err
		}
		m = s.mount(mountID, string(lowers))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("layers of container %s: %w", short(containerID), err)
	}
	return m, nil
}

func (s *Store) mountID(containerID string) (string, error) {
	b, err := os.ReadFile(s.path(mountPath(containerID), "mount-id"))
	if err != nil {
		return "", err
	}
	id := string(b)
	if !validContainerID(id) {
		return "", errMountID
	}
	return id, nil
}

// errMountID is returned when nothing tells any more which layers are a container's own: nobody waits until that is on the disk.
var errMountID = errors.New("mount-id is damaged")

// unowned lists the layers that were made for containers and are no other one's than that of the container gone; none where
// they may be another's whose mount-id is damaged too.
//
// Preconditions: the exclusive lock is held.
func (s *Store) unowned(gone string) ([]string, error) {
	containers, err := s.names("layerdb/mounts")
	if err != nil {
		return nil, err
	}
	owned := map[string]bool{}
	for _, c := range containers {
		if c == gone {
			continue
		}
		id, err := s.mountID(c)
		if errors.Is(err, errMountID) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		owned[id] = true
	}
	layers, err := s.names("layers")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, l := range layers {
		if id, ok := strings.CutSuffix(l, "-init"); ok && !owned[id] {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// RemoveMount removes the layers of a container, and those of its image that were kept for it only. A container
// without layers is no error.
func (s *Store) RemoveMount(containerID string) error {
	if !validContainerID(containerID) {
		return fmt.Errorf("remove layers of container %q: bad ID", containerID)
	}
	err := s.removeMount(containerID)
	if err != nil {
		return fmt.Errorf("remove layers of container %s: %w", short(containerID), err)
	}
	return nil
}

func (s *Store) removeMount(containerID string) error {
	t, err := s.begin(nil)
	if err != nil {
		return err
	}
	err = t.commit(func() error {
		mountID, err := s.mountID(containerID)
		if isNotExist(err) {
			return nil
		}
		own := []string{mountID}
		if errors.Is(err, errMountID) {
			own, err = s.unowned(containerID)
		}
		if err != nil {
			return err
		}
		t.trash(mountPath(containerID))
		for _, id := range own {
			t.trashLayerFolder(id)
			t.trashLayerFolder(id + "-init")
		}
		top, err := s.mountParent(containerID)
		if err != nil || top == "" {
			return nil // where it is damaged too, the next image that is removed takes what nobody needs
		}
		has, err := s.imageHas(top)
		if err == nil && !has {
			_, err = t.trashUnneeded(nil, containerID)
		}
		var d *DamagedError
		if errors.As(err, &d) {
			return nil // a layer of the image, not of the container: it stays
		}
		return err
	})
	return errors.Join(err, t.end())
}
