package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest/deep"
)

// The test binary is also a process that is killed while it makes and removes volumes.
const churnEnv = "LAMINA_VOLUME_CHURN"

func TestMain(m *testing.M) {
	if root := os.Getenv(churnEnv); root != "" {
		churn(root)
	}
	os.Exit(m.Run())
}

func churn(root string) {
	s, err := Open(root)
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); {
		if _, err = s.Create("churned", nil, nil); err == nil {
			fmt.Println("made")
			err = s.Remove("churned", nobody)
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

func nobody(string) ([]string, error) { return nil, nil }

func usedBy(who ...string) Users {
	return func(string) ([]string, error) { return who, nil }
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Store, name string, labels map[string]string) *Volume {
	t.Helper()
	v, err := s.Create(name, labels, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// clean fails where something lies in the store besides volumes.
func clean(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && CheckName(e.Name()) != nil {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"ab": true, "a.b-c_9": true, "0x": true, strings.Repeat("n", 255): true,
		"": false, "a": false, "..": false, ".ab": false, "-ab": false, "_ab": false, "a/b": false, "a b": false, "ä1": false,
		"a\n": false, strings.Repeat("n", 256): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestLifeOfAVolume(t *testing.T) {
	s := open(t)
	labels := map[string]string{"a": "b"}
	v := create(t, s, "data", labels)
	if st, err := os.Stat(v.Mountpoint()); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mount point: %v, %v", st, err)
	}
	if v.Mountpoint() != filepath.Join(s.dir, "data/_data") {
		t.Errorf("mount point is %s", v.Mountpoint())
	}
	again := create(t, s, "data", map[string]string{"other": "label"})
	if again.Labels["a"] != "b" || len(again.Labels) != 1 {
		t.Errorf("labels of the volume that was there: %v", again.Labels)
	}
	got, err := s.Get("data")
	if err != nil || got.Labels["a"] != "b" || !got.CreatedAt.Equal(v.CreatedAt) {
		t.Errorf("Get: %+v, %v", got, err)
	}
	api := got.API()
	if api.Name != "data" || api.Driver != "local" || api.Scope != "local" || api.Mountpoint != v.Mountpoint() {
		t.Errorf("API: %+v", api)
	}
	if _, err := time.Parse(time.RFC3339, api.CreatedAt); err != nil {
		t.Error(err)
	}
	anonymous := create(t, s, "", nil)
	if len(anonymous.Name) != 64 || !anonymous.Anonymous {
		t.Errorf("anonymous: %+v", anonymous)
	}
	if _, ok := anonymous.Labels[AnonymousLabel]; !ok {
		t.Errorf("labels: %v", anonymous.Labels)
	}
	vs, err := s.List()
	if err != nil || len(vs) != 2 {
		t.Errorf("List: %v, %v", vs, err)
	}
	if err := s.Remove("data", usedBy("c1", "c2")); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "c1, c2") {
		t.Errorf("Remove of one in use: %v", err)
	}
	if err := s.Remove("data", nobody); err != nil {
		t.Error(err)
	}
	for _, err := range []error{s.Remove("data", nobody), s.Remove("../x", nobody)} {
		if !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Remove of none: %v", err)
		}
	}
	if _, err := s.Get("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of none: %v", err)
	}
	if _, err := s.Create("with-options", nil, map[string]string{"type": "nfs", "device": "x"}); err == nil || !strings.Contains(err.Error(), "type=nfs") {
		t.Errorf("options: %v", err)
	}
	clean(t, s)
}

func TestPrune(t *testing.T) {
	s := open(t)
	used := create(t, s, "", nil).Name
	free := create(t, s, "", nil).Name
	create(t, s, "named", nil)
	kept := create(t, s, "", map[string]string{"keep": ""}).Name
	f := filepath.Join(s.dir, free, dataDir, "f")
	if err := os.WriteFile(f, make([]byte, 100<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(f, f+"2"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sync", "--file-system", f).CombinedOutput(); err != nil { // until it is written back its blocks are not settled
		t.Fatalf("%v: %s", err, out)
	}
	users := func(name string) ([]string, error) {
		if name == used {
			return []string{"c"}, nil
		}
		return nil, nil
	}
	keep := func(v *Volume) bool { _, ok := v.Labels["keep"]; return ok }
	removed, bytes, err := s.Prune(false, users, keep)
	if err != nil || len(removed) != 1 || removed[0] != free {
		t.Fatalf("removed %v, %v", removed, err)
	}
	if bytes < 100<<10 || bytes > 150<<10 {
		t.Errorf("%d bytes of 100 KiB", bytes)
	}
	removed, _, err = s.Prune(true, users, nil)
	if err != nil || len(removed) != 2 {
		t.Fatalf("removed %v, %v, not named and %s", removed, err, kept)
	}
	if vs, err := s.List(); err != nil || len(vs) != 1 || vs[0].Name != used {
		t.Errorf("left: %v, %v", vs, err)
	}
	clean(t, s)
}

func TestManyMakeOne(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Create("same", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 20 {
		wg.Go(func() {
			name := "one" + strconv.Itoa(i)
			if _, err := s.Create(name, nil, nil); err != nil {
				t.Error(err)
			}
			if err := s.Remove(name, nobody); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if vs, err := s.List(); err != nil || len(vs) != 1 {
		t.Errorf("left: %v, %v", vs, err)
	}
	clean(t, s)
}

// A killed process leaves a whole volume or none, and nothing that the next one does not clean up.
func TestKilledInTheMiddle(t *testing.T) {
	s := open(t)
	root := filepath.Dir(s.dir)
	for range 20 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), churnEnv+"="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 4)); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill() // it runs for a minute
		_ = cmd.Wait()         // killed
		vs, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range vs {
			if _, err := os.Stat(v.Mountpoint()); err != nil {
				t.Errorf("half a volume: %v", err)
			}
		}
	}
	create(t, s, "last", nil)
	clean(t, s)
}

// TestDeeperThanAPath: a container may make what no path leads to. Nothing else depends on that.
func TestDeeperThanAPath(t *testing.T) {
	s := open(t)
	v, err := s.Create("deep", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := deep.Descend(t, v.Mountpoint(), strings.Repeat("n", 250), 20, true).OpenFile("file", os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Size(); err != nil || n < 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if names, n, err := s.Prune(true, nobody, nil); err != nil || len(names) != 1 || n < 1<<20 {
		t.Errorf("%q, %d bytes, %v", names, n, err)
	}
}

// TestDamagedVolume: one that cannot be read hides no other, and can be removed.
func TestDamagedVolume(t *testing.T) {
	s := open(t)
	var told []string
	s.Damaged = func(d *DamagedError) { told = append(told, d.Name) }
	var bad *Volume
	for _, name := range []string{"bad", "good"} {
		v, err := s.Create(name, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name == "bad" {
			bad = v
		}
	}
	record := filepath.Join(bad.dir, optsFile)
	if err := os.Truncate(record, 0); err != nil {
		t.Fatal(err)
	}
	if vs, err := s.List(); err != nil || len(vs) != 1 || vs[0].Name != "good" || len(told) != 1 {
		t.Errorf("%v, %v, told of %q", vs, err, told)
	}
	var d *DamagedError
	if _, err := s.Get("bad"); !errors.As(err, &d) || d.Path != record {
		t.Error(err)
	}
	if names, _, err := s.Prune(true, nobody, nil); err != nil || len(names) != 1 || names[0] != "good" {
		t.Errorf("%q, %v", names, err)
	}
	if err := s.Remove("bad", usedBy("c")); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := s.Remove("bad", nobody); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("bad"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
