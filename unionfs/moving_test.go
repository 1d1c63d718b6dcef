package unionfs

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Who opened a directory by its name just when it was renamed, with somebody else's descriptor for it in the table by then,
// was told that it is not there.
func TestReadBelowMovingDirectory(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"l", "u/a/d", "w"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const files = 4
	for n := range files {
		if err := os.WriteFile(fmt.Sprintf("%s/u/a/d/f%d", top, n), []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(Config{Lowers: []string{top + "/l"}, Upper: top + "/u", Work: top + "/w"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	fs.fds.max = 1 // nothing stays open
	f := &calls{FS: fs, t: t, root: fuse.FUSE_ROOT_ID}
	d := f.lookup(f.lookup(f.root, "a"), "d")
	var nodes []uint64
	for n := range files {
		nodes = append(nodes, f.lookup(d, fmt.Sprint("f", n)))
	}
	moves := 10000
	if os.Getenv("LAMINA_LONG") != "" {
		moves = 100000
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(files)
	for _, id := range nodes {
		go func() {
			defer wg.Done()
			buf := make([]byte, 16)
			for {
				select {
				case <-stop:
					return
				default:
				}
				in := fuse.ReadIn{InHeader: *f.header(id), Size: uint32(len(buf))}
				if _, s := f.Read(nil, &in, buf); s != fuse.OK {
					t.Errorf("read: %v", s)
					return
				}
			}
		}()
	}
	names := []string{"a", "b"}
	for n := range moves {
		in := fuse.RenameIn{InHeader: *f.header(f.root), Newdir: f.root}
		if s := f.Rename(nil, &in, names[n%2], names[(n+1)%2]); s != fuse.OK {
			t.Errorf("rename: %v", s)
			break
		}
	}
	close(stop)
	wg.Wait()
}
