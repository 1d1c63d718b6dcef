//go:build faults

package copyup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/fault"
	"golang.org/x/sys/unix"
)

var allPoints = []string{"create", "owner", "xattr", "mark", "mode", "times"}

// faultObjects are the kinds of object, with the points that a copy passes.
var faultObjects = []struct {
	name   string
	make   func(e *env) error
	points []string
}{
	{"file", func(e *env) error { return os.WriteFile(e.path("file"), []byte(random(100_000)), 0o644) },
		append([]string{"chunk", "data", "sync"}, allPoints...)},
	{"dir", func(e *env) error { return os.Mkdir(e.path("dir"), 0o755) }, allPoints},
	{"link", func(e *env) error { return os.Symlink("target", e.path("link")) }, allPoints},
	{"fifo", func(e *env) error { return unix.Mkfifo(e.path("fifo"), 0o644) }, allPoints},
}

// newFaultEnv has one lower object of every kind.
func newFaultEnv(t *testing.T) *env {
	t.Helper()
	e := newEnv(t, t.TempDir(), t.TempDir())
	for _, o := range faultObjects {
		if err := o.make(e); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func TestEveryPointIsTried(t *testing.T) {
	tried := map[string]bool{}
	for _, o := range faultObjects {
		for _, p := range o.points {
			tried["copyup."+p] = true
		}
	}
	for _, name := range fault.List() {
		if strings.HasPrefix(name, "copyup.") && !tried[name] {
			t.Errorf("no test passes the point %s", name)
		}
	}
}

func TestFailureAtEveryStep(t *testing.T) {
	e := newFaultEnv(t)
	if canReflink(t, e.path("file"), filepath.Join(e.work, "probe")) {
		t.Skip("data is reflinked here, not written")
	}
	for _, o := range faultObjects {
		for _, point := range fault.List() {
			if !strings.HasPrefix(point, "copyup.") {
				continue
			}
			t.Setenv("LAMINA_FAULT", point+"=EDQUOT")
			src := e.source(t, o.name)
			m := copyup.MetaOf(&src.Stat)
			if slices.Contains(o.points, strings.TrimPrefix(point, "copyup.")) {
				frozen := freeze(t, e.lower)
				c, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
				wantErr(t, err, unix.EDQUOT, "copy up: ")
				if c != (copyup.Copy{}) {
					t.Errorf("%s: %s: a copy besides the error: %+v", o.name, point, c)
				}
				if o.name == "file" {
					wantErr(t, e.refuse(t, src, m), unix.EDQUOT, "copy up: ")
				}
				frozen.check(t)
				e.workEmpty(t)
				t.Setenv("LAMINA_FAULT", "")
			}
			c, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
			if err != nil {
				t.Errorf("%s: after the failure, or at a point it does not pass: %s: %v", o.name, point, err)
			}
			e.s.Discard(c.At)
		}
	}
}

// TestKilledAtEveryStep kills a process that copies, and cleans up as the next mount does.
func TestKilledAtEveryStep(t *testing.T) {
	e := newFaultEnv(t)
	for _, o := range faultObjects {
		for _, p := range o.points {
			if p == "chunk" && canReflink(t, e.path("file"), filepath.Join(e.work, "probe")) {
				continue
			}
			frozen := freeze(t, e.lower)
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperCopies$", "-test.v")
			cmd.Env = append(os.Environ(), "LAMINA_FAULT=copyup."+p+"=kill", "LAMINA_TEST_COPY="+e.lower+"\n"+o.name+"\n"+e.work)
			out, err := cmd.CombinedOutput()
			if err == nil || err.Error() != "signal: killed" {
				t.Errorf("%s: %s: the process ended with %v: %s", o.name, p, err, out)
			}
			frozen.check(t)
			if entries, err := os.ReadDir(e.work); len(entries) != 1 || err != nil {
				t.Errorf("%s: %s: left in the staging directory: %v, %v; want the torn copy", o.name, p, entries, err)
			}
			if err := e.s.Clean(); err != nil {
				t.Error(err)
			}
			e.workEmpty(t)
		}
	}
}

// TestHelperCopies is the process that TestKilledAtEveryStep kills.
func TestHelperCopies(t *testing.T) {
	job := strings.Split(os.Getenv("LAMINA_TEST_COPY"), "\n")
	if len(job) != 3 {
		t.Skip("only run by TestKilledAtEveryStep")
	}
	e := &env{lower: job[0], lowerFd: openDir(t, job[0]), work: job[2], workFd: openDir(t, job[2])}
	e.s = copyup.NewStager(copyup.Options{Work: e.workFd, Sync: true})
	src := e.source(t, job[1])
	c, err := e.s.Object(src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1})
	t.Fatal(fmt.Sprint("survived: ", c, err))
}
