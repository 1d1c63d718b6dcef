package bench_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/internal/uniontest"
)

// programs builds lamina and laminafs.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", "github.com/laminafs/lamina/cmd/lamina", "github.com/laminafs/lamina/cmd/laminafs")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// callers are root and, where there is such a user, lamina-test.
func callers(t *testing.T) []bench.Caller {
	t.Helper()
	list := []bench.Caller{{Name: "root"}}
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Logf("no ordinary user: %v", err)
		return list
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return append(list, bench.Caller{Name: u.Username, UID: uint32(uid), GID: uint32(gid)})
}

// TestLaunch takes every sample of the launcher once. A peer that is missing is skipped by the suite; lamina and tar
// are not.
func TestLaunch(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it is one of the callers")
	}
	uniontest.NeedFuse(t)
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	dir, err := os.MkdirTemp("", "lb") // sockets have short names, and other users pass through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := bench.LaunchSuite{
		Bin: programs(t), Callers: callers(t), Rounds: 1, Fixtures: &bench.Fixtures{Dir: dir, Scale: 0.002}, Progress: io.Discard,
	}
	l, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	for _, skip := range l.Skipped {
		t.Logf("skipped: %+v", skip)
	}
	for _, c := range s.Callers {
		for workload, systems := range map[string][]string{
			bench.RunTrue: {bench.Lamina}, bench.RunTrueNet: {bench.Lamina},
			"load 50 MB": {bench.Lamina, bench.Tar}, "load 500 MB": {bench.Lamina, bench.Tar},
		} {
			for _, system := range systems {
				i := slices.IndexFunc(l.Samples, func(s bench.LaunchSample) bool {
					return s.Caller == c.Name && s.Workload == workload && s.System == system
				})
				if i < 0 {
					t.Errorf("as %s: no sample of %s by %s", c.Name, workload, system)
				} else if s := l.Samples[i]; s.Wall <= 0 || s.CPU <= 0 || s.Peak <= 0 {
					t.Errorf("%+v", s)
				}
			}
		}
	}
	var text bytes.Buffer
	report := bench.Report{Launch: l}
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"As root: wall time", "load 500 MB: lamina / tar x", "load 500 MB: peak memory"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not tell of %q", want)
		}
	}
	if left, _ := filepath.Glob(dir + "/caller*/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
