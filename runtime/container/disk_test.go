package container

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A container that fills the disk is to be told of all the same.
func TestStateOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	long := &state{Status: "running", Error: "a text that the next one does not have"}
	if err := writeJSON(dir, stateFile, long); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}

	for _, want := range []state{{Status: "exited", ExitCode: 3}, {Status: "exited", ExitCode: 137, Error: "a text that is somewhat longer again"}} {
		if err := writeJSON(dir, stateFile, &want); err != nil {
			t.Fatal(err)
		}
		var got state
		if err := readJSON(dir, stateFile, &got); err != nil || got.Status != want.Status || got.ExitCode != want.ExitCode || got.Error != want.Error {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if err := writeJSON(dir, stateFile, &state{Error: string(make([]byte, 8192))}); err == nil {
		t.Error("more than the disk has was written")
	}
	var got state
	if err := readJSON(dir, stateFile, &got); err != nil || got.ExitCode != 137 {
		t.Errorf("after a write that did not fit: %+v, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
