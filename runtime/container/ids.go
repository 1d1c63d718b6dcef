package container

import (
	"math"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/idmap"
)

// identity is who the caller is, seen from outside of our user namespace.
var identity = sync.OnceValue(idmap.Inside)

// mappedIDs is how many IDs exist in our user namespace, from 0 on.
func mappedIDs(m []specs.LinuxIDMapping) uint32 {
	if identity().Kind == idmap.Root {
		return math.MaxUint32
	}
	var n uint32
	for _, e := range m {
		n = max(n, e.ContainerID+e.Size)
	}
	return n
}

// privateIDs is a user namespace with the IDs of ours.
func privateIDs() (uids, gids []specs.LinuxIDMapping, err error) {
	id := identity()
	if id.Kind == idmap.Root {
		return nil, nil, fail(ErrInvalid, "--userns=private: which IDs? Name them: --uidmap 0:100000:65536")
	}
	same := func(m []specs.LinuxIDMapping) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: mappedIDs(m)}}
	}
	return same(id.UIDs), same(id.GIDs), nil
}

// keepIDs is a user namespace in which the caller has the IDs he has outside. In ours he is 0.
func keepIDs() (uids, gids []specs.LinuxIDMapping, err error) {
	id := identity()
	if id.Kind == idmap.Root {
		return nil, nil, fail(ErrInvalid, "--userns=keep-id is for ordinary users")
	}
	if id.Kind == idmap.Single {
		return nil, nil, fail(ErrInvalid, "--userns=keep-id needs a range of IDs: only one is mapped")
	}
	return keepID(uint32(id.UID), mappedIDs(id.UIDs)), keepID(uint32(id.GID), mappedIDs(id.GIDs)), nil
}

// keepID maps own to 0 of ours, and the IDs below it to 1 and up; n is how many ours has.
func keepID(own, n uint32) []specs.LinuxIDMapping {
	if own >= n {
		return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: n - 1}, {ContainerID: own, HostID: 0, Size: 1}}
	}
	m := []specs.LinuxIDMapping{{ContainerID: own, HostID: 0, Size: 1}}
	if own > 0 {
		m = append([]specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: own}}, m...)
	}
	if own+1 < n {
		m = append(m, specs.LinuxIDMapping{ContainerID: own + 1, HostID: own + 1, Size: n - own - 1})
	}
	return m
}

// exists tells whether the container's ID is there: in its own map, and in ours.
func exists(id uint32, own, ours []specs.LinuxIDMapping) bool {
	if len(own) > 0 {
		for _, e := range own {
			if id >= e.ContainerID && id-e.ContainerID < e.Size {
				return true
			}
		}
		return false
	}
	return id < mappedIDs(ours)
}
