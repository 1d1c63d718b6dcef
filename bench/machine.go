package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench/report"
)

// Here describes this machine. dir is where the layers are, programs are those whose versions matter, by name.
func Here(dir string, programs map[string]string) (m report.Machine, err error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m = report.Machine{
		Date: time.Now().UTC().Format(time.RFC3339), Kernel: unix.ByteSliceToString(uts.Release[:]), CPUs: goruntime.NumCPU(),
		CPUModel: cpuModel(), Governor: firstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		Memory: int64(info.Totalram) * int64(info.Unit), LoadBefore: firstLine("/proc/loadavg"),
		Versions: map[string]string{"go": goruntime.Version()},
	}
	for name, path := range programs {
		if v := version(path); v != "" {
			m.Versions[name] = v
		}
	}
	m.Filesystem, err = filesystem(dir)
	return m, err
}

// End notes what is known only when the run is over.
func End(m *report.Machine) { m.LoadAfter = firstLine("/proc/loadavg") }

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // other architectures have other fields
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// filesystem is the type of that in which dir is, or its number (statfs(2)).
func filesystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", dir, err)
	}
	names := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.XFS_SUPER_MAGIC: "xfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name, nil
	}
	return fmt.Sprintf("%#x", st.Type), nil
}

// version is the line in which a program tells its version, that with its own name before others; empty where it is not
// there.
func version(program string) (found string) {
	out, err := exec.Command(program, "--version").CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		own := strings.HasPrefix(line, filepath.Base(program)) // also of one that was built without a number
		if !own && !strings.ContainsAny(line, "0123456789") {
			continue
		}
		if found == "" || own {
			found = line
		}
	}
	return found
}
