package balance

import (
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/figures"
	"github.com/laminafs/lamina/unionfs"
	"github.com/laminafs/lamina/unionfs/transport"
	"golang.org/x/sys/unix"
)

// workload makes the kernel take references in every way there is: lookups, listings, new objects, names of one
// object, and objects without a name.
const workload = `set -e
find . -printf '%i %n %s\n' >/dev/null; ls -lR . >/dev/null; cat d0/f1 d1/f2 >/dev/null
mkdir new new/deep; for i in 1 2 3 4 5 6 7 8 9; do echo $i >new/f$i; ln new/f$i new/l$i; done
ln d0/f1 d0/hard; echo more >>d1/f1; mv d2 moved; mv new/deep moved/; rm -rf d3; mkdir d3; rm new/f1 new/l2
exec 7<>d4/f1; rm d4/f1; echo gone >&7; exec 7>&-
ln -s target new/s; readlink new/s >/dev/null; test ! -e absent; find . -type f -exec cat {} + >/dev/null`

// After the kernel has forgotten everything, nothing is left but the root, and what the nodes had open is closed. And
// a server that has ended leaves neither goroutines nor descriptors behind.
func TestLookupCountsBalance(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make the kernel drop its caches")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	for _, redirect := range []bool{false, true} {
		dir := t.TempDir()
		for _, name := range []string{"l", "u", "w", "m"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		sh(t, filepath.Join(dir, "l"), `for d in 0 1 2 3 4 5; do mkdir d$d; for f in 1 2 3; do echo $d$f >d$d/f$f; ln d$d/f$f d$d/x$f; done; done`)
		before, fds := runtime.NumGoroutine(), descriptors(t)
		serveAndForget(t, dir, redirect)
		eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
		eventually(t, "descriptors are closed", func() bool { return descriptors(t) <= fds })
	}
}

func serveAndForget(t *testing.T, dir string, redirect bool) {
	at := func(name string) string { return filepath.Join(dir, name) }
	fs, err := unionfs.New(unionfs.Config{Lowers: []string{at("l")}, Upper: at("u"), Work: at("w"), RedirectDir: redirect})
	if err != nil {
		t.Fatal(err)
	}
	m, err := transport.New(at("m"), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fs.SetNotifier(m.Notifier())
	s, err := m.Serve(fs, log.Default(), false, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Unmount(false); err != nil {
			t.Errorf("unmount: %v", err)
			_ = m.Unmount(true) // the test has failed already
		}
		<-s.Done()
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}()
	sh(t, at("m"), workload)
	unused := figures.Union{Nodes: 1}
	eventually(t, "all nodes but the root are forgotten", func() bool {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		return held(fs) == unused
	})
	if got := held(fs); got != unused {
		t.Errorf("left: %+v", got)
	}
}

// held is what the union holds in memory. The index of the root stays.
func held(fs *unionfs.FS) figures.Union {
	s := fs.Stats()
	return figures.Union{Nodes: s.Nodes, Descriptors: s.Descriptors}
}

// sh runs a script in a process of its own: this one serves the mount.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range names {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") { // the runtime's own, made once
			n++
		}
	}
	return n
}

// eventually waits for what happens in the background, as forgetting does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Errorf("not seen within a minute: %s", what)
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 2e7}, nil) // poll; an interrupted sleep is as good
	}
}
