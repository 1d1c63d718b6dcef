package createopts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// parseIDMap reads the values of --uidmap and --gidmap, each "CONTAINER:HOST:COUNT", or "CONTAINER:HOST" for one id. It
// refuses ranges that overlap; nil without values.
func parseIDMap(flag string, values []string) ([]specs.LinuxIDMapping, error) {
	var list []specs.LinuxIDMapping
	for _, v := range values {
		fields := strings.Split(v, ":")
		if len(fields) == 2 {
			fields = append(fields, "1")
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("invalid %s %q: want container:host:count", flag, v)
		}
		var n [3]uint32
		for i, s := range fields {
			u, err := strconv.ParseUint(s, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("invalid %s %q: %q is no number of 32 bits", flag, v, s)
			}
			n[i] = uint32(u)
		}
		m := specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]}
		// The last id, 2^32-1, means "none" to the kernel.
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return nil, fmt.Errorf("invalid %s %q: the range is empty or too long", flag, v)
		}
		for _, o := range list {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				return nil, fmt.Errorf("invalid %s %q: it overlaps with %d:%d:%d", flag, v, o.ContainerID, o.HostID, o.Size)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// overlap tells whether the ranges a to a+an-1 and b to b+bn-1 have an id in common.
func overlap(a, b, an, bn uint32) bool {
	return uint64(a) < uint64(b)+uint64(bn) && uint64(b) < uint64(a)+uint64(an)
}
