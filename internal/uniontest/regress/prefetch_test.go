package regress

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
)

const smallFiles = 600

// smallTree makes a directory of small files in the lower, each with content of its own.
func smallTree(t *testing.T, l *uniontest.Layers) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(l.Lowers[0], "d"), 0o755))
	for i := range smallFiles {
		write(t, filepath.Join(l.Lowers[0], "d", fmt.Sprint(i)), smallContent(i))
	}
}

func smallContent(i int) string { return fmt.Sprintf("%0*d", 1+i*37%9000, i) }

// listed returns the names in a directory in the order of the listing, each looked at as ls -l does.
func listed(t *testing.T, dir string) []string {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	infos, err := f.Readdir(-1)
	must(t, err)
	var names []string
	for _, info := range infos {
		names = append(names, info.Name())
	}
	return names
}

func readAll(t *testing.T, dir string, names []string) {
	t.Helper()
	for _, name := range names {
		var i int
		_, err := fmt.Sscan(name, &i)
		must(t, err)
		wantContent(t, filepath.Join(dir, name), smallContent(i))
	}
}

// Files that are read in the order of the listing are there before they are asked for, if nobody can write to them.
func TestSmallFilesArePushed(t *testing.T) {
	l := newLayers(t)
	smallTree(t, l)
	l.Upper = ""
	var reads []uint64
	for range 3 { // on a busy machine the reader may be ahead of who pushes
		m := uniontest.Start(t, uniontest.Laminafs, l)
		dir := filepath.Join(m.Dir(), "d")
		readAll(t, dir, listed(t, dir))
		n := requestsOf(t, m)["READ"]
		if n <= smallFiles*3/4 {
			return
		}
		reads = append(reads, uint64(n))
	}
	t.Errorf("%d READ requests for %d files in the order of the listing", reads, smallFiles)
}

// With an upper there might be a page that was just written and is on its way to us: nothing is put over it.
func TestNothingIsPushedIntoWritableUnion(t *testing.T) {
	l := newLayers(t)
	smallTree(t, l)
	m := uniontest.Start(t, uniontest.Laminafs, l)
	dir := filepath.Join(m.Dir(), "d")
	readAll(t, dir, listed(t, dir))
	if n := requestsOf(t, m)["READ"]; n < smallFiles {
		t.Errorf("%d READ requests for %d files", n, smallFiles)
	}
}

// In any other order next to nothing is pushed: each file that is not asked for yet costs a request, as without.
func TestNothingIsPushedAtRandom(t *testing.T) {
	l := newLayers(t)
	smallTree(t, l)
	l.Upper = ""
	m := uniontest.Start(t, uniontest.Laminafs, l)
	dir := filepath.Join(m.Dir(), "d")
	names := listed(t, dir)
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	readAll(t, dir, names)
	if n := requestsOf(t, m)["READ"]; n < smallFiles-2*32 {
		t.Errorf("%d READ requests for %d files at random: the others were pushed", n, smallFiles)
	}
}

// What is pushed at a time is bounded by its bytes, not by the number of files alone: of files of 64 KiB half are read by request.
func TestPushedBytesAreBounded(t *testing.T) {
	const files, size = 200, 64 << 10
	l := newLayers(t)
	must(t, os.Mkdir(filepath.Join(l.Lowers[0], "d"), 0o755))
	for i := range files {
		write(t, filepath.Join(l.Lowers[0], "d", fmt.Sprint(i)), fmt.Sprintf("%0*d", size, i))
	}
	l.Upper = ""
	m := uniontest.Start(t, uniontest.Laminafs, l)
	dir := filepath.Join(m.Dir(), "d")
	for _, name := range listed(t, dir) {
		var i int
		_, err := fmt.Sscan(name, &i)
		must(t, err)
		wantContent(t, filepath.Join(dir, name), fmt.Sprintf("%0*d", size, i))
	}
	// 4, 8 and 16 files go before; then 17 of 32 each time, the last one over the megabyte. Without a bound 17 are read.
	if n := requestsOf(t, m)["READ"]; n < files*3/10 {
		t.Errorf("%d READ requests for %d files of 64 KiB: the others were pushed", n, files)
	}
}
