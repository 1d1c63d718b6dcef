package transport

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuSets are the processors of the machine.
type cpuSets struct {
	possible int          // how many there may ever be
	online   map[int]bool // those that work now
	usable   map[int]bool // those that this process may run on
}

// processors is askProcessors but in tests.
var processors = askProcessors

// askProcessors asks the kernel. Errors: /sys is not mounted.
//
// Source: linux/Documentation/ABI/testing/sysfs-devices-system-cpu.
func askProcessors() (cpuSets, error) {
	s := cpuSets{online: map[int]bool{}, usable: map[int]bool{}}
	possible, err := cpuList("/sys/devices/system/cpu/possible")
	if err != nil {
		return s, err
	}
	online, err := cpuList("/sys/devices/system/cpu/online")
	if err != nil {
		return s, err
	}
	s.possible = len(possible)
	for _, cpu := range online {
		s.online[cpu] = true
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil { // else there are more than it can tell
		for _, cpu := range possible {
			s.usable[cpu] = set.IsSet(cpu)
		}
	}
	return s, nil
}

func cpuList(path string) ([]int, error) {
	b, err := os.ReadFile(path) // of the kernel, no layer
	if err != nil {
		return nil, err
	}
	list, err := parseCPUList(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// parseCPUList reads a list as "0-3,8".
func parseCPUList(s string) (list []int, err error) {
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
