package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// makeReadonly covers a path with itself, read-only. What is not there needs no cover.
func (in *initProcess) makeReadonly(name string) error {
	target, err := in.root.open(name, unix.O_PATH)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer sys.Close(target)
	tree, err := unix.OpenTree(target, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer sys.Close(tree)
	if err := attach(tree, target); err != nil {
		return err
	}
	return setReadonly(tree, true, in.proc)
}

// maskAll hides the masked paths: a file below /dev/null, a directory below one that is empty and read-only. The
// one mount of each kind serves for all. The /dev/null is the machine's, opened and checked by the parent: the
// container's own could be anything (CVE-2025-31133).
func (in *initProcess) maskAll() error {
	masks := map[bool]*mask{false: {fd: in.config.Null}, true: {fd: -1}}
	for _, name := range in.config.Masked {
		if err := in.mask(name, masks); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// A mask is what covers one kind of masked paths.
type mask struct {
	fd       int
	attached bool
}

func (in *initProcess) mask(name string, masks map[bool]*mask) error {
	target, err := in.root.open(name, unix.O_PATH)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer sys.Close(target)
	st, err := sys.Stat(sys.Fd(target))
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	m := masks[isDir]
	if m.fd < 0 {
		o := mountOptions{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC, Data: []string{"nr_blocks=1", "nr_inodes=1"}}
		if m.fd, err = newFilesystem("tmpfs", "tmpfs", o); err != nil {
			return fmt.Errorf("tmpfs: %w", err)
		}
	}
	if m.attached {
		clone, err := unix.OpenTree(m.fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return err
		}
		defer sys.Close(clone)
		return attach(clone, target)
	}
	m.attached = true
	return attach(m.fd, target)
}
