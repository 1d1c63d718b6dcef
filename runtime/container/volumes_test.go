package container

import (
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// mounts is --mount.
func mounts(m ...mount.Mount) opt { return host(func(h *api.HostConfig) { h.Mounts = m }) }

// TestSubpathStaysInItsVolume: one container makes the part of a volume that another one asks for a link.
func TestSubpathStaysInItsVolume(t *testing.T) {
	b := newBox(t)
	volume := mount.Mount{Type: mount.TypeVolume, Source: "shared", Target: "/v"}
	if _, errs, code := b.run(script("cd /v; mkdir dir; echo inside >dir/f; ln -s dir inner; ln -s /etc outer; ln -s ../../../../../../etc up"), mounts(volume)); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	part := func(subpath string) opt {
		m := volume
		m.VolumeOptions = &mount.VolumeOptions{Subpath: subpath}
		return mounts(m)
	}
	for _, subpath := range []string{"dir", "inner"} {
		if out, errs, code := b.run(words("cat", "/v/f"), part(subpath)); out != "inside\n" {
			t.Errorf("%s: exit %d, %q, %q", subpath, code, out, errs)
		}
	}
	for _, subpath := range []string{"outer", "up", "inner/../outer"} {
		out, errs, code := b.run(words("ls", "/v"), part(subpath))
		if code != 125 || !strings.Contains(errs, "leads out of the volume") {
			t.Errorf("%s: exit %d, %q, %q", subpath, code, out, errs)
		}
		id := b.must("create", "-", newRun(words("true"), part(subpath)))
		if out, _, code := b.try("cpout", id, "/v", "-"); code == 0 {
			t.Errorf("cp of %s: %q", subpath, tarNames(t, out))
		}
	}
	if _, errs, code := b.run(words("true"), part("none")); code != 125 || !strings.Contains(errs, "no such file") {
		t.Errorf("none: exit %d, %q", code, errs)
	}
}
