package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// stageDir is where a volume is filled, beside its data.
const stageDir = "_new"

// Populate fills a new and empty volume with what the image has at the place where it is mounted: src, a directory. Owner,
// mode and times of the directory itself are taken over too. It does so once: a volume that was emptied later stays empty.
//
// The copy is made beside the data and renamed over it, so that a killed process leaves the volume as it was.
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
	empty, err := isEmpty(v.Mountpoint())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if empty {
		if skipped, err = v.fill(ctx, src); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	o.Filled = true
	if err := writeOptions(v.dir, o); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return skipped, nil
}

func (v *Volume) fill(ctx context.Context, src *os.File) (skipped []string, err error) {
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
	fd, err := unix.Open(staged, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: staged, Err: err}
	}
	dst := os.NewFile(uintptr(fd), staged)
	defer dst.Close()
	c := &copier{ctx: ctx, root: fd, links: map[inode]string{}}
	if err := c.directory(int(src.Fd()), fd, ""); err != nil {
		return nil, err
	}
	// os.Rename refuses a directory that is there; the kernel takes the place of an empty one.
	if err := unix.Rename(staged, v.Mountpoint()); err != nil {
		return nil, &os.LinkError{Op: "rename", Old: staged, New: v.Mountpoint(), Err: err}
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
