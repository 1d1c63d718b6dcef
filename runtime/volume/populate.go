package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// stageDir is where a volume is filled, beside its data.
const stageDir = "_new"

// Populate fills a new and empty volume with what the image has at the place where it is mounted: src, a directory. Owner,
// mode and times of the directory itself are taken over too. It does so once: a volume that was emptied later stays empty.
//
// The copy is made beside the data and renamed over it, so that a killed process leaves the volume as it was. A directory of
// the machine (o=bind) is filled too, unless it is read-only; see fillBind.
//
// skipped are the names, relative to src, of what this user cannot make: devices. Errors leave the volume empty.
func (v *Volume) Populate(ctx context.Context, src *os.File) (skipped []string, err error) {
	dir, err := os.Open(v.dir)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	defer dir.Close()
	// Two containers may be starting: one fills it, the other waits and finds it filled.
	if err := flock(dir, unix.LOCK_EX); err != nil {
		return nil, err
	}
	o, err := v.options()
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if o.Filled {
		return nil, nil
	}
	if skipped, err = v.fill(ctx, src); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	o.Filled = true
	if err := writeOptions(v.dir, o); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return skipped, nil
}

// fill does it, if the volume is empty.
func (v *Volume) fill(ctx context.Context, src *os.File) (skipped []string, err error) {
	m, err := v.Mount()
	if err != nil {
		return nil, err
	}
	if m != nil {
		if m.Type != Bind || slices.Contains(m.Options, "ro") {
			return nil, nil
		}
		return fillBind(ctx, m.Source, src)
	}
	empty, err := isEmpty(v.Mountpoint())
	if err != nil || !empty {
		return nil, err
	}
	staged := filepath.Join(v.dir, stageDir)
	if err := sys.RemovePath(staged); err != nil { // of a killed process
		return nil, err
	}
	if err := os.Mkdir(staged, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = sys.RemovePath(staged) // the error at hand is the one to tell
		}
	}()
	if skipped, err = copyInto(ctx, sys.At{Dirfd: unix.AT_FDCWD, Name: staged}, src); err != nil {
		return nil, err
	}
	// os.Rename refuses a directory that is there; the kernel takes the place of an empty one.
	if err := unix.Rename(staged, v.Mountpoint()); err != nil {
		return nil, &os.LinkError{Op: "rename", Old: staged, New: v.Mountpoint(), Err: err}
	}
	return skipped, nil
}

// copyInto copies the tree src, and the attributes of src itself, to a directory that is there.
func copyInto(ctx context.Context, dst sys.At, src *os.File) (skipped []string, err error) {
	fd, err := sys.Open(dst, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		return nil, wrap("open", dst.Name, err)
	}
	defer sys.Close(fd)
	c := &copier{ctx: ctx, root: fd, links: map[inode]string{}}
	if err := c.directory(int(src.Fd()), fd, ""); err != nil {
		return nil, err
	}
	return c.skipped, nil
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}
