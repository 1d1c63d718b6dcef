package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// orphans are the processes that commands leave behind: monitors, servers. They become our children, so that their CPU
// time is ours to know.
type orphans struct {
	stay map[int]bool // those that do not end by themselves
}

const (
	// orphanLimit is how long after its command a process may still have to do. One that stays is waited for that long.
	orphanLimit = 5 * time.Second

	// killLimit is how long those that are killed may take to end.
	killLimit = 30 * time.Second
)

// adopt makes this process the one that orphans come to.
func adopt() (*orphans, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	return &orphans{stay: map[int]bool{}}, nil
}

// Adopt makes this process the one that orphans of its children come to. The function that it returns ends them, with all that
// they have started, and waits for them.
//
// Preconditions of that: no other child of this process is wanted any more.
func Adopt() (end func() error, err error) {
	o, err := adopt()
	if err != nil {
		return nil, err
	}
	return func() error {
		// Each that dies leaves us its own.
		err := poll(killLimit, func() (bool, error) {
			pids := childPids()
			for _, pid := range pids {
				o.stay[pid] = true
			}
			return len(pids) == 0, o.kill()
		})
		return errors.Join(err, o.close())
	}, nil
}

// reap waits for the orphans. One that does not end in time is not waited for again: podman keeps a process for the
// next podman.
//
// Preconditions: no command of ours runs.
func (o *orphans) reap() {
	var left []int
	err := poll(orphanLimit, func() (bool, error) {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
			delete(o.stay, pid)
		}
		left = left[:0]
		for _, pid := range childPids() {
			if !o.stay[pid] {
				left = append(left, pid)
			}
		}
		return len(left) == 0, nil
	})
	if err != nil {
		for _, pid := range left {
			o.stay[pid] = true
		}
	}
}

// kill ends those that stay. They are our children: no other process can have their numbers.
func (o *orphans) kill() error {
	for pid := range o.stay {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		delete(o.stay, pid)
	}
	return nil
}

func (o *orphans) close() error {
	if err := o.kill(); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
}

// childPids are our children, whichever of our threads they belong to.
func childPids() []int {
	var pids []int
	tasks, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is right
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // the thread is gone
		}
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
