package copyup_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// refuse makes a copy that must fail, and leave everything as it was.
func (e *env) refuse(t *testing.T, src copyup.Source, m copyup.Meta) error {
	t.Helper()
	frozen := freeze(t, e.lower)
	c, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
	if err == nil || c != (copyup.Copy{}) {
		t.Errorf("copy %+v, error %v: want an error and nothing else", c, err)
	}
	fd, c, errAnon := e.s.Anonymous(src, m, copyup.ObjectOptions{Limit: -1})
	if errAnon == nil || fd != -1 || c != (copyup.Copy{}) {
		t.Errorf("anonymous copy %d, %+v, error %v: want an error and nothing else", fd, c, errAnon)
	}
	frozen.check(t)
	e.workEmpty(t)
	return err
}

func TestLowerChangedBeforeCopy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(e *env) error
	}{
		{"gone", func(e *env) error { return os.Remove(e.path("f")) }},
		{"another file", func(e *env) error { return os.Rename(e.path("other"), e.path("f")) }},
		{"a directory", func(e *env) error {
			return errors.Join(os.Remove(e.path("f")), os.Mkdir(e.path("f"), 0o755))
		}},
		{"a symbolic link", func(e *env) error {
			return errors.Join(os.Remove(e.path("f")), os.Symlink("other", e.path("f")))
		}},
		{"a fifo without a writer", func(e *env) error {
			return errors.Join(os.Remove(e.path("f")), unix.Mkfifo(e.path("f"), 0o644))
		}},
		{"a socket", func(e *env) error {
			return errors.Join(os.Remove(e.path("f")), unix.Mknod(e.path("f"), unix.S_IFSOCK|0o644, 0))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			e := newEnv(t, dir, dir)
			e.write(t, "f", "data")
			e.write(t, "other", "other data")
			src := e.source(t, "f")
			if err := os.Link(e.path("f"), filepath.Join(dir, "keep")); err != nil { // its inode number is not used again
				t.Fatal(err)
			}
			if err := tt.change(e); err != nil {
				t.Fatal(err)
			}
			err := e.refuse(t, src, copyup.MetaOf(&src.Stat))
			if !errors.Is(err, copyup.ErrLowerChanged) {
				t.Errorf("error %v, want ErrLowerChanged", err)
			}
			wantErr(t, err, unix.EIO, "copy up: ")
		})
	}
}

func TestLowerGrewFromEmpty(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "f", "")
	src := e.source(t, "f")
	e.write(t, "f", "data")
	if err := e.refuse(t, src, copyup.MetaOf(&src.Stat)); !errors.Is(err, copyup.ErrLowerChanged) {
		t.Errorf("error %v, want ErrLowerChanged", err)
	}
}

func TestTypesThatCannotBeTurned(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "file", "data")
	if err := os.Mkdir(e.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, mode := range map[string]uint32{"file": unix.S_IFLNK, "dir": unix.S_IFREG} {
		src := e.source(t, from)
		m := copyup.MetaOf(&src.Stat)
		m.Mode = mode | 0o644
		_, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
		wantErr(t, err, unix.EINVAL, "copy up: ")
		e.workEmpty(t)
	}
}

// TestNoWhiteoutIsMade has a layer that says a file is character device 0:0, by override_stat.
func TestNoWhiteoutIsMade(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "f", "")
	src := e.source(t, "f")
	m := copyup.MetaOf(&src.Stat)
	m.Mode = unix.S_IFCHR | 0o644
	_, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
	wantErr(t, err, unix.EPERM, "copy up: create: ")
	e.workEmpty(t)
}

func TestNoSpace(t *testing.T) {
	for _, tt := range []struct {
		name  string
		mount func(t *testing.T) string
	}{
		{"tmpfs", func(t *testing.T) string { return mount(t, "-t", "tmpfs", "-o", "size=1m", "tmpfs") }},
		{"ext4", func(t *testing.T) string { return mountImage(t, "ext4", 4<<20, "") }},
		{"btrfs", func(t *testing.T) string { return mountImage(t, "btrfs", 110<<20, "") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnv(t, t.TempDir(), tt.mount(t))
			e.write(t, "f", random(128<<10))
			for i := range 1200 { // larger than each, without as much memory
				f, err := os.OpenFile(e.path("f"), os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = f.WriteAt([]byte(random(128<<10)), int64(i)*(128<<10))
				if err := errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
			}
			src := e.source(t, "f")
			wantErr(t, e.refuse(t, src, copyup.MetaOf(&src.Stat)), unix.ENOSPC, "copy up: write data: no space left on device")
			e.write(t, "small", "data")
			e.object(t, "small") // the space is there again
		})
	}
}

func TestNoInodes(t *testing.T) {
	e := newEnv(t, t.TempDir(), mount(t, "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs")) // the root and work
	e.write(t, "f", "data")
	if err := os.Symlink("f", e.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(e.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "link", "dir"} {
		src := e.source(t, name)
		wantErr(t, e.refuse(t, src, copyup.MetaOf(&src.Stat)), unix.ENOSPC, "copy up: create: ")
	}
}

func TestQuota(t *testing.T) {
	tool, err := exec.LookPath("btrfs")
	if err != nil {
		t.Skip("no btrfs tool on this machine")
	}
	dir := mountImage(t, "btrfs", 512<<20, "")
	volume := filepath.Join(dir, "volume")
	for _, args := range [][]string{
		{"subvolume", "create", volume}, {"quota", "enable", dir}, {"qgroup", "limit", "1m", volume},
	} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Skipf("cannot set a quota: %v: %s", err, out)
		}
	}
	e := newEnv(t, t.TempDir(), volume)
	e.write(t, "f", random(4<<20))
	src := e.source(t, "f")
	wantErr(t, e.refuse(t, src, copyup.MetaOf(&src.Stat)), unix.EDQUOT, "copy up: write data: ")
}

// TestXattrThatDoesNotFit: ext4 has less room for attributes than XFS.
func TestXattrThatDoesNotFit(t *testing.T) {
	e := newEnv(t, mountImage(t, "xfs", 512<<20, ""), mountImage(t, "ext4", 64<<20, ""))
	e.write(t, "f", "data")
	e.setXattrs(t, "f", map[string]string{"user.big": random(60_000)})
	src := e.source(t, "f")
	wantErr(t, e.refuse(t, src, copyup.MetaOf(&src.Stat)), unix.ENOSPC, "copy up: copy xattrs: user.big: ")
}

// TestXattrsThatCannotBeKept shows that user data is not dropped, and that who has access does not change, on an
// upper without attributes. Attributes of the machine are.
func TestXattrsThatCannotBeKept(t *testing.T) {
	e := newEnv(t, mountImage(t, "ext4", 64<<20, ""), mount(t, "-t", "ramfs", "ramfs"))
	for _, tt := range []struct{ name, attr, value, where string }{
		{"user", "user.a", "1", "copy up: copy xattrs: user.a: "},
		{"acl", "system.posix_acl_access", acl(7, 7), "copy up: set mode: system.posix_acl_access: "},
		{"trusted", "trusted.t", "t", ""},
	} {
		e.write(t, tt.name, "data")
		e.setXattrs(t, tt.name, map[string]string{tt.attr: tt.value})
		src := e.source(t, tt.name)
		if tt.where == "" {
			checkXattrs(t, e.object(t, tt.name), map[string]string{})
			continue
		}
		wantErr(t, e.refuse(t, src, copyup.MetaOf(&src.Stat)), unix.ENOTSUP, tt.where)
	}
}

func TestWithoutPrivilege(t *testing.T) {
	needRoot(t) // to give it up
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "own", "data")
	e.write(t, "unreadable", "data")
	e.write(t, "foreign", "data")
	attrs := map[string]string{"user.a": "1", "security.lamina-test": "s", "trusted.t": "t"}
	e.setXattrs(t, "own", attrs)
	for path, mode := range map[string]os.FileMode{
		e.work: 0o700, e.path("own"): 0o444, e.path("unreadable"): 0, e.path("foreign"): 0o644,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if path != e.path("foreign") {
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(e.lower, 0o755); err != nil {
		t.Fatal(err)
	}
	own, foreign, unreadable := e.source(t, "own"), e.source(t, "foreign"), e.source(t, "unreadable")

	asNobody(t, func() error {
		// Privileged attributes stay behind; marks can be made although the copy will be read-only.
		m := copyup.MetaOf(&own.Stat)
		c, err := e.s.Object(own, m, copyup.ObjectOptions{Limit: -1, Mark: func(a sys.At, _ uint64) error {
			return sys.Setxattr(a, "user.lamina.mark", []byte("m"), 0)
		}})
		if err != nil {
			return err
		}
		st, err := sys.Stat(c.At)
		if err != nil {
			return err
		}
		checkMeta(t, &st, m)
		checkXattrs(t, c, map[string]string{"user.a": "1", "user.lamina.mark": "m"})
		e.s.Discard(c.At)

		_, err = e.s.Object(foreign, copyup.MetaOf(&foreign.Stat), copyup.ObjectOptions{Limit: -1})
		wantErr(t, err, unix.EPERM, "copy up: set owner: 0:0: ")
		m = copyup.MetaOf(&foreign.Stat)
		m.UID, m.GID = nobody, nobody
		if c, err = e.s.Object(foreign, m, copyup.ObjectOptions{Limit: -1}); err != nil {
			return err
		}
		e.s.Discard(c.At)

		m = copyup.MetaOf(&own.Stat)
		m.Mode, m.Rdev = unix.S_IFCHR|0o600, unix.Mkdev(1, 3)
		_, err = e.s.Object(own, m, copyup.ObjectOptions{Limit: -1})
		wantErr(t, err, unix.EPERM, "copy up: create: ")

		_, err = e.s.Object(unreadable, copyup.MetaOf(&unreadable.Stat), copyup.ObjectOptions{Limit: -1})
		wantErr(t, err, unix.EACCES, "copy up: open lower: ")
		c, err = e.s.Object(unreadable, copyup.MetaOf(&unreadable.Stat), copyup.ObjectOptions{Limit: 0})
		if err != nil {
			return fmt.Errorf("truncating copy of an unreadable file: %w", err)
		}
		e.s.Discard(c.At)
		return nil
	})
	e.workEmpty(t)
}

func TestParallelCopies(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "f", random(300_000))
	src := e.source(t, "f")
	want := hash(t, src.At, src.Stat.Size)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				c, err := e.s.Object(src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1})
				if err != nil {
					t.Error(err)
					return
				}
				if fd, err := sys.Open(c.At, unix.O_RDONLY, 0); err != nil {
					t.Error(err)
				} else {
					buf := make([]byte, 300_001)
					if n, err := unix.Pread(fd, buf, 0); n != 300_000 || err != nil {
						t.Errorf("read %d, %v", n, err)
					}
					sys.Close(fd)
				}
				e.s.Discard(c.At)
			}
		})
	}
	wg.Wait()
	e.workEmpty(t)
	if hash(t, src.At, src.Stat.Size) != want {
		t.Error("the lower changed")
	}
}
