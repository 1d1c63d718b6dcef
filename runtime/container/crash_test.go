package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/fault"
)

// faultyPath is the program that plays lamina, built with fault points.
var faultyPath = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("LAMINA_TEST_FAULTY"); p != "" {
		return p, nil
	}
	dir, err := binDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "faulty.test")
	cmd := exec.Command("go", "test", "-c", "-tags", "faults", "-o", path, "github.com/laminafs/lamina/runtime/container")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return path, nil
})

// TestFaults: whatever step is the last of a process, or fails, the next command finds a container that is there or is
// not, runs or does not, and nothing else.
func TestFaults(t *testing.T) {
	program, err := faultyPath()
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t)
	points := 0
	for _, point := range fault.List() {
		if !strings.HasPrefix(point, "container.") {
			continue
		}
		points++
		for _, how := range []string{"kill", "EIO"} {
			for _, rm := range []bool{false, true} {
				what := point + "=" + how
				if rm {
					what += " with --rm"
				}
				t.Run(what, func(t *testing.T) {
					b := &box{t: t, root: b.root, program: program, env: []string{"LAMINA_FAULT=" + point + "=" + how}}
					o := []opt{name("faulty"), config(volumeAt("/anon"))}
					if rm {
						o = append(o, autoRemove)
					}
					_, errs, _ := b.run(script("echo x > /f"), o...)
					b.try("rm", "faulty") // hits the points of removal
					b.env = nil
					b.sound(errs, rm)
				})
			}
		}
	}
	if points < 10 {
		t.Errorf("%d points", points)
	}
}

// armed is the box with a program that is told later where it is to fail: by arm. waiting returns when it waits
// at a point.
func (b *box) armed(t *testing.T) (_ *box, arm, waiting func(string)) {
	t.Helper()
	program, err := faultyPath()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "arming")
	arm = func(text string) {
		t.Helper()
		// At once: one that waits takes an empty file, too, for something else.
		err := os.WriteFile(file+".new", []byte(text), 0o600)
		if err := errors.Join(err, os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	arm("")
	waiting = func(point string) {
		t.Helper()
		eventually(t, "the monitor waits", func() bool {
			at, err := os.ReadFile(file + ".waiting")
			return err == nil && string(at) == point
		})
	}
	return &box{t: t, root: b.root, program: program, env: []string{"LAMINA_FAULT_FILE=" + file}}, arm, waiting
}

// sound finds what is left after a fault, and removes it.
func (b *box) sound(errs string, rm bool) {
	b.t.Helper()
	for _, c := range b.ps() {
		// Its monitor may be in the middle of ending it, since a client that dies takes it along, and with --rm of removing it.
		for _, args := range [][]string{{"wait", c.ID, "not-running"}, {"inspect", c.ID}, {"rm", c.ID}} {
			out, why, code := b.try(args...)
			if code != 0 && rm && strings.Contains(why, "No such container") {
				break
			}
			if code != 0 {
				b.t.Fatalf("%q: exit %d: %s, after %q", args, code, why, errs)
			}
			if args[0] != "inspect" {
				continue
			}
			if i := decode[api.InspectResponse](b.t, out); i.State.Running || i.State.Pid != 0 {
				b.t.Errorf("%+v, after %q", i.State, errs)
			}
		}
	}
	b.nothingLeft()
	for _, dir := range []string{"containers", "layerdb/mounts", "run", "run/laminafs", "volumes"} {
		entries, err := b.entries(dir)
		for _, e := range entries {
			if e != ".lock" {
				b.t.Errorf("%s is left in %s, after %q", e, dir, errs)
			}
		}
		if err != nil {
			b.t.Error(err)
		}
	}
}

// entries are the names in a directory of the root. The place where laminafs tells of mounts may be there or not, and
// is no entry of the directory that it is in.
func (b *box) entries(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.root, dir))
	if dir == "run/laminafs" && os.IsNotExist(err) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if dir != "run" || e.Name() != "laminafs" {
			names = append(names, e.Name())
		}
	}
	return names, err
}
