package idmap

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// aHost is a machine as the files say.
func aHost(t *testing.T, files map[string]string) host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := host{root: root, uid: 1000, gid: 1000}
	h.lookPath = func(name string) (string, error) {
		path := filepath.Join(root, "bin", name)
		if _, err := os.Stat(path); err != nil {
			return "", exec.ErrNotFound
		}
		return path, os.Chmod(path, 0o755|os.ModeSetuid)
	}
	return h
}

func TestDiscover(t *testing.T) {
	complete := map[string]string{
		"etc/passwd": "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
		"etc/subuid": "bob:1:1\n# ann:5:5\nann:100000:65536\n1000:300000:10\nann:x:1\n",
		"etc/subgid": "ann:100000:65536\n", "bin/newuidmap": "", "bin/newgidmap": "",
		"proc/sys/user/max_user_namespaces": "100\n",
	}
	without := func(name string) map[string]string {
		m := map[string]string{}
		for k, v := range complete {
			if k != name {
				m[k] = v
			}
		}
		return m
	}
	with := func(name, content string) map[string]string {
		m := without("")
		m[name] = content
		return m
	}
	tests := []struct {
		name  string
		files map[string]string
		kind  Kind
		says  string
	}{
		{"all there", complete, SubIDs, ""},
		{"no subuid file", without("etc/subuid"), Single, "usermod --add-subuids"},
		{"no line in subgid", with("etc/subgid", "bob:1:1\n"), Single, "usermod --add-subgids"},
		{"range outside of 32 bits", with("etc/subuid", "ann:4294967295:2\n"), Single, "/etc/subuid gives no range of ids to ann"},
		{"no newuidmap", without("bin/newuidmap"), Single, "newuidmap is not in $PATH"},
		{"no newgidmap", without("bin/newgidmap"), Single, "package uidmap"},
		{"user namespaces off", with("proc/sys/user/max_user_namespaces", "0\n"), SubIDs, "sysctl user.max_user_namespaces"},
		{"Debian's switch", with("proc/sys/kernel/unprivileged_userns_clone", "0\n"), SubIDs, "sysctl kernel.unprivileged_userns_clone=1"},
		{"Ubuntu's switch", with("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"), SubIDs, "AppArmor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := aHost(t, tt.files).discover()
			if err != nil {
				t.Fatal(err)
			}
			missing := strings.Join(id.Missing, "\n")
			if id.Kind != tt.kind || !strings.Contains(missing, tt.says) || (tt.says == "") != (missing == "") {
				t.Errorf("%v, missing %q; want %v and %q", id.Kind, missing, tt.kind, tt.says)
			}
		})
	}
	id, _ := aHost(t, complete).discover()
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65536}, {ContainerID: 65537, HostID: 300000, Size: 10}}
	if !reflect.DeepEqual(id.UIDs, want) || id.User != "ann" {
		t.Errorf("%s: map %v, want %v", id.User, id.UIDs, want)
	}
}

func TestPlainHelperIsMissing(t *testing.T) {
	h := aHost(t, map[string]string{"bin/newuidmap": "", "bin/newgidmap": ""})
	look := h.lookPath
	h.lookPath = func(name string) (string, error) {
		path, err := look(name)
		return path, errors.Join(err, os.Chmod(path, 0o755))
	}
	if s := strings.Join(h.missingTools(), "\n"); !strings.Contains(s, "chmod u+s") {
		t.Errorf("missing: %q", s)
	}
}

func TestExplain(t *testing.T) {
	h := aHost(t, map[string]string{"proc/sys/user/max_user_namespaces": "0\n"})
	if err := h.explain(unix.ENOSPC); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "user.max_user_namespaces=15000") {
		t.Error(err)
	}
	h = aHost(t, nil)
	for _, e := range []unix.Errno{unix.EPERM, unix.ENOSPC, unix.EINVAL} {
		if err := h.explain(e); !errors.Is(err, e) || !strings.Contains(err.Error(), "(") {
			t.Errorf("%v says no reason", err)
		}
	}
}

func TestOwnIDInRangeIsLeftOut(t *testing.T) {
	got := rangesToMap(1000, []subRange{{500, 1000}, {100000, 5}})
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 5}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func FuzzParseSubID(f *testing.F) {
	f.Add("ann:100000:65536")
	f.Add("::")
	f.Add("a:4294967295:1")
	f.Fuzz(func(t *testing.T, line string) {
		who, r, ok := parseSubID(line)
		if ok && (r.start < 0 || r.count < 1 || r.start+r.count > maxID || strings.ContainsAny(who, ":")) {
			t.Errorf("%q: %q %+v", line, who, r)
		}
	})
}
