package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest/meanwhile"
)

// image is a directory as an image may have it.
func image(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	ok(os.MkdirAll(p("sub/deep"), 0o755))
	ok(os.WriteFile(p("sub/file"), []byte("content"), 0o640))
	ok(os.Link(p("sub/file"), p("also")))
	ok(os.Symlink("/etc/passwd", p("out")))
	ok(os.Symlink("sub", p("zub"))) // a link to a directory, named after what is below that
	ok(unix.Mkfifo(p("fifo"), 0o600))
	ok(os.WriteFile(p("setid"), []byte("x"), 0o755))
	ok(os.Chmod(p("setid"), 0o755|os.ModeSetuid|os.ModeSetgid))
	ok(os.Chmod(p("sub/deep"), 0o777|os.ModeSticky))
	sparse, err := os.OpenFile(p("sparse"), os.O_RDWR|os.O_CREATE, 0o600)
	ok(err)
	ok(sparse.Truncate(64 << 20))
	_, err = sparse.WriteAt([]byte("middle"), 32<<20)
	ok(err)
	ok(sparse.Close())
	if err := unix.Setxattr(p("sub/file"), "user.note", []byte("kept"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		ok(os.Lchown(p("sub/file"), 1234, 5678))
		ok(os.Lchown(p("out"), 1234, 5678))
		ok(os.Chown(dir, 77, 88))
	}
	ok(os.Chmod(dir, 0o750))
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	for _, name := range []string{"sub/file", "sub/deep", "sub", "fifo", "."} {
		ok(os.Chtimes(p(name), when, when))
	}
	return dir
}

// describe lists a tree with all that a copy has to keep.
func describe(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := []string{rel, syscallMode(st.Mode), itoa(int(st.Uid)), itoa(int(st.Gid)), time.Unix(st.Mtim.Unix()).UTC().String()}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line = append(line, itoa(len(b)), strings.Trim(string(b), "\x00"))
			if first, ok := inodes[st.Ino]; ok {
				line = append(line, "is "+first)
			}
			inodes[st.Ino] = rel
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, "user.note", buf); err == nil {
				line = append(line, "note="+string(buf[:n]))
			}
		}
		if target, err := os.Readlink(path); err == nil {
			line = append(line[:4], target) // the time of a link's making is not the point
		}
		out = append(out, strings.Join(line, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func populate(t *testing.T, v *Volume, dir string) []string {
	t.Helper()
	src, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	skipped, err := v.Populate(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	return skipped
}

func TestPopulateKeepsAll(t *testing.T) {
	v := create(t, open(t), "data", nil)
	dir := image(t)
	if skipped := populate(t, v, dir); len(skipped) > 0 {
		t.Errorf("skipped %v", skipped)
	}
	want, got := describe(t, dir), describe(t, v.Mountpoint())
	if !slices.Equal(want, got) {
		t.Errorf("image:\n%s\nvolume:\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(v.Mountpoint(), "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the sparse file takes %d bytes (%v)", st.Blocks*512, err)
	}
	if _, err := os.Lstat(filepath.Join(v.dir, stageDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the staging directory is left: %v", err)
	}
}

func TestPopulateOnce(t *testing.T) {
	dir := image(t)
	t.Run("emptied later", func(t *testing.T) {
		v := create(t, open(t), "data", nil)
		populate(t, v, dir)
		if err := os.RemoveAll(v.Mountpoint()); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(v.Mountpoint(), 0o755); err != nil {
			t.Fatal(err)
		}
		populate(t, v, dir)
		if empty, err := isEmpty(v.Mountpoint()); err != nil || !empty {
			t.Errorf("filled again (%v)", err)
		}
	})
	t.Run("not empty", func(t *testing.T) {
		v := create(t, open(t), "data", nil)
		if err := os.WriteFile(filepath.Join(v.Mountpoint(), "mine"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		populate(t, v, dir)
		if got := describe(t, v.Mountpoint()); len(got) != 2 {
			t.Errorf("filled: %v", got)
		}
	})
	t.Run("after a kill in the middle", func(t *testing.T) {
		v := create(t, open(t), "data", nil)
		if err := os.MkdirAll(filepath.Join(v.dir, stageDir, "half"), 0o700); err != nil {
			t.Fatal(err)
		}
		populate(t, v, dir)
		if want, got := describe(t, dir), describe(t, v.Mountpoint()); !slices.Equal(want, got) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		v := create(t, open(t), "data", nil)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				src, err := os.Open(dir)
				if err == nil {
					_, err = v.Populate(context.Background(), src)
					_ = src.Close() // read-only
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if want, got := describe(t, dir), describe(t, v.Mountpoint()); !slices.Equal(want, got) {
			t.Errorf("got %v", got)
		}
	})
}

func TestPopulateFailsWhole(t *testing.T) {
	v := create(t, open(t), "data", nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	src, err := os.Open(image(t))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := v.Populate(ctx, src); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if empty, err := isEmpty(v.Mountpoint()); err != nil || !empty {
		t.Errorf("half filled (%v)", err)
	}
	entries, err := os.ReadDir(v.dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// While the image's directory is read, names in it are swapped for links that lead out of it, and back.
func TestHostileImageCopiesNothingFromOutside(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "secret"), []byte("harmless"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, ".link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	end := meanwhile.Do(func() {
		_ = unix.Renameat2(unix.AT_FDCWD, inner, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) // now and then is enough
	})
	s := open(t)
	for range 100 {
		v := create(t, s, "data", nil)
		src, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Populate(context.Background(), src) // may fail: a name changed its type
		_ = src.Close()                                // read-only
		for _, line := range describe(t, v.dir) {
			if strings.HasSuffix(line, " secret") {
				t.Fatalf("from outside: %s (%v)", line, err)
			}
		}
		if err := s.Remove("data", nobody); err != nil {
			t.Fatal(err)
		}
	}
	end()
	if got := describe(t, outside); len(got) != 2 {
		t.Errorf("something was written outside: %v", got)
	}
}

func TestDevicesThatCannotBeMadeAreNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to put a device into the image")
	}
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skipf("needs to make a device: %v", err)
	}
	v := create(t, open(t), "data", nil)
	if skipped := populate(t, v, dir); len(skipped) > 0 {
		t.Errorf("root skipped %v", skipped)
	}
	st, err := os.Lstat(filepath.Join(v.Mountpoint(), "null"))
	if err != nil || st.Sys().(*syscall.Stat_t).Rdev != unix.Mkdev(1, 3) {
		t.Errorf("device: %v, %v", st, err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func syscallMode(mode uint32) string { return strconv.FormatUint(uint64(mode), 8) }
