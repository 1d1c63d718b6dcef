package container

import (
	"errors"
	"slices"
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

// TestBindModes: of two modes about the same nobody knows which was meant.
func TestBindModes(t *testing.T) {
	for _, source := range []string{"/a", "name"} {
		for mode, ok := range map[string]bool{
			"ro,rw": false, "ro,ro": false, "rw,rw": false, "z,Z": false, "z,z": false, "nocopy,nocopy": false, "private,rprivate": false,
			"rslave,slave": false, "cached,delegated": false, "ro,": false, "ro,what": false, "ro,bind-nonrecursive,bind-nonrecursive": false,
			"ro,z,private,cached": true, "Z": true, "bind-nonrecursive,rw": true, "nocopy": source == "name", "rslave": source == "/a",
		} {
			spec := source + ":/b:" + mode
			m, err := parseBind(spec)
			if ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %+v, %v", spec, m, err)
			}
			if strings.HasPrefix(mode, "ro,r") && (err == nil || !strings.HasSuffix(err.Error(), "invalid mode: "+mode)) {
				t.Errorf("%s: %v", spec, err)
			}
		}
	}
}

func TestReadOnlyOnlyAbove(t *testing.T) {
	m := mount.Mount{Type: mount.TypeBind, Source: "/a", Target: "/b", ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyNonRecursive: true}}
	if got, err := parseMount(m); err != nil || strings.Join(got.Options, " ") != "rbind rprivate ro ro-non-recursive" || got.RW {
		t.Errorf("%+v, %v", got, err)
	}
	m.ReadOnly = false
	if got, err := parseMount(m); !errors.Is(err, ErrInvalid) {
		t.Errorf("without read-only: %+v, %v", got, err)
	}
}

// TestTmpfsIsAsItIsShown: what the options say at last, by inspect and in the container.
func TestTmpfsIsAsItIsShown(t *testing.T) {
	for options, rw := range map[string]bool{"": true, "ro": false, "ro,rw": true, "rw,ro": false, "rw,size=1m": true} {
		m, err := tmpfsMount("/t", options)
		if err != nil || m.RW != rw || slices.Contains(m.Options, "ro") == rw {
			t.Errorf("%q: %v, %q, %v", options, m.RW, m.Options, err)
		}
	}
}

func TestParseVolumesFrom(t *testing.T) {
	for spec, want := range map[string]string{
		"c": "c rw", "c:": "c rw", "c:ro": "c ro", "c:rw": "c rw", "c:z,ro": "c ro", "c:cached,Z": "c rw",
		"": "", ":ro": "", "c:ro,rw": "", "c:nocopy": "", "c:rslave": "", "c:ro:x": "", "c:ro,": "",
	} {
		name, ro, err := parseVolumesFrom(spec)
		got := name + map[bool]string{true: " ro", false: " rw"}[ro]
		if want == "" && !errors.Is(err, ErrInvalid) || want != "" && (err != nil || got != want) {
			t.Errorf("%q: %s, %v; want %q", spec, got, err, want)
		}
	}
}
