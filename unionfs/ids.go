package unionfs

import "golang.org/x/sys/unix"

// overflowID is shown for an id that no range of a map holds (user_namespaces(7), "overflow user and group IDs").
const overflowID = 65534

// idMapper translates owners between layers and the merged tree.
type idMapper struct {
	uids, gids IDMap
	uid, gid   *uint32 // squashed to: shown only, what is stored is what was asked for, as with fuse-overlayfs
}

func newIDMapper(cfg *Config) idMapper {
	m := idMapper{uids: cfg.UIDMap, gids: cfg.GIDMap, uid: cfg.SquashToUID, gid: cfg.SquashToGID}
	if cfg.SquashToRoot && m.uid == nil {
		m.uid = new(uint32)
	}
	if cfg.SquashToRoot && m.gid == nil {
		m.gid = new(uint32)
	}
	return m
}

func (m IDMap) shown(id uint32) uint32 {
	if len(m) == 0 {
		return id
	}
	for _, r := range m {
		if id-r.Container < r.Size {
			return r.Host + (id - r.Container)
		}
	}
	return overflowID
}

func (m IDMap) stored(id uint32) (uint32, error) {
	if len(m) == 0 {
		return id, nil
	}
	for _, r := range m {
		if id-r.Host < r.Size {
			return r.Container + (id - r.Host), nil
		}
	}
	return 0, unix.EINVAL
}

// shown translates the owner of an object in a layer to that in the merged tree.
func (m *idMapper) shown(uid, gid uint32) (uint32, uint32) {
	uid, gid = m.uids.shown(uid), m.gids.shown(gid)
	if m.uid != nil {
		uid = *m.uid
	}
	if m.gid != nil {
		gid = *m.gid
	}
	return uid, gid
}

// storedUID translates an id of the merged tree to that in the upper. Errors: EINVAL for an id no range holds, as
// chown(2) in a user namespace.
func (m *idMapper) storedUID(id uint32) (uint32, error) { return m.uids.stored(id) }

func (m *idMapper) storedGID(id uint32) (uint32, error) { return m.gids.stored(id) }

// squashed reports whether owners are shown that are not those stored.
func (m *idMapper) squashed() bool { return m.uid != nil || m.gid != nil }
