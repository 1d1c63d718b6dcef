package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/bench/report"
	"github.com/laminafs/lamina/internal/sys"
)

// Who is no longer read does not leave all that it has made.
func TestNobodyReads(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name string
		code int
	}{{"stdout", exitFailed}, {"stderr", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := open(t)
			cmd := command(t, nil, "run", "--scale", "tiny", "--reps", "2", "--dir", dir, "--out", dir+"/out", "--systems", "plain", "--workloads", "storm,readdir-*")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.name == "stdout" {
				cmd.Stdout = w
			} else {
				cmd.Stderr = w
			}
			_ = cmd.Run() // its status is looked at
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("%v, want exit status %d", cmd.ProcessState, tt.code)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if r, err := report.Load(dir + "/out/report.json"); err != nil || len(r.Samples) != 6 {
				t.Errorf("report %+v, error %v; want 6 samples", r, err)
			}
			nothingLeft(t, dir, "out")
		})
	}
}

// The containers of a run that was killed leave cgroups, whose names only their stores know. The next run removes both.
func TestCgroupsOfKilledContainers(t *testing.T) {
	needRoot(t)
	for store, group := range map[string]string{"root/containers": "%s", "root/overlay-containers": "libpod-%s", "runc": "%s"} {
		dir := open(t)
		var random [32]byte
		_, _ = rand.Read(random[:]) // it never fails
		id := hex.EncodeToString(random[:])
		if store == "runc" {
			id = "bench-" + id[:16]
		}
		top := makeGroup(t, fmt.Sprintf(group, id), "below")
		name := "lamina-bench-test-" + hex.EncodeToString(random[:8])
		other := makeGroup(t, name, "below")
		for _, container := range []string{id, name} {
			if err := os.MkdirAll(filepath.Join(dir, scratchPrefix+"stale", work, "c1", store, container), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out", "--systems", "plain", "--workloads", "storm")
		if code != 0 {
			t.Errorf("exit status %d:\n%s", code, complaints)
		}
		if _, err := os.Stat(top); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the cgroup is left: %v", store, err)
		}
		if _, err := os.Stat(other + "/below"); err != nil {
			t.Errorf("%s: somebody else's cgroup is not: %v", store, err)
		}
		nothingLeft(t, dir, "out")
	}
}

// makeGroup makes a cgroup with one below it, in any hierarchy.
func makeGroup(t *testing.T, name, below string) string {
	t.Helper()
	mounts, err := sys.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		top := filepath.Join(m.Path, name)
		if m.FSType != "cgroup" && m.FSType != "cgroup2" || os.MkdirAll(filepath.Join(top, below), 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			_ = os.Remove(filepath.Join(top, below)) // mostly it is gone
			_ = os.Remove(top)
		})
		return top
	}
	t.Skip("needs a cgroup hierarchy that can be written to")
	return ""
}

// What podman notes about containers where no option can have it elsewhere is not on the machine.
func TestPodmansNotes(t *testing.T) {
	needRoot(t)
	dir := open(t)
	var paths []string
	for _, in := range []string{"/run/runc", "/run/netns"} {
		paths = append(paths, filepath.Join(in, filepath.Base(dir)))
	}
	fake := fmt.Sprintf("#!/bin/sh\n[ $1 = --version ] && exit\nmkdir -p /run/runc /run/netns\necho called >%s/called\n>%s\n>%s\nexit 1\n", dir, paths[0], paths[1])
	if err := os.WriteFile(dir+"/podman", []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out", "--systems", "podman", "--workloads", "container-start-net")
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	_ = cmd.Run() // there is nothing that it could measure
	if _, err := os.Stat(dir + "/called"); err != nil {
		t.Errorf("it was not called: %v", err)
	}
	for _, path := range paths {
		if err := os.Remove(path); err == nil {
			t.Errorf("%s was left", path)
		}
	}
	nothingLeft(t, dir, "out", "podman", "called")
}
