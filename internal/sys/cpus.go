package sys

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// CPUs reads a list of processors of the kernel's: "online" or "possible" of /sys/devices/system/cpu
// (Documentation/admin-guide/cputopology.rst). text is the list as ParseCPUs reads it.
func CPUs(which string) (list []int, text string, err error) {
	path := "/sys/devices/system/cpu/" + which
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	text = strings.TrimSpace(string(b))
	if list, err = ParseCPUs(text); err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return list, text, nil
}

// ParseCPUs reads a list as "0-3,8", cpuset(7)'s list format.
func ParseCPUs(s string) (list []int, err error) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || last < first {
			return nil, fmt.Errorf("%q is no list of processors", s)
		}
		for cpu := first; cpu <= last; cpu++ {
			list = append(list, int(cpu))
		}
	}
	return list, nil
}
