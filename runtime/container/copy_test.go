package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uniontest/deep"
)

// TestCopyReadOnly: what a container may only read is read and not written, whether it runs or not.
func TestCopyReadOnly(t *testing.T) {
	b := newBox(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte("content"), 0o644), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	id := b.must("create", "-", newRun(words("sleep", "1000"), mounts(
		mount.Mount{Type: mount.TypeBind, Source: dir, Target: "/data", ReadOnly: true},
		mount.Mount{Type: mount.TypeBind, Source: dir, Target: "/home"},
	), host(func(h *api.HostConfig) { h.ReadonlyRootfs = true })))
	for _, state := range []string{"stopped", "running"} {
		got := filepath.Join(t.TempDir(), "got")
		b.must("cpout", id, "/data/file", got)
		if text, err := os.ReadFile(got); string(text) != "content" {
			t.Errorf("%s: %q, %v", state, text, err)
		}
		for _, dest := range []string{"/data/new", "/tmp/new"} {
			if _, errs, code := b.try("cpin", id, file, dest); code == 0 || !strings.Contains(errs, "read-only") {
				t.Errorf("%s, to %s: exit %d, %q", state, dest, code, errs)
			}
		}
		b.must("cpin", id, file, "/home/"+state)
		if !exists1(filepath.Join(dir, state)) {
			t.Errorf("%s: not written to what may be", state)
		}
		if state == "stopped" {
			b.must("start", id)
		}
	}
}

// TestCopyToLink: a destination that is a symbolic link stands for what it leads to, which need not be there.
func TestCopyToLink(t *testing.T) {
	b := newBox(t)
	id := b.start(script("cd /tmp; echo old >target; ln -s target link; ln -s /tmp/link chain; ln -s none dangling; mkdir dir; " +
		"ln -s dir dirlink; ln -s loop loop; echo ok; sleep 1000"))
	eventually(t, "the links are there", func() bool { return strings.Contains(b.must("logs", id), "ok") })
	src := filepath.Join(t.TempDir(), "src")
	write := func(text string) string {
		t.Helper()
		if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return src
	}
	for link, target := range map[string]string{"link": "target", "chain": "target", "dangling": "none", "dirlink": "dir/src"} {
		b.must("cpin", id, write(link), "/tmp/"+link)
		if out, _, _ := b.exec(id, "cat", "/tmp/"+target); out != link {
			t.Errorf("%s in the container: %q", link, out)
		}
		if _, _, code := b.exec(id, "readlink", "/tmp/"+link); code != 0 {
			t.Errorf("%s in the container is a link no more", link)
		}
	}
	for _, bad := range []string{"loop", "link/", "dangling/"} {
		if _, errs, code := b.try("cpin", id, src, "/tmp/"+bad); code == 0 {
			t.Errorf("%s: exit %d, %q", bad, code, errs)
		}
	}

	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(dir+"/target", []byte("old"), 0o666), os.Chmod(dir+"/target", 0o666),
		os.Symlink("target", dir+"/link"), os.Symlink(dir+"/none", dir+"/dangling")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"link/", "dangling/"} {
		if _, errs, code := b.try("cpout", id, "/tmp/target", dir+"/"+bad); code == 0 {
			t.Errorf("%s here: exit %d, %q", bad, code, errs)
		}
	}
	for link, target := range map[string]string{"link": "target", "dangling": "none"} {
		b.must("cpout", id, "/tmp/target", dir+"/"+link)
		text, err := os.ReadFile(dir + "/" + target)
		if to, linkErr := os.Readlink(dir + "/" + link); err != nil || linkErr != nil || filepath.Base(to) != target || string(text) == "old" {
			t.Errorf("%s here: %q", link, fmt.Sprint(string(text), err, linkErr))
		}
	}
}

// TestCopyDeeperThanAPath: the names of a tree that a container may well make would take any amount of memory.
func TestCopyDeeperThanAPath(t *testing.T) {
	dir := t.TempDir()
	deep.Descend(t, dir, strings.Repeat("n", 250), 20, true)
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(top)
	if err := writeTree(io.Discard, top, ".", "", idShift{}, nil); !errors.Is(err, unix.ENAMETOOLONG) || len(err.Error()) > 1000 {
		t.Error(err)
	}
}
