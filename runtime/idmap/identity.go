package idmap

import (
	"fmt"

	"github.com/moby/sys/capability"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// A Kind is how far the caller's identity reaches.
type Kind int

const (
	Root    Kind = iota // user 0 already
	SubIDs              // a range of ids is mapped
	Single              // one id is mapped
	Unknown             // never returned by Discover
)

func (k Kind) String() string {
	switch k {
	case Root:
		return "root"
	case SubIDs:
		return "subids"
	case Single:
		return "single"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// MarshalText and UnmarshalText carry a Kind through the environment, and into `lamina info`.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k *Kind) UnmarshalText(b []byte) error {
	for _, known := range []Kind{Root, SubIDs, Single} {
		if known.String() == string(b) {
			*k = known
			return nil
		}
	}
	return fmt.Errorf("unknown kind of identity %q", b)
}

// An Identity is who the caller is, seen from outside of the namespace, and what he may map.
type Identity struct {
	Kind Kind

	// UIDs and GIDs are what Reexec maps; HostID is an id in the caller's namespace. Empty for Root.
	UIDs, GIDs []specs.LinuxIDMapping

	UID, GID int    // the caller's effective ids
	User     string // his name; empty when /etc/passwd does not know him

	// Missing has a sentence for everything that keeps the identity from a better kind: what is missing, and how
	// to get it.
	Missing []string
}

// mapped reports whether id exists in a namespace with the map.
func mapped(m []specs.LinuxIDMapping, id int) bool {
	for _, e := range m {
		if id >= int(e.ContainerID) && id < int(e.ContainerID)+int(e.Size) {
			return true
		}
	}
	return false
}

// CanChown reports whether a file can belong to uid and gid, ids of the namespace that Reexec makes.
func (id *Identity) CanChown(uid, gid int) bool {
	if id.Kind == Root && len(id.UIDs) == 0 {
		return true
	}
	return mapped(id.UIDs, uid) && mapped(id.GIDs, gid)
}

// CanMknod reports whether device nodes can be made: by root of the machine only, and where the capability was not
// taken from him (user_namespaces(7), "Capabilities").
func (id *Identity) CanMknod() bool {
	if id.Kind != Root || userns.RunningInUserNS() {
		return false
	}
	caps, err := capability.NewPid2(0)
	return err == nil && caps.Load() == nil && caps.Get(capability.EFFECTIVE, capability.CAP_MKNOD)
}
