package main

import (
	"fmt"
	"slices"
	"strings"

	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/laminafs/lamina/runtime/volume"
)

// listVolumes lists the volumes that match a value of every filter: name (a part of it), label, driver, dangling.
func (a *app) listVolumes(filter map[string][]string) ([]volumetypes.Volume, error) {
	s, err := a.volumes()
	if err != nil {
		return nil, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var list []volumetypes.Volume
	for _, v := range all {
		ok, err := matches(filter, func(key, value string) (bool, error) {
			switch key {
			case "name":
				return strings.Contains(v.Name, value), nil
			case "label":
				return hasLabel(v.Labels, value), nil
			case "driver":
				return value == v.API().Driver, nil
			case "dangling":
				users, err := a.volumeUsers(v.Name)
				return isTrue(value) == (len(users) == 0), err
			}
			return false, fmt.Errorf("invalid filter '%s'", key)
		})
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, v.API())
		}
	}
	return list, checkKeys(filter, "name", "label", "driver", "dangling")
}

// pruneVolumes removes volumes and says which. It returns the bytes that are free now. The filters are label, label!
// and all, which stands for the flag.
func (a *app) pruneVolumes(everything bool, filter map[string][]string) (uint64, error) {
	if err := checkKeys(filter, "label", "label!", "all"); err != nil {
		return 0, err
	}
	s, err := a.volumes()
	if err != nil {
		return 0, err
	}
	for _, v := range filter["all"] {
		everything = everything || isTrue(v)
	}
	names, n, err := s.Prune(everything, a.volumeUsers, func(v *volume.Volume) bool { return keepVolume(v, filter) })
	a.deleted("Deleted Volumes:", names)
	return uint64(n), err
}

// keepVolume tells whether prune leaves a volume.
func keepVolume(v *volume.Volume, filter map[string][]string) bool {
	labels := filter["label"]
	wanted := len(labels) == 0 || slices.ContainsFunc(labels, func(l string) bool { return hasLabel(v.Labels, l) })
	kept := slices.ContainsFunc(filter["label!"], func(l string) bool { return hasLabel(v.Labels, l) })
	return !wanted || kept
}

// matches tells whether each filter has a value for which is says yes.
func matches(filter map[string][]string, is func(key, value string) (bool, error)) (bool, error) {
	for key, values := range filter {
		some := false
		for _, v := range values {
			ok, err := is(key, v)
			if err != nil {
				return false, err
			}
			some = some || ok
		}
		if !some {
			return false, nil
		}
	}
	return true, nil
}

func checkKeys(filter map[string][]string, known ...string) error {
	for key := range filter {
		if !slices.Contains(known, key) {
			return fmt.Errorf("invalid filter '%s'", key)
		}
	}
	return nil
}

// hasLabel looks for "key" or "key=value".
func hasLabel(labels map[string]string, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!exact || got == value)
}

func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }
