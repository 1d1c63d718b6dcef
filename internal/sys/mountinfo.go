package sys

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// MountPoint is a line of mountinfo.
type MountPoint struct {
	Major, Minor uint32 // of the st_dev of what is mounted
	Path         string // where, as seen from the root directory
	FSType       string // "ext4", "fuse.laminafs"
}

// Mounts lists what the calling thread sees mounted, in the order in which it was: of several mounts on one path the
// last is the one that a path walk reaches.
//
// Source: proc_pid_mountinfo(5).
func Mounts() ([]MountPoint, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts reads lines such as
//
//	36 35 98:0 /root /mount/point options [tag...] - type source super-options
func parseMounts(text string) (list []MountPoint, err error) {
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if !ok || len(f) < 6 {
			return nil, fmt.Errorf("mountinfo: line %q", line)
		}
		m := MountPoint{Path: UnescapeOctal(f[4])}
		if _, err := fmt.Sscanf(f[2], "%d:%d", &m.Major, &m.Minor); err != nil {
			return nil, fmt.Errorf("mountinfo: device %q: %w", f[2], err)
		}
		m.FSType, _, _ = strings.Cut(right, " ")
		list = append(list, m)
	}
	return list, nil
}

// UnescapeOctal undoes the \ooo in which the kernel and others write the bytes of a path that would end a word or a
// line. What is not an escape stands for itself.
func UnescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
