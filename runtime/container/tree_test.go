package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moby/moby/api/types/mount"
)

// TestTreeWhileEnding: what works in a container that runs and in one that does not, works in between.
func TestTreeWhileEnding(t *testing.T) {
	b := newBox(t)
	data := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(data, "file"), []byte("content"), 0o644), os.Chmod(data, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{faultEnded.Name(), faultUnmounted.Name()} {
		t.Run(point, func(t *testing.T) {
			b, arm, waiting := b.armed(t)
			id := b.start(words("sleep", "1000"), mounts(mount.Mount{Type: mount.TypeBind, Source: data, Target: "/data"}))
			arm(point + "=wait")
			defer arm("")
			if err := unix.Kill(b.inspect(id).State.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waiting(point)
			before := connections(t, id)
			got := filepath.Join(t.TempDir(), "got")
			copied, exported := make(chan error, 1), make(chan error, 1)
			go func() {
				_, errs, code := b.try("cpout", id, "/data/file", got)
				copied <- failed(code, errs)
			}()
			names := ""
			go func() {
				out, errs, code := b.try("export", id)
				for r := tar.NewReader(strings.NewReader(out)); ; {
					h, err := r.Next()
					if err != nil {
						exported <- errors.Join(failed(code, errs), notEnd(err))
						return
					}
					names += h.Name + "\n"
				}
			}()
			if point == faultEnded.Name() { // when the union is gone there is no run any more to ask for
				if _, errs, code := b.try("top", id); code == 0 || !strings.Contains(errs, "is not running") {
					t.Errorf("top: %d, %s", code, errs)
				}
			}
			lock := filepath.Join(b.root, "containers", id, monitorLockFile)
			eventually(t, "they have asked, or wait for the monitor, or have ended", func() bool {
				return connections(t, id) >= before+2 || waiters(t, lock) >= 2 || len(copied)+len(exported) > 0
			})
			arm("")
			if err := <-copied; err != nil {
				t.Errorf("cp: %v", err)
			}
			if text, err := os.ReadFile(got); string(text) != "content" {
				t.Errorf("copied %q, %v", text, err)
			}
			if err := <-exported; err != nil {
				t.Errorf("export: %v", err)
			}
			if !strings.Contains(names, "bin/busybox\n") || strings.Contains(names, "data/file") {
				t.Errorf("exported %q", names)
			}
			b.must("rm", id)
		})
	}
}

func failed(code int, errs string) error {
	if code == 0 {
		return nil
	}
	return errors.New(errs)
}

func notEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// connections are the sockets by the name of the container's, with the one that is listened to.
func connections(t *testing.T, id string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), socketName(id))
}

// waiters are those who want the lock that somebody has (proc_locks(5)).
func waiters(t *testing.T, path string) (n int) {
	t.Helper()
	var st unix.Stat_t
	text, err := os.ReadFile("/proc/locks")
	if err := errors.Join(err, unix.Stat(path, &st)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
			n++
		}
	}
	return n
}
