// Package deep makes directories that no path leads to: paths end at PATH_MAX, trees do not.
package deep

import (
	"errors"
	"os"
	"testing"
)

// Descend opens what lies depth directories called name below dir, making them where make is set. The path may be longer
// than a path can be. It is closed when the test ends, or before.
func Descend(t testing.TB, dir, name string, depth int, make bool) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	for n := 0; n < depth && err == nil; n++ {
		if make {
			err = r.Mkdir(name, 0o755)
		}
		var next *os.Root
		if err == nil {
			next, err = r.OpenRoot(name)
		}
		err = errors.Join(err, r.Close())
		r = next
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // closed before, where a mount has to go
	return r
}
