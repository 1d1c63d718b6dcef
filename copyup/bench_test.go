package copyup_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// BenchmarkObject copies and discards one object; it does not wait for the disk.
func BenchmarkObject(b *testing.B) {
	dir := b.TempDir()
	e := newEnv(b, dir, dir)
	s := copyup.NewStager(copyup.Options{Work: e.workFd})
	names := []string{"dir", "link"}
	if err := os.Mkdir(e.path("dir"), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.Symlink("target", e.path("link")); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{0, 4 << 10, 64 << 10, 1 << 20, 16 << 20} {
		name := fmt.Sprintf("file-%dK", size>>10)
		e.write(b, name, random(size))
		names = append(names, name)
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			src, err := sys.Stat(e.lowerAt(name))
			if err != nil {
				b.Fatal(err)
			}
			source, m := copyup.Source{At: e.lowerAt(name), Stat: src}, copyup.MetaOf(&src)
			if src.Mode&unix.S_IFMT == unix.S_IFREG {
				b.SetBytes(src.Size)
			}
			for b.Loop() {
				c, err := s.Object(source, m, copyup.ObjectOptions{Limit: -1})
				if err != nil {
					b.Fatal(err)
				}
				s.Discard(c.At)
			}
		})
	}
}
