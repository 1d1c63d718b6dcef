package sandbox

import (
	"fmt"
	"strings"
	"sync"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capSets are the five sets of capabilities(7), a bit for each.
type capSets struct{ Bounding, Effective, Permitted, Inheritable, Ambient uint64 }

var capNumbers = sync.OnceValue(func() map[string]uint {
	m := map[string]uint{}
	for _, c := range capability.ListKnown() {
		m["CAP_"+strings.ToUpper(c.String())] = uint(c)
	}
	return m
})

// parseCapabilities turns names into bits. No capabilities at all is what a nil argument means.
func parseCapabilities(c *specs.LinuxCapabilities) (capSets, error) {
	var s capSets
	if c == nil {
		return s, nil
	}
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{{c.Bounding, &s.Bounding}, {c.Effective, &s.Effective}, {c.Permitted, &s.Permitted}, {c.Inheritable, &s.Inheritable}, {c.Ambient, &s.Ambient}} {
		for _, name := range set.names {
			n, ok := capNumbers()[name]
			if !ok {
				return s, fmt.Errorf("spec: unknown capability %q", name)
			}
			*set.bits |= 1 << n
		}
	}
	return s, nil
}

// capName names a bit, for errors.
func capName(n uint) string {
	for name, m := range capNumbers() {
		if m == n {
			return name
		}
	}
	return fmt.Sprintf("capability %d", n)
}

// lastCap is the highest capability of this kernel. Those that it does not know cannot be given to anyone, and a
// Spec that was made on another kernel may list them.
var lastCap = sync.OnceValue(func() uint {
	for n := uint(63); n > 0; n-- {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil {
			return n
		}
	}
	return 0
})

// dropBounding takes everything out of the calling thread's bounding set that keep does not have.
func dropBounding(keep uint64) error {
	for n := uint(0); n <= lastCap(); n++ {
		if keep&(1<<n) != 0 {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err == nil && has == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("drop %s from the bounding set: %w", capName(n), err)
		}
	}
	return nil
}

// ownPermitted is the calling thread's permitted set.
func ownPermitted() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

func capset(effective, permitted, inheritable uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	return unix.Capset(&hdr, &data[0])
}

// known returns the sets without what this kernel does not know.
func (s capSets) known() capSets {
	mask := uint64(1)<<(lastCap()+1) - 1
	return capSets{s.Bounding & mask, s.Effective & mask, s.Permitted & mask, s.Inheritable & mask, s.Ambient & mask}
}

// check names a capability that is asked for and not there to be given.
func (s capSets) check() error {
	have, err := ownPermitted()
	if err != nil {
		return err
	}
	if lacking := (s.Permitted | s.Effective) &^ have; lacking != 0 {
		for n := uint(0); n < 64; n++ {
			if lacking&(1<<n) != 0 {
				return fmt.Errorf("%s cannot be given: this process does not have it itself: %w", capName(n), unix.EPERM)
			}
		}
	}
	return nil
}

// raisable are the ambient capabilities that can be. Others, not permitted or not inheritable, are left out as runc
// does it: its own example has some.
func (s capSets) raisable() uint64 { return s.Ambient & s.Permitted & s.Inheritable }

// apply sets all but the bounding set on the calling thread.
func (s capSets) apply() error {
	if err := capset(s.Effective, s.Permitted, s.Inheritable); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for n := uint(0); n < 64; n++ {
		if s.raisable()&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("ambient %s: %w", capName(n), err)
		}
	}
	return nil
}
