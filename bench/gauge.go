package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTicks is the machine's CPU time, of all CPUs.
type cpuTicks struct{ busy, steal time.Duration }

// tick is the resolution of /proc/stat: USER_HZ is 100 on every architecture that Go knows.
const tick = 10 * time.Millisecond

// readTicks reads the first line of /proc/stat (proc_stat(5)).
func readTicks() (c cpuTicks, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	for i, field := range strings.Fields(strings.TrimPrefix(string(line), "cpu")) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return c, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 0, 1, 2, 5, 6: // user, nice, system, irq, softirq
			c.busy += time.Duration(n) * tick
		case 7:
			c.steal += time.Duration(n) * tick
		}
	}
	return c, nil
}

// selfCPU is the CPU time of this process and of all children that have been waited for, and theirs.
func selfCPU() (total time.Duration, err error) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		cpu, err := usage(who)
		if err != nil {
			return 0, err
		}
		total += cpu
	}
	return total, nil
}

func usage(who int) (time.Duration, error) {
	var r unix.Rusage
	err := unix.Getrusage(who, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), err
}

// use is how much CPU time was used, by all and by us, at a time.
type use struct {
	cpuTicks
	self time.Duration
	at   time.Time
}

func readUse() (u use, err error) {
	if u.cpuTicks, err = readTicks(); err != nil {
		return u, err
	}
	u.at = time.Now()
	u.self, err = selfCPU()
	return u, err
}

// others is the share of all CPUs' time since then that was not ours. Whoever worked for us has been waited for.
func (u use) others(since use) float64 {
	elapsed := u.at.Sub(since.at) * time.Duration(goruntime.NumCPU())
	others := u.busy + u.steal - since.busy - since.steal - (u.self - since.self)
	return max(0, float64(others)/float64(max(elapsed, 1)))
}

// ServerCPU is the CPU time that the server has used, 0 where there is none.
func (m *Mount) ServerCPU() (time.Duration, error) {
	if m.server == nil {
		return 0, nil
	}
	// The CPU clock of another process (clock_getcpuclockid(3)): nanoseconds, where /proc/PID/stat has ticks.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^m.server.Process.Pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of the server: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Requests returns how many requests the server has answered, by opcode. Only laminafs can tell; others give nil.
func (m *Mount) Requests() (map[string]int64, error) {
	if m.server == nil {
		return nil, nil
	}
	dir, err := m.liveDir()
	if dir == "" || err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "requests")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := m.server.Process.Signal(unix.SIGUSR1); err != nil {
		return nil, err
	}
	var text []byte
	err = poll(10*time.Second, func() (bool, error) {
		var err error
		text, err = os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("requests of the server: %w", err)
	}
	counts := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, fmt.Errorf("requests of the server: line %q", line)
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return nil, err
		}
		counts[f[0]] = n
	}
	return counts, nil
}

// liveDir is the directory in which laminafs tells about the mount, empty for another server. The number of a process
// alone does not say which: there are those of other namespaces.
func (m *Mount) liveDir() (string, error) {
	for _, base := range []string{"/run", os.Getenv("XDG_RUNTIME_DIR")} {
		dirs, err := filepath.Glob(filepath.Join(base, "laminafs", "si_*"))
		if err != nil {
			return "", err
		}
		for _, dir := range dirs {
			if firstLine(dir+"/pid") == strconv.Itoa(m.Pid()) && firstLine(dir+"/mountpoint") == m.Dir {
				return dir, nil
			}
		}
	}
	return "", nil
}

// firstLine is the first line of a file, empty where there is none.
func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// resetPeak has the kernel forget the largest resident set of a process (proc_pid_clear_refs(5)).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
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

// descriptors counts those that a process has and tells how many it may have.
func descriptors(pid int) (n int, limit int64, err error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, 0, err
	}
	var l unix.Rlimit
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l)
	return len(fds), int64(min(l.Cur, 1<<62)), err
}
