package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/fault"
)

// pullEnv makes the test binary pull: ROOT NAME.
const pullEnv = "LAMINA_IMAGE_PULL"

func init() {
	args := strings.Fields(os.Getenv(pullEnv))
	if len(args) != 2 {
		return
	}
	s, err := Open(args[0])
	if err == nil {
		_, err = s.Pull(context.Background(), args[1], PullOptions{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestKilledPull: a pull that is killed at each of the points it comes by, and at any moment, leaves the whole image or
// nothing, and the next one is not in its way.
func TestKilledPull(t *testing.T) {
	f := newFake(t)
	var layers [][]byte
	for i := range 3 {
		layers = append(layers, layerTar(t, entry{name: fmt.Sprintf("%d/", i)}, entry{name: fmt.Sprintf("%d/f", i), body: noise(200_000 + i)}))
	}
	_, d := f.image(t, imageConfig(t, "cmd", layers...), layers...)
	f.tag(d)
	root := filepath.Join(t.TempDir(), "store")
	child := func(env ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(append(os.Environ(), pullEnv+"="+root+" "+f.name()), env...)
		return cmd
	}
	// check looks at what a dead process left, and removes it.
	check := func(what string) {
		t.Helper()
		s, err := Open(root)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.checkInvariants(t)
		got := list(t, s, ListOptions{All: true})
		if len(got) > 1 || len(got) == 1 && tagsOf(got) != f.name()+":latest" {
			t.Fatalf("%s: the store has %+v", what, got)
		}
		if n, _ := s.names("layerdb/sha256"); len(n) != 3*len(got) {
			t.Fatalf("%s: %d images, %d layers", what, len(got), len(n))
		}
		if n, _ := s.names("tmp"); len(n) != 0 {
			t.Fatalf("%s: left %q", what, n)
		}
		pull(t, s, f.name(), PullOptions{})
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	run(t, child())
	took := time.Since(began)
	check("whole")

	if !fault.Enabled {
		t.Log("built without -tags faults: killed at random moments only")
	}
	points := 0
	for _, point := range fault.List() {
		if !fault.Enabled || !strings.HasPrefix(point, "image.") {
			continue
		}
		for hit := 1; ; hit++ {
			if err := child(fmt.Sprintf("LAMINA_FAULT=%s#%d=kill", point, hit)).Run(); err == nil {
				break // it does not come by so often
			}
			points++
			check(fmt.Sprint(point, " ", hit))
		}
		check("whole")
	}
	if points < 10 && fault.Enabled {
		t.Errorf("killed at %d points only", points)
	}
	killed := 0
	for round := 0; round < 15 || killed == 0 && round < 150; round++ { // took may have been measured at a bad moment
		cmd := child()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rand.Int64N(int64(took))), func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() < 0 {
			killed++
		}
		check("any moment")
	}
	if killed == 0 {
		t.Error("no process was killed in time")
	}
}
