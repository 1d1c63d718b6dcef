package bench

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Memory is what a server holds on to, before and after every object of a large tree was looked at.
type Memory struct {
	System  string
	Objects int // in the tree
	Before  Held
	After   Held

	// Peak is the largest resident set in between, in bytes.
	Peak int64

	// FDLimit is how many descriptors the server could have had.
	FDLimit int64
}

// Held is what a process holds.
type Held struct {
	RSS int64 // bytes
	FDs int
}

// PerObject is how many bytes the resident set grew for each object of the tree.
func (m Memory) PerObject() float64 { return float64(m.After.RSS-m.Before.RSS) / float64(m.Objects) }

// millionFiles is a layer of 1,000 directories with 1,000 empty files each.
func (f *Fixtures) millionFiles() (dir string, objects int, err error) {
	dirs, files := f.count(1000), 1000
	dir, err = f.make("million", func(top string) error {
		for i := range dirs {
			if err := fillDir(filepath.Join(top, fmt.Sprintf("dir-%d", i)), files); err != nil {
				return err
			}
		}
		return nil
	})
	return dir, dirs * (files + 1), err
}

// MeasureMemory walks a tree of a million files, each object stat-ed, on those of the systems that have a server.
func MeasureMemory(systems []System, f *Fixtures, progress io.Writer) ([]Memory, error) {
	lower, objects, err := f.millionFiles()
	if err != nil {
		return nil, err
	}
	var list []Memory
	for _, sys := range systems {
		if sys.Name == Plain || sys.Name == Overlay {
			continue
		}
		fmt.Fprintf(progress, "memory of %s for %d objects\n", sys.Name, objects)
		m, err := measureMemory(sys, f, lower)
		if err != nil {
			return list, fmt.Errorf("memory of %s: %w", sys.Name, err)
		}
		m.Objects = objects
		list = append(list, m)
	}
	return list, nil
}

func measureMemory(sys System, f *Fixtures, lower string) (mem Memory, err error) {
	mem.System = sys.Name
	m, err := sys.Mount(filepath.Join(f.Dir, "mount"), []string{lower}, "")
	if err != nil {
		return mem, err
	}
	defer func() {
		if e := m.Unmount(); err == nil {
			err = e
		}
	}()
	if mem.Before, err = held(m.Pid()); err != nil {
		return mem, err
	}
	if err := walk(m.Dir); err != nil {
		return mem, err
	}
	if mem.After, err = held(m.Pid()); err != nil {
		return mem, err
	}
	if mem.Peak, err = statusBytes(m.Pid(), "VmHWM"); err != nil {
		return mem, err
	}
	mem.FDLimit, err = fdLimit(m.Pid())
	return mem, err
}

func held(pid int) (h Held, err error) {
	if h.RSS, err = statusBytes(pid, "VmRSS"); err != nil {
		return h, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	h.FDs = len(fds)
	return h, err
}

// statusBytes reads a size from /proc/PID/status, which has kibibytes.
func statusBytes(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}

func fdLimit(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			return strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("no limit of open files of process %d", pid)
}

func writeMemory(w io.Writer, list []Memory) {
	fmt.Fprint(w, "\nMemory of the server, in MiB\n")
	const mib = 1 << 20
	for _, m := range list {
		fmt.Fprintf(w, "%-16s %d objects: %.1f before, %.1f after, %.1f peak; %.0f bytes an object; %d fds before, %d after, of %d\n",
			m.System, m.Objects, float64(m.Before.RSS)/mib, float64(m.After.RSS)/mib, float64(m.Peak)/mib,
			m.PerObject(), m.Before.FDs, m.After.FDs, m.FDLimit)
	}
}
