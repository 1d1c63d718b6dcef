package transport

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
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
	possible, _, err := sys.CPUs("possible")
	if err != nil {
		return s, err
	}
	online, _, err := sys.CPUs("online")
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
