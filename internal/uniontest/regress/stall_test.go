package regress

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// While a large file is copied up, everybody else goes on: with other files, other names of its directory, and with the
// file itself, as far as they read it. Nothing here would come to its end otherwise, since the copy goes on only when all
// of it is done.
func TestCopyUpStallsNobody(t *testing.T) {
	for _, format := range []string{"wh", "overlay"} {
		t.Run(format, func(t *testing.T) {
			l := newLayers(t)
			low := l.Lowers[0]
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			must(t, os.MkdirAll(low+"/d/empty", 0o755), os.Mkdir(low+"/e", 0o755), os.WriteFile(low+"/d/big", data, 0o644))
			for _, name := range []string{"d/a", "d/b", "d/c", "e/a", "f", "g", "h"} {
				write(t, low+"/"+name, name)
			}
			must(t, os.Link(low+"/h", low+"/d/h2"))
			m := uniontest.Start(t, uniontest.Laminafs, l, "whiteout="+format, "redirect_dir=on")
			at := func(name string) string { return l.Merged + "/" + name }
			big, err := os.OpenFile(at("d/big"), os.O_RDWR, 0)
			must(t, err)
			defer func() { big.Close() }()
			second := make(chan error, 1)
			err = held(t, m, "copyup.chunk#1", "copyup.chunk#9=EIO",
				func() error { return os.Chmod(at("d/big"), 0o600) },
				func() {
					go func() { _, err := big.WriteAt([]byte("new"), int64(len(data))/2); second <- err }()
					if got, err := os.ReadFile(at("d/big")); err != nil || !bytes.Equal(got, data) {
						t.Errorf("the file reads %d bytes, %v", len(got), err)
					}
					for _, step := range []struct {
						name string
						do   func() error
					}{
						{"stat", func() error { _, err := os.Stat(at("d/big")); return err }},
						{"list", func() error { _, err := os.ReadDir(at("d")); return err }},
						{"statfs", func() error { return unix.Statfs(l.Merged, new(unix.Statfs_t)) }},
						{"read", func() error { _, err := os.ReadFile(at("d/a")); return err }},
						{"copy-up", func() error { return os.WriteFile(at("d/a"), []byte("new"), 0) }},
						{"copy-up by name", func() error { return os.WriteFile(at("d/h2"), []byte("new"), 0) }},
						{"chmod of dir", func() error { return os.Chmod(at("d"), 0o700) }},
						{"create", func() error { return os.WriteFile(at("d/new"), []byte("new"), 0o644) }},
						{"mkdir", func() error { return os.Mkdir(at("d/newdir"), 0o755) }},
						{"rmdir", func() error { return os.Remove(at("d/empty")) }},
						{"unlink", func() error { return os.Remove(at("d/b")) }},
						{"rename", func() error { return os.Rename(at("d/c"), at("e/c")) }},
						{"rename of dir", func() error { return os.Rename(at("e"), at("d/e")) }},
						{"link", func() error { return os.Link(at("f"), at("d/f")) }},
						{"symlink", func() error { return os.Symlink("big", at("d/l")) }},
						{"xattr", func() error { return unix.Setxattr(at("g"), "user.a", []byte("1"), 0) }},
						{"fsync", func() error {
							f, err := os.OpenFile(at("d/a"), os.O_RDWR, 0)
							if err != nil {
								return err
							}
							return errors.Join(f.Sync(), f.Close())
						}},
						{"access", func() error { return unix.Access(at("d/big"), unix.W_OK) }},
					} {
						if err := step.do(); err != nil {
							t.Errorf("%s: %v", step.name, err)
						}
					}
					if _, err := os.Lstat(l.Upper + "/d/big"); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("in the upper before it is complete: %v", err)
					}
					select {
					case err := <-second:
						t.Errorf("a second writer did not wait: %v", err)
					default:
					}
				})
			must(t, err, <-second)
			copy(data[len(data)/2:], "new")
			for range 2 {
				wantContent(t, at("d/big"), string(data))
				wantContent(t, at("h"), "new")
				var names []string
				list, err := os.ReadDir(at("d"))
				must(t, err)
				for _, e := range list {
					names = append(names, e.Name())
				}
				if want := []string{"a", "big", "e", "f", "h2", "l", "new", "newdir"}; !slices.Equal(names, want) {
					t.Errorf("d holds %q, want %q", names, want)
				}
				must(t, big.Close())
				m.Remount()
				big, err = os.Open(at("d/big"))
				must(t, err)
			}
		})
	}
}
