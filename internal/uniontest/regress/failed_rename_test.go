package regress

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// listing describes everything in the directories, a line for each object. Of an extended attribute only the name.
func listing(t *testing.T, dirs ...string) []string {
	t.Helper()
	var lines []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			line := fmt.Sprintf("%s mode=%o links=%d", path, st.Mode, st.Nlink)
			if !strings.Contains(path, "/work/") && st.Mode&unix.S_IFMT != unix.S_IFDIR || strings.Contains(path, "/merged/") {
				line += fmt.Sprintf(" mtime=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
			}
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				line += fmt.Sprintf(" %q", b)
			}
			buf := make([]byte, 4096)
			if n, err := unix.Llistxattr(path, buf); err == nil {
				line += " " + strings.ReplaceAll(string(buf[:n]), "\x00", " ")
			}
			lines = append(lines, line)
			return nil
		})
		must(t, err)
	}
	slices.Sort(lines)
	return lines
}

// wantSame compares two listings.
func wantSame(t *testing.T, when string, before, after []string) {
	t.Helper()
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("%s: no longer: %s", when, line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("%s: new: %s", when, line)
		}
	}
}

// moveTree makes layers with a directory of the lower, d, and a merged one, m, that hold one of everything.
func moveTree(t *testing.T) *uniontest.Layers {
	t.Helper()
	l := newLayers(t)
	low := l.Lowers[0]
	must(t, os.MkdirAll(low+"/d/s/deep", 0o755), os.MkdirAll(low+"/m/s", 0o755), os.MkdirAll(low+"/p", 0o755),
		os.Mkdir(low+"/empty", 0o700), os.Mkdir(low+"/d/none", 0o711))
	for _, name := range []string{"d/a", "d/s/b", "d/s/deep/c", "m/a", "m/s/b", "h", "p/f"} {
		write(t, low+"/"+name, name)
	}
	must(t, os.Link(low+"/h", low+"/d/h1"), os.Link(low+"/h", low+"/d/s/h2"), os.Link(low+"/h", low+"/m/h3"),
		os.Link(low+"/d/a", low+"/d/s/a2"), os.Symlink("a", low+"/d/l"), unix.Mkfifo(low+"/d/fifo", 0o600),
		os.Chtimes(low+"/d", time.Unix(1, 0), time.Unix(2, 0)))
	return l
}

// A rename that failed half way, as that of a directory with redirect_dir=off could, left complete copies of a part of
// it in the upper.
func TestFailedRenameLeavesNothing(t *testing.T) {
	renames := []struct {
		name     string
		from, to string
		flags    uint
		redirect string
	}{
		{"dir", "d", "n", 0, "off"},
		{"dir to another", "d", "p/n", 0, "off"},
		{"merged dir", "m", "n", 0, "off"},
		{"dir over empty dir", "d", "empty", 0, "off"},
		{"exchange", "d", "m", unix.RENAME_EXCHANGE, "off"},
		{"exchange with a file", "d/s", "p/f", unix.RENAME_EXCHANGE, "off"},
		{"dir with redirect", "d/s", "p/n", 0, "on"},
		{"file", "d/s/b", "p/n", 0, "on"},
		{"hard link", "d/s/h2", "p/n", 0, "on"},
	}
	points := []string{"copyup.create", "copyup.chunk", "copyup.mode", "copyup.times", "unionfs.copyup.place",
		"unionfs.copyup.indexed", "unionfs.copyup.tree", "unionfs.rename.prepared"}
	for _, format := range []string{"wh", "overlay"} {
		for _, r := range renames {
			t.Run(format+"/"+r.name, func(t *testing.T) {
				l := moveTree(t)
				m := uniontest.Start(t, uniontest.Laminafs, l, "whiteout="+format, "redirect_dir="+r.redirect)
				from, to := l.Merged+"/"+r.from, l.Merged+"/"+r.to
				failed := 0
				for _, p := range points {
					m.Unmount()
					must(t, os.RemoveAll(l.Upper), os.RemoveAll(l.Work), os.Mkdir(l.Upper, 0o755), os.Mkdir(l.Work, 0o755))
					m.Remount()
					must(t, os.WriteFile(l.Merged+"/m/new", []byte("new"), 0o644), os.Remove(l.Merged+"/m/a"))
					upper, merged := listing(t, l.Upper, l.Work+"/index", l.Work+"/work"), listing(t, l.Merged)
					for n := 1; ; n++ { // until the point is not met so often
						what := fmt.Sprintf("%s#%d", p, n)
						err := armed(t, what+"=ENOSPC", func() error {
							return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, r.flags)
						})
						if err == nil {
							break
						}
						if !errors.Is(err, unix.ENOSPC) {
							t.Fatalf("%s: %v, want ENOSPC", what, err)
						}
						failed++
						wantSame(t, what, upper, listing(t, l.Upper, l.Work+"/index", l.Work+"/work"))
						wantSame(t, what, merged, listing(t, l.Merged))
						if t.Failed() {
							t.FailNow()
						}
					}
				}
				if failed < 5 {
					t.Errorf("only %d failures", failed)
				}
			})
		}
	}
}

// held performs f, which stops at a point for the others to work meanwhile, and then goes on with something else armed.
func held(t *testing.T, m *uniontest.Mount, point, then string, f func() error, meanwhile func()) error {
	t.Helper()
	arm := func(what string) { // at once: an empty file would be an answer
		must(t, os.WriteFile(faultFile+".new", []byte(what), 0o644), os.Rename(faultFile+".new", faultFile))
	}
	waiting := faultFile + ".waiting"
	_ = os.Remove(waiting) // of a server that was killed
	arm(point + "=wait")
	defer os.Remove(faultFile)
	result := make(chan error, 1)
	go func() { result <- f() }()
	for end := time.Now().Add(hangLimit); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(waiting); err == nil {
			break
		}
		if time.Now().After(end) {
			arm("")
			m.Kill()
			<-result
			t.Fatalf("%s is not reached", point)
		}
	}
	inTime(t, m, meanwhile)
	arm(then)
	return <-result
}

// While a directory is copied up to be renamed, others change it. When the rename fails, what they did stays, and only
// that.
func TestFailedRenameKeepsWhatOthersDid(t *testing.T) {
	for _, format := range []string{"wh", "overlay"} {
		t.Run(format, func(t *testing.T) {
			l := moveTree(t)
			for n := range 20 { // so that some come before the point, whatever the order
				must(t, os.MkdirAll(fmt.Sprintf("%s/d/%d/in", l.Lowers[0], n), 0o755))
				write(t, fmt.Sprintf("%s/d/%d/f", l.Lowers[0], n), "old")
			}
			m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=off", "whiteout="+format)
			at := func(n int, name string) string { return fmt.Sprintf("%s/d/%d/%s", l.Merged, n, name) }
			fd, err := unix.Open(l.Merged+"/d/a", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			must(t, err)
			defer func() { unix.Close(fd) }()
			before := make(map[int]uint64)
			for n := range 20 {
				var st unix.Stat_t
				must(t, unix.Stat(at(n, "f"), &st))
				before[n] = st.Ino
			}
			rename := func() error { return os.Rename(l.Merged+"/d", l.Merged+"/n") }
			err = held(t, m, "unionfs.copyup.tree#1", "unionfs.copyup.tree=EDQUOT", rename, func() {
				// All of it is copied up by now. Each directory meets something else.
				do := []func(int) error{
					func(n int) error { return os.WriteFile(at(n, "f"), []byte("new"), 0o644) },
					func(n int) error { return os.WriteFile(at(n, "made"), []byte("new"), 0o644) },
					func(n int) error { return os.Remove(at(n, "f")) },
					func(n int) error { return os.Chmod(at(n, "in"), 0o700) },
					func(n int) error { return os.Link(at(n, "f"), at(n, "in/linked")) },
					func(n int) error { return os.Rename(at(n, "f"), at(n, "in/moved")) },
					func(n int) error { return os.Rename(at(n, "in"), at(n, "out")) },
					func(n int) error { return os.Remove(at(n, "in")) },
					func(n int) error { return errors.Join(os.Remove(at(n, "in")), os.Mkdir(at(n, "in"), 0o711)) },
					func(n int) error { return unix.Setxattr(at(n, "f"), "user.a", []byte("1"), 0) },
				}
				for n, f := range do {
					if err := f(n); err != nil {
						t.Errorf("change %d: %v", n, err)
					}
				}
			})
			if !errors.Is(err, unix.EDQUOT) {
				t.Fatalf("rename: %v, want EDQUOT", err)
			}
			for range 2 {
				wantContent(t, at(0, "f"), "new")
				wantContent(t, at(1, "made"), "new")
				wantContent(t, at(1, "f"), "old")
				for _, gone := range []string{at(2, "f"), at(5, "f"), at(6, "in"), at(7, "in")} {
					if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s: %v", gone, err)
					}
				}
				var st unix.Stat_t
				must(t, unix.Stat(at(3, "in"), &st))
				if st.Mode&0o777 != 0o700 {
					t.Errorf("mode %o of what was chmodded", st.Mode)
				}
				must(t, unix.Stat(at(4, "in/linked"), &st))
				if st.Nlink != 2 || st.Ino != before[4] {
					t.Errorf("linked: inode %d, %d links; was %d", st.Ino, st.Nlink, before[4])
				}
				wantContent(t, at(5, "in/moved"), "old")
				must(t, unix.Stat(at(6, "out"), &st), unix.Stat(at(8, "in"), &st))
				if st.Mode&0o777 != 0o711 {
					t.Errorf("mode %o of what was made anew", st.Mode)
				}
				if _, err := unix.Getxattr(at(9, "f"), "user.a", nil); err != nil {
					t.Errorf("the attribute: %v", err)
				}
				for n := 10; n < 20; n++ {
					must(t, unix.Stat(at(n, "f"), &st))
					if st.Ino != before[n] {
						t.Errorf("%s: inode %d, was %d", at(n, "f"), st.Ino, before[n])
					}
					if _, err := os.Lstat(fmt.Sprintf("%s/d/%d", l.Upper, n)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%d is in the upper, where nobody needs it: %v", n, err)
					}
				}
				buf := make([]byte, 10)
				if k, err := unix.Pread(fd, buf, 0); err != nil || string(buf[:k]) != "d/a" {
					t.Errorf("what was open reads %q, %v", buf[:k], err)
				}
				must(t, unix.Close(fd))
				m.Remount()
				fd, err = unix.Open(l.Merged+"/d/a", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				must(t, err)
			}
			must(t, rename())
			wantContent(t, l.Merged+"/n/0/f", "new")
			wantContent(t, l.Merged+"/n/1/f", "old")
			must(t, unix.Close(fd))
			fd = -1
		})
	}
}

// A rename that failed took the opaque mark from a directory that had one before: what was deleted showed again after a
// remount.
func TestFailedRenameKeepsOpaqueDir(t *testing.T) {
	for _, format := range []string{"wh", "overlay"} {
		for _, flags := range []uint{0, unix.RENAME_EXCHANGE} {
			t.Run(fmt.Sprintf("%s/%d", format, flags), func(t *testing.T) {
				l := newLayers(t)
				for _, name := range []string{"d", "e"} {
					must(t, os.Mkdir(l.Lowers[0]+"/"+name, 0o755))
					write(t, l.Lowers[0]+"/"+name+"/deleted", "")
				}
				m := uniontest.Start(t, uniontest.Laminafs, l, "whiteout="+format)
				for _, name := range []string{"d", "e"} {
					must(t, os.RemoveAll(l.Merged+"/"+name))
				}
				must(t, os.Mkdir(l.Merged+"/d", 0o755))
				if flags != 0 {
					must(t, os.Mkdir(l.Merged+"/e", 0o755))
				}
				err := armed(t, "unionfs.rename.prepared=EIO", func() error {
					return unix.Renameat2(unix.AT_FDCWD, l.Merged+"/d", unix.AT_FDCWD, l.Merged+"/e", flags)
				})
				if !errors.Is(err, unix.EIO) {
					t.Fatalf("rename: %v", err)
				}
				for range 2 {
					for _, name := range []string{"d", "e"} {
						if _, err := os.Lstat(l.Merged + "/" + name + "/deleted"); !errors.Is(err, unix.ENOENT) {
							t.Errorf("%s/deleted: %v", name, err)
						}
					}
					m.Remount()
				}
			})
		}
	}
}
