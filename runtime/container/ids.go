package container

import (
	"cmp"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/runtime/idmap"
)

// identity is who the caller is, seen from outside of our user namespace.
var identity = sync.OnceValue(idmap.Inside)

// entered tells whether this process is root, of the machine or of a user namespace of ours: whether it has all the IDs that
// files of containers may belong to, and does not have to start what has them.
func entered() bool { return os.Geteuid() == 0 }

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

// ownIDs are the IDs that exist in our user namespace, as ContainerID: from there ranges for a container can be taken.
func ownIDs() (uids, gids []specs.LinuxIDMapping, err error) {
	id := identity()
	if id.Kind != idmap.Root {
		return id.UIDs, id.GIDs, nil
	}
	u, errU := user.CurrentProcessUIDMap()
	g, errG := user.CurrentProcessGIDMap()
	if err := errors.Join(errU, errG); err != nil {
		return nil, nil, err
	}
	mappings := func(list []user.IDMap) (m []specs.LinuxIDMapping) {
		for _, e := range list {
			m = append(m, specs.LinuxIDMapping{ContainerID: uint32(e.ID), HostID: uint32(e.ParentID), Size: uint32(e.Count)})
		}
		return m
	}
	return mappings(u), mappings(g), nil
}

// checkOwn refuses ranges of --uidmap and --gidmap with IDs that are not in ours. of is "user" or "group".
//
// Errors: ErrInvalid, which says what is in ours, and why it is not more.
func checkOwn(flag, of string, m, ours []specs.LinuxIDMapping) error {
	for _, e := range m {
		for _, part := range within([]specs.LinuxIDMapping{e}, ours) {
			if !slices.ContainsFunc(ours, func(o specs.LinuxIDMapping) bool {
				return part.HostID >= o.ContainerID && part.HostID-o.ContainerID < o.Size
			}) {
				why := ""
				if id := identity(); id.Kind == idmap.Single {
					why = sentences(id.Missing)
				}
				return fail(ErrInvalid, "--%s %d:%d:%d: %s ID %d is not yours to map: those here are %s%s",
					flag, e.ContainerID, e.HostID, e.Size, of, part.HostID, describeIDs(ours), why)
			}
		}
	}
	return nil
}

// describeIDs is "0-99,200", of the IDs that ranges map.
func describeIDs(m []specs.LinuxIDMapping) string {
	m = slices.Clone(m)
	slices.SortFunc(m, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	var all []string
	for i := 0; i < len(m); {
		first, last := m[i].ContainerID, m[i].ContainerID+m[i].Size-1
		for i++; i < len(m) && m[i].ContainerID == last+1; i++ {
			last += m[i].Size
		}
		text := strconv.FormatUint(uint64(first), 10)
		if last > first {
			text += "-" + strconv.FormatUint(uint64(last), 10)
		}
		all = append(all, text)
	}
	return strings.Join(all, ",")
}

// within splits ranges at the bounds of those that ours consists of: the kernel takes a range that lies in one of them only
// (kernel/user_namespace.c, map_id_range_down). What is in none of them, from its first ID on, is left whole.
func within(m, ours []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	var split []specs.LinuxIDMapping
	for _, e := range m {
		for e.Size > 0 {
			n := e.Size
			for _, o := range ours {
				if e.HostID >= o.ContainerID && e.HostID-o.ContainerID < o.Size {
					n = min(n, o.Size-(e.HostID-o.ContainerID))
				}
			}
			split = append(split, specs.LinuxIDMapping{ContainerID: e.ContainerID, HostID: e.HostID, Size: n})
			e.ContainerID, e.HostID, e.Size = e.ContainerID+n, e.HostID+n, e.Size-n
		}
	}
	return split
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
