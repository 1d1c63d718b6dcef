package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// A taskFile is the "tasks" of a cgroup of v1.
type taskFile struct {
	Path string // for errors
	Fd   int
}

// tasks adds one to what init gets.
func (p *plan) tasks(f *os.File) error {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, fdFirst)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	p.config.Tasks = append(p.config.Tasks, taskFile{Path: f.Name(), Fd: p.add(fd)})
	return nil
}

// enterCgroups moves the calling thread, which is the one that executes the command: with that the process is in the
// cgroups, and its other threads are gone. What any of them allocates counts for the container from here on if this thread
// is the first one.
func (in *initProcess) enterCgroups() error {
	for _, t := range in.config.Tasks {
		_, err := unix.Write(t.Fd, []byte{'0'})
		sys.Close(t.Fd)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Path, err)
		}
	}
	return nil
}

// enterCgroup2 puts init where it could not be born.
func (c *Container) enterCgroup2() error {
	path := fmt.Sprintf("/proc/self/fd/%d/cgroup.procs", c.opts.Cgroup.Fd())
	if err := os.WriteFile(path, fmt.Append(nil, c.first.Pid()), 0); err != nil {
		return fmt.Errorf("cgroup %s: process %d: %w", c.opts.Cgroup.Name(), c.first.Pid(), err)
	}
	return nil
}
