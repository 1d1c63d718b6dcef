package container

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
)

// TestExpectedMonitorGoes: one whose container cannot be made leaves.
func TestExpectedMonitorGoes(t *testing.T) {
	b := newBox(t)
	if _, errs, code := b.run(words("true"), func(r *runArg) { r.Create.Config.Image = "none" }); code == 0 || !strings.Contains(errs, "none") {
		t.Errorf("exit %d: %s", code, errs)
	}
	eventually(t, "the monitor has ended", func() bool { return len(b.processes()) == 0 })
}

// TestExpectedMonitorHasTheContainer: no second one is started.
func TestExpectedMonitorHasTheContainer(t *testing.T) {
	b := newBox(t)
	id := b.start(words("sleep", "1000"))
	monitors := slices.DeleteFunc(b.processes(), func(s string) bool { return !strings.HasPrefix(s, MonitorArg0) })
	if len(monitors) != 1 || !strings.Contains(monitors[0], id) || !strings.Contains(monitors[0], argExpected) {
		t.Errorf("%q, want one for %s", monitors, id)
	}
}

// TestMonitorOfAnotherVersion: it says what is wrong, in place of a start that goes wrong.
func TestMonitorOfAnotherVersion(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{MonitorArg0, modeRun, t.TempDir(), newID(), "", "", "0"},
		{MonitorArg0, modeRun, t.TempDir(), newID(), "", ""},
		{MonitorArg0, modeRun, t.TempDir(), newID(), "", "", monitorVersion, argExpected, "more"},
	} {
		ours, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		cmd := &exec.Cmd{Path: exe, Args: args, ExtraFiles: []*os.File{theirs}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = theirs.Close()
		var r reply
		if _, err := ours.receive(&r); err != nil || r.Error == nil || !strings.Contains(r.Error.unpack().Error(), "different versions") {
			t.Errorf("%q: %+v, %v", args, r, err)
		}
		_ = ours.Close()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 125 {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestPreparedProfile: what is prepared is what a container without options gets.
func TestPreparedProfile(t *testing.T) {
	r := &record{Config: &api.Config{Cmd: []string{"true"}}, HostConfig: &api.HostConfig{}}
	spec, err := newSpec(&specInput{Record: r})
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := defaultProfile()
	if err != nil || prepared == nil || !reflect.DeepEqual(prepared, spec.Linux.Seccomp) {
		t.Errorf("%v: another profile than the default one", err)
	}
}
