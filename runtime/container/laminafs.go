package container

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/laminafs/lamina/internal/beside"
	"github.com/laminafs/lamina/runtime/idmap"
	"github.com/laminafs/lamina/runtime/image"
)

// laminafs finds the program that mounts.
func (s *Store) laminafs() (string, error) {
	if s.o.Laminafs != "" {
		return s.o.Laminafs, nil
	}
	return beside.Find("laminafs", "lamina")
}

// unionOptions is what -o gets. An owner in the store is shown as what the container's user namespace makes of it: ID
// ContainerID of the container, which the store knows by that number, is HostID outside of it.
func unionOptions(m *image.Mount, c *Container) string {
	r := c.r
	lowers := append(append([]string{}, m.Lowers...), r.Rootfs...)
	for i, l := range lowers {
		lowers[i] = escapeOption(l)
	}
	o := []string{
		"lowerdir=" + strings.Join(lowers, ":"),
		"upperdir=" + escapeOption(m.Upper),
		"workdir=" + escapeOption(m.Work),
		// A layer that is committed holds what is in the upper, and cannot say that a name of a lower is a link to it. So a
		// file that is changed leaves its other names behind, as under Docker.
		"index=0",
	}
	if s := idOption(r.UIDMap); s != "" {
		o = append(o, "uidmapping="+s)
	}
	if s := idOption(r.GIDMap); s != "" {
		o = append(o, "gidmapping="+s)
	}
	if identity().Kind == idmap.Single {
		// Nobody but us exists here, and the kernel lets nobody touch what belongs to nobody: not even read a directory of
		// mode 0700 (EACCES), or change an owner (EOVERFLOW). What owners the layers record stays in them.
		o = append(o, "squash_to_root=1")
	}
	if volatile(c.dir()) {
		o = append(o, "volatile=1")
	}
	return strings.Join(o, ",")
}

func idOption(m []specs.LinuxIDMapping) string {
	var s []string
	for _, e := range m {
		s = append(s, fmt.Sprintf("%d:%d:%d", e.ContainerID, e.HostID, e.Size))
	}
	return strings.Join(s, ":")
}

// escapeOption takes the meaning from what separates options and layers: docs/CLI.md.
var escapeOption = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`).Replace
