package image

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Several processes load images that share layers, at once: each layer is there once, each image is whole.
func TestProcessesAtOnce(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "store")
	var layers [][]byte
	for i := range 4 {
		layers = append(layers, layerTar(t, entry{name: fmt.Sprint(i), body: strings.Repeat("x", 100_000)}))
	}
	const images = 3
	for i := range images {
		own := layerTar(t, entry{name: "own", body: fmt.Sprint(i)})
		writeFile(t, filepath.Join(dir, fmt.Sprint(i)), string(dockerArchive(t, "c", []string{fmt.Sprintf("i:%d", i)}, append(layers[:4:4], own)...)))
	}
	var wg sync.WaitGroup
	for i := range 3 * images {
		wg.Go(func() {
			out, err := helperCommand(nil, root, "load", filepath.Join(dir, fmt.Sprint(i%images))).CombinedOutput()
			if err != nil {
				t.Errorf("load: %v: %s", err, out)
			}
			name := fmt.Sprintf("c%d", i)
			for _, args := range [][]string{{"mount", name, fmt.Sprintf("i:%d", i%images)}, {"tag", fmt.Sprintf("i:%d", i%images), fmt.Sprintf("t:%d", i)}, {"list"}, {"unmount", name}} {
				if out, err := helperCommand(nil, append([]string{root}, args...)...).CombinedOutput(); err != nil {
					t.Errorf("%q: %v: %s", args, err, out)
				}
			}
		})
	}
	wg.Wait()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if got, _ := s.names("layerdb/sha256"); len(got) != 4+images {
		t.Errorf("%d layers, want %d", len(got), 4+images)
	}
	if got := list(t, s, ListOptions{}); len(got) != images {
		t.Errorf("%d images, want %d", len(got), images)
	}
	for _, verb := range []string{"rmi", "prune"} { // prune takes what others are to remove
		for i := range images {
			wg.Go(func() {
				if out, err := helperCommand(nil, root, verb, fmt.Sprintf("i:%d", i)).CombinedOutput(); err != nil {
					t.Errorf("%s: %v: %s", verb, err, out)
				}
			})
		}
		wg.Wait()
	}
	s.checkInvariants(t)
	if got, _ := s.names("layerdb/sha256"); len(got) != 0 {
		t.Errorf("%d layers are left", len(got))
	}
}

// Goroutines of one process exclude each other as processes do.
func TestGoroutinesAtOnce(t *testing.T) {
	s := openStore(t)
	a := layerTar(t, entry{name: "a", body: "1"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			archive := dockerArchive(t, "c", []string{fmt.Sprintf("i:%d", i)}, a, layerTar(t, entry{name: fmt.Sprint(i)}))
			for range 5 {
				if _, err := s.Load(t.Context(), LoadOptions{Stdin: bytes.NewReader(archive)}); err != nil {
					t.Error(err)
				}
				img, err := s.Get(fmt.Sprintf("i:%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.NewMount(fmt.Sprintf("c%d", i), img.ID); err != nil {
					t.Error(err)
				}
				if _, err := s.Remove(fmt.Sprintf("i:%d", i), RemoveOptions{}); err != nil {
					t.Error(err)
				}
				if err := s.RemoveMount(fmt.Sprintf("c%d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.checkInvariants(t)
	if got, _ := s.names("layers"); len(got) != 1 {
		t.Errorf("left %q", got)
	}
}

// A process that changes the store is killed at any moment: what it was to do is done or not, and the next command
// leaves nothing of it.
func TestKilledAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "store")
	var layers [][]byte
	for i := range 3 {
		var entries []entry
		for j := range 300 {
			entries = append(entries, entry{name: fmt.Sprintf("%d/%d", i, j), body: strings.Repeat("x", 1000)})
		}
		layers = append(layers, layerTar(t, entries...))
	}
	archive := filepath.Join(dir, "archive")
	writeFile(t, archive, string(dockerArchive(t, "c", []string{"i:1"}, layers...)))
	// How long a load takes here.
	began := time.Now()
	run(t, helperCommand(nil, root, "load", archive))
	took := time.Since(began)
	run(t, helperCommand(nil, root, "rmi", "i:1"))

	rounds := 15
	if os.Getenv("LAMINA_LONG") != "" {
		rounds = 1000
	}
	killed := 0
	for round := 0; round < rounds || killed == 0 && round < 10*rounds; round++ { // took may have been measured at a bad moment
		for _, args := range [][]string{{"load", archive}, {"rmi", "i:1"}} {
			cmd := helperCommand(nil, append([]string{root}, args...)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(rand.Int64N(int64(took)*3/2)), func() { _ = cmd.Process.Kill() })
			ended := cmd.Wait()
			timer.Stop()
			var exit *exec.ExitError
			if errors.As(ended, &exit) && exit.ExitCode() < 0 {
				killed++
			}
			s, err := Open(root)
			if err != nil {
				t.Fatal(err)
			}
			s.checkInvariants(t)
			got := list(t, s, ListOptions{All: true})
			if len(got) > 1 || len(got) == 1 && (tagsOf(got) != "i:1" || got[0].Size != 900_000) {
				t.Fatalf("the store has %+v", got)
			}
			if n, _ := s.names("layerdb/sha256"); len(n) != 3*len(got) {
				t.Fatalf("%d images, %d layers", len(got), len(n))
			}
		}
	}
	if killed == 0 {
		t.Error("no process was killed in time")
	}
	t.Logf("%d were killed", killed)
}
