//go:build faults

package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/fault"
	"golang.org/x/sys/unix"
)

// state is all that a store shows: images with names and layers, and containers' layers.
func state(t *testing.T, s *Store) string {
	t.Helper()
	var lines []string
	for _, l := range list(t, s, ListOptions{All: true}) {
		lines = append(lines, fmt.Sprintf("%s %q %d bytes", l.ID, l.RepoTags, l.Size))
	}
	err := s.shared(func() error {
		for _, place := range []string{"layerdb/sha256", "layerdb/mounts"} {
			names, err := s.names(place)
			if err != nil {
				return err
			}
			lines = append(lines, names...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// operations are changes of the store that crashStore makes.
var operations = [][]string{
	{"load", "NEW"},
	{"import", "TAR", "new:1"},
	{"tag", "old:1", "new:1"},
	{"tag", "old:1", "old:2"},
	{"rmi", "old:1"},
	{"rmi", "old:2"},
	{"prune"},
	{"mount", "c2", "old:1"},
	{"mount", "c2"},
	{"unmount", "c1"},
}

// crashStore makes a store, and the archives that operations name.
func crashStore(t *testing.T) (root string, words *strings.Replacer) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "22"}), layerTar(t, entry{name: "c", body: "333"})
	old := load(t, s, dockerArchive(t, "one", []string{"old:1"}, a))
	load(t, s, dockerArchive(t, "two", []string{"old:2"}, a, b))
	if _, err := s.NewMount("c1", old[0].ID); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "new"), string(dockerArchive(t, "three", []string{"new:1", "old:2"}, a, b, c)))
	writeFile(t, filepath.Join(dir, "tar"), string(c))
	return s.root, strings.NewReplacer("NEW", filepath.Join(dir, "new"), "TAR", filepath.Join(dir, "tar"))
}

// oneImageLess strips the ID of an image whose time is its making's, which differs from run to run.
func oneImageLess(state, operation string) string {
	if operation != "import" {
		return state
	}
	lines := strings.Split(state, "\n")
	for i, l := range lines {
		if strings.Contains(l, `["new:1"]`) {
			lines[i] = l[strings.Index(l, " "):]
		}
	}
	return strings.Join(lines, "\n")
}

// Each operation is killed, or fails, at each point that it comes by, each time that it does. Then the store is as
// before or as after, nothing is left, and the operation can be done again.
func TestCrash(t *testing.T) {
	for _, op := range operations {
		t.Run(strings.Join(op, " "), func(t *testing.T) {
			t.Parallel()
			root, words := crashStore(t)
			args := append([]string{"ROOT"}, op...)
			for i := range args {
				args[i] = words.Replace(args[i])
			}
			pristine := root + ".pristine"
			command(t, "cp", "-a", root, pristine)
			s := &Store{root: root}
			before := oneImageLess(state(t, s), op[0])
			args[0] = root
			run(t, helperCommand(nil, args...))
			after := oneImageLess(state(t, s), op[0])
			s.checkInvariants(t)
			if before == after {
				t.Fatal("the operation changes nothing")
			}
			olds, news := 0, 0
			for _, point := range fault.List() {
				if !strings.HasPrefix(point, "image.") {
					continue
				}
				for _, what := range []string{"kill", "EIO"} {
					for hit := 1; ; hit++ {
						command(t, "rm", "-rf", root)
						command(t, "cp", "-a", pristine, root)
						cmd := helperCommand(nil, args...)
						cmd.Env = append(cmd.Env, fmt.Sprintf("LAMINA_FAULT=%s#%d=%s", point, hit, what))
						err := cmd.Run()
						if err == nil {
							break // it does not come by so often
						}
						var exit *exec.ExitError
						if !errors.As(err, &exit) || what == "kill" && exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
							t.Fatalf("%s#%d=%s: %v", point, hit, what, err)
						}
						// Whoever has the store open already sees it whole ...
						got := oneImageLess(state(t, s), op[0])
						switch got {
						case before:
							olds++
						case after:
							news++
						default:
							t.Errorf("%s#%d=%s: the store has\n%s\nit had\n%s\nand is to have\n%s", point, hit, what, got, before, after)
						}
						// ... and the next command cleans up.
						s, err := Open(root)
						if err != nil {
							t.Fatal(err)
						}
						s.checkInvariants(t)
						if again := oneImageLess(state(t, s), op[0]); again != got {
							t.Errorf("%s#%d=%s: opening changed\n%s\nto\n%s", point, hit, what, got, again)
						}
						if got == before {
							run(t, helperCommand(nil, args...))
							if again := oneImageLess(state(t, s), op[0]); again != after {
								t.Errorf("%s#%d=%s: done again, the store has\n%s\nand is to have\n%s", point, hit, what, again, after)
							}
						}
					}
				}
			}
			if olds == 0 || news == 0 {
				t.Errorf("%d times nothing was done, %d times all: want both", olds, news)
			}
			if err := os.RemoveAll(pristine); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCrashedJournal: the power went before the journal was on the disk. The change is as if it had not been.
func TestCrashedJournal(t *testing.T) {
	root, _ := crashStore(t)
	s := &Store{root: root}
	before := state(t, s)
	for _, text := range []string{"", `[{"From":"tmp/`, "\x00\x00\x00\x00"} {
		dir := s.path(transactionPath(randomHex(16)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, journalName), text)
		again, err := Open(root)
		if err != nil {
			t.Fatalf("journal %q: %v", text, err)
		}
		if got := state(t, again); got != before {
			t.Errorf("journal %q: %s\nwant %s", text, got, before)
		}
		again.checkInvariants(t)
		if _, err := os.Stat(dir); !isNotExist(err) {
			t.Errorf("journal %q: its folder is still there: %v", text, err)
		}
	}
}
