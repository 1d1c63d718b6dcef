package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// killTimeout is how long killed processes may take to end. One that waits for a dead disk or server does not end at all.
const killTimeout = 10 * time.Second

// Kill ends all processes of the group and of groups below it with SIGKILL, frozen ones too, and returns when they are
// gone.
//
// Errors: of the kernel where a process may not be killed, or one that names those which did not end in 10 s.
func (g *Group) Kill() error {
	if len(g.place.Paths) == 0 {
		return nil
	}
	deadline := time.Now().Add(killTimeout)
	for {
		pids, err := g.Pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: processes %v do not end", g.Path(), pids)
		}
		if err := g.killOnce(pids); err != nil {
			return err
		}
	}
}

// killOnce kills what is there and waits a moment for its end; others may have been started meanwhile.
func (g *Group) killOnce(pids []int) error {
	fds, err := g.pidfds(pids)
	defer func() {
		for _, p := range fds {
			_ = unix.Close(int(p.Fd)) // nothing was written
		}
	}()
	if err != nil {
		return err
	}
	if err := g.signal(fds); err != nil {
		return err
	}
	for _, p := range fds {
		if _, err := unix.Poll([]unix.PollFd{p}, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cgroup: poll: %w", err)
		}
	}
	return nil
}

// signal kills by cgroup.kill (5.14 and newer), which nobody outruns by forking. Where that is not, the group is frozen, so
// that nobody forks meanwhile, and each process signalled. What v1's freezer holds dies only when it is let go.
func (g *Group) signal(fds []unix.PollFd) error {
	dir, ok := g.place.Paths[unified]
	atOnce := ok && cgroups.WriteFile(dir, "cgroup.kill", "1") == nil
	if atOnce && g.v2() {
		return nil // reaches what is frozen too
	}
	if g.noFreezer() == "" {
		if !atOnce {
			g.freeze(cgroups.Frozen)
		}
		defer g.freeze(cgroups.Thawed)
	}
	if atOnce {
		return nil
	}
	for _, p := range fds {
		if err := unix.PidfdSendSignal(int(p.Fd), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cgroup %s: kill: %w", g.Path(), err)
		}
	}
	return nil
}

// pidfds opens processes of the group. A pid may have passed to another process between the listing and the opening, so
// only those that are still listed after it count.
func (g *Group) pidfds(pids []int) (fds []unix.PollFd, err error) {
	opened := map[int]int{}
	for _, pid := range pids {
		if pid == 0 {
			continue // of another pid namespace: cgroup.kill reaches it
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err == nil {
			opened[pid] = fd
		} else if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) {
			for _, fd := range opened {
				_ = unix.Close(fd) // nothing was written
			}
			return nil, fmt.Errorf("cgroup %s: pidfd_open %d: %w", filepath.Base(g.Path()), pid, err)
		}
	}
	still, err := g.Pids()
	for pid, fd := range opened {
		if err != nil || !slices.Contains(still, pid) {
			_ = unix.Close(fd) // nothing was written
			continue
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return fds, err
}

// freeze tries: Kill tells what did not end.
func (g *Group) freeze(state cgroups.FreezerState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.mgr.Freeze(state)
}
