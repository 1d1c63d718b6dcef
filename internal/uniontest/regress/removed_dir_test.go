package regress

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// Who has a removed directory open may change its mode, owner and attributes. When the server had no descriptor left to
// keep it by, and always when it was in a lower, that was ENOENT.
func TestRemovedDirsCanBeChanged(t *testing.T) {
	const each = 100 // more than the server may keep open: 32
	kinds := []struct {
		name string
		make func(l *uniontest.Layers, n int) error
		gone func(path string) error
	}{
		{"new", func(l *uniontest.Layers, n int) error { return os.Mkdir(fmt.Sprintf("%s/new%d", l.Merged, n), 0o755) }, os.Remove},
		{"merged", func(l *uniontest.Layers, n int) error {
			return os.Chmod(fmt.Sprintf("%s/merged%d", l.Merged, n), 0o755)
		}, os.Remove},
		{"lower", nil, os.Remove},
		{"replaced", func(l *uniontest.Layers, n int) error {
			return os.Mkdir(fmt.Sprintf("%s/replaced%d", l.Merged, n), 0o755)
		},
			func(path string) error {
				if err := os.Mkdir(path+"-other", 0o755); err != nil {
					return err
				}
				return unix.Rename(path+"-other", path)
			}},
	}
	for _, format := range []string{"wh", "overlay"} {
		t.Run(format, func(t *testing.T) {
			l := newLayers(t)
			for n := range each {
				for _, kind := range []string{"merged", "lower"} {
					must(t, os.Mkdir(fmt.Sprintf("%s/%s%d", l.Lowers[0], kind, n), 0o755))
				}
			}
			t.Setenv(maxFiles, "256")
			m := uniontest.Start(t, uniontest.Laminafs, l, "whiteout="+format)
			for _, kind := range kinds {
				count := each
				if kind.name == "replaced" {
					count = each / 2 // by descriptors only: half of what the server may have
				}
				var fds []int
				for n := range count {
					path := fmt.Sprintf("%s/%s%d", l.Merged, kind.name, n)
					if kind.make != nil {
						must(t, kind.make(l, n))
					}
					fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
					must(t, err)
					fds = append(fds, fd)
					must(t, kind.gone(path))
				}
				for n, fd := range fds {
					mode, value := uint32(0o700+n%8), fmt.Sprint(n)
					var st unix.Stat_t
					must(t, unix.Fstat(fd, &st))
					ino := st.Ino
					if err := unix.Fchmod(fd, mode); err != nil {
						t.Fatalf("%s %d: fchmod: %v", kind.name, n, err)
					}
					must(t, unix.Fchown(fd, n, -1), unix.Fsetxattr(fd, "user.a", []byte(value), 0), unix.Fstat(fd, &st))
					buf := make([]byte, 10)
					k, err := unix.Fgetxattr(fd, "user.a", buf)
					if err != nil || string(buf[:k]) != value || st.Mode&0o7777 != mode || int(st.Uid) != n || st.Nlink != 0 || st.Ino != ino {
						t.Errorf("%s %d: mode %o, owner %d, %d links, inode %d (was %d), attribute %q, %v",
							kind.name, n, st.Mode, st.Uid, st.Nlink, st.Ino, ino, buf[:max(k, 0)], err)
					}
					if _, err := unix.Openat(fd, "new", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600); err != unix.ENOENT {
						t.Errorf("%s %d: something can be made in it: %v", kind.name, n, err)
					}
				}
				for _, fd := range fds {
					must(t, unix.Close(fd))
				}
			}
			left, err := os.ReadDir(l.Merged)
			must(t, err)
			if len(left) != each/2 { // those that replaced others
				t.Errorf("%d entries left", len(left))
			}
			m.Remount()
		})
	}
}

// A directory with whiteouts in it is emptied when it is removed. Who has it open saw it become 0700.
func TestRemovedDirKeepsItsMode(t *testing.T) {
	for _, who := range []uniontest.Identity{uniontest.Root, uniontest.User} {
		for _, format := range []string{"wh", "overlay"} {
			t.Run(string(who)+"/"+format, func(t *testing.T) {
				uniontest.NeedRoot(t)
				h := uniontest.As(t, who)
				l := uniontest.NewLayers(t, 1, h)
				run := func(script string) string {
					r, err := h.Exec(uniontest.Command{Argv: []string{"sh", "-ec", script, "-", l.Lowers[0], l.Merged}})
					must(t, err)
					if r.Code != 0 {
						t.Fatalf("exit %d: %s", r.Code, r.Stderr)
					}
					return string(r.Stdout)
				}
				run(`mkdir -p "$1/d/sub"; touch "$1/d/f"`)
				uniontest.Start(t, uniontest.Laminafs, l, "whiteout="+format)
				mode := run(`cd "$2/d"; rm f; rmdir sub; chmod 555 .; rmdir ../d; stat -c %a .`)
				if mode != "555\n" {
					t.Errorf("mode %q", mode)
				}
			})
		}
	}
}
