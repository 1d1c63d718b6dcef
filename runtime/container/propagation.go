package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"
)

// slave tells whether the container sees what is mounted and unmounted below the source while it runs.
func (m mountRecord) slave() bool {
	return m.Propagation == mount.PropagationSlave || m.Propagation == mount.PropagationRSlave
}

// cutMounts is the first that a monitor does in its mount namespace, a copy of its caller's: nothing that is mounted in it
// is seen outside. What is unmounted outside goes from it too, where mounts outside are shared, as systemd makes them: a
// disk that was there when a container began could not be taken out before the container ends.
func cutMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount propagation: %w", err)
	}
	return nil
}

// checkPropagation refuses a slave of what tells nothing, as Docker does. Preconditions: the source is there.
func (m *mountRecord) checkPropagation() error {
	if !m.slave() {
		return nil
	}
	source, err := filepath.EvalSymlinks(m.Source)
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.ParentsFilter(source))
	if err != nil {
		return err
	}
	var on *mountinfo.Info
	for _, i := range mounts {
		if on == nil || len(i.Mountpoint) >= len(on.Mountpoint) { // of two in one place the later one is seen
			on = i
		}
	}
	if on == nil || !strings.Contains(on.Optional, "shared:") && !strings.Contains(on.Optional, "master:") {
		at := "/"
		if on != nil {
			at = on.Mountpoint
		}
		return fail(ErrInvalid, "path %s is mounted on %s but it is not a shared or slave mount", m.Source, at)
	}
	return nil
}
