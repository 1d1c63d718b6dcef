package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// oomWatch waits for the kernel to say that memory ran out.
type oomWatch struct {
	events  chan struct{}
	wake    *os.File // an eventfd on v1, inotify on v2; nil where nothing will ever be said
	control *os.File // what the eventfd is registered with
	once    sync.Once
}

func (w *oomWatch) close() {
	w.once.Do(func() {
		if w.wake == nil {
			close(w.events)
			return
		}
		_ = w.wake.Close() // ends runOOM, which closes events
		if w.control != nil {
			_ = w.control.Close() // read-only
		}
	})
}

// OOM returns a channel that is sent to when the kernel kills a process of the group for want of memory; several kills may
// be one event. It is closed when the group is removed. Where the memory controller is not there nothing is ever
// sent: no limit of ours can be hit then.
func (g *Group) OOM() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.oom != nil {
		return g.oom.events
	}
	events := make(chan struct{}, 1)
	w, err := g.watchOOM(events)
	if err != nil {
		w = &oomWatch{events: events}
	} else {
		go g.runOOM(w)
	}
	g.oom = w
	if g.gone {
		w.close()
	}
	return events
}

func (g *Group) watchOOM(events chan struct{}) (*oomWatch, error) {
	if g.gone || len(g.place.Paths) == 0 {
		return nil, os.ErrNotExist
	}
	if g.v2() {
		return watchEvents(filepath.Join(g.Path(), "memory.events"), events)
	}
	dir, ok := g.place.Paths["memory"]
	if !ok {
		return nil, errors.New("no memory controller")
	}
	return watchControl(dir, events)
}

// watchEvents watches memory.events, which the kernel marks as modified (cgroup-v2.rst, "Memory Interface Files").
func watchEvents(file string, events chan struct{}) (*oomWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &oomWatch{events: events, wake: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		w.close()
		return nil, fmt.Errorf("inotify %s: %w", file, err)
	}
	return w, nil
}

// watchControl registers an eventfd with memory.oom_control (cgroup-v1/memory.rst, "OOM Control").
func watchControl(dir string, events chan struct{}) (*oomWatch, error) {
	control, err := cgroups.OpenFile(dir, "memory.oom_control", os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = control.Close() // read-only
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	w := &oomWatch{events: events, wake: os.NewFile(uintptr(fd), "eventfd"), control: control}
	line := strconv.Itoa(fd) + " " + strconv.Itoa(int(control.Fd()))
	if err := cgroups.WriteFile(dir, "cgroup.event_control", line); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// runOOM passes the events on. memory.events changes for other reasons too, so on v2 the count of kills must have grown. The
// eventfd of v1 tells before anybody is killed, and once more when the group is removed.
func (g *Group) runOOM(w *oomWatch) {
	defer close(w.events)
	buf := make([]byte, 4096)
	var seen uint64
	for {
		if n, err := w.wake.Read(buf); err != nil || n == 0 {
			return
		}
		count, err := g.oomKills()
		if err != nil {
			return // removed
		}
		if g.v2() && count == seen {
			continue
		}
		seen = count
		select {
		case w.events <- struct{}{}:
		default: // nobody has taken the last one yet
		}
	}
}

// oomKills is how many processes of the group the kernel has killed for want of memory.
func (g *Group) oomKills() (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.oomKillsLocked()
}

func (g *Group) oomKillsLocked() (uint64, error) {
	if g.gone || len(g.place.Paths) == 0 {
		return g.killed, nil
	}
	if _, ok := g.place.Paths["memory"]; !ok && !g.v2() {
		return 0, nil
	}
	return g.mgr.OOMKillCount()
}

// countOOMLocked keeps the count before the directory goes.
func (g *Group) countOOMLocked() {
	if n, err := g.oomKillsLocked(); err == nil {
		g.killed = max(g.killed, n)
	}
}

// OOMKilled reports whether the kernel has killed a process of the group for want of memory; it can be asked after Remove
// too.
func (g *Group) OOMKilled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.countOOMLocked()
	return g.killed > 0
}
