package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tree says what is in a directory: two that hold the same are equal.
type tree struct {
	objects int
	owned   string // digest of names, types, modes, times, sizes, link targets, contents, and owners
	shape   string // the same without owners, which are others in a user namespace
}

// readTree looks at everything below a directory.
func readTree(dir string) (t tree, err error) {
	owned, shape := sha256.New(), sha256.New()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		content := ""
		switch {
		case d.Type().IsRegular():
			content, _, err = sumFile(path)
		case d.Type() == fs.ModeSymlink:
			content, err = os.Readlink(path)
		}
		if err != nil {
			return err
		}
		t.objects++
		fmt.Fprintf(owned, "%d:%d ", st.Uid, st.Gid)
		fmt.Fprintf(io.MultiWriter(owned, shape), "%q %o %d.%d %q\n", path[len(dir):], st.Mode, st.Mtim.Sec, st.Mtim.Nsec, content)
		return nil
	})
	t.owned, t.shape = hex.EncodeToString(owned.Sum(nil)), hex.EncodeToString(shape.Sum(nil))
	return t, err
}

// unpackedTree is what a layer unpacks to, as tar does it.
func (f *Fixtures) unpackedTree(layer string) (t tree, err error) {
	dir, err := os.MkdirTemp(f.Dir, "tree-")
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(dir)
	if err := run("tar", "-C", dir, "--numeric-owner", "-xpf", layer); err != nil {
		return t, err
	}
	return readTree(dir)
}

// checkTrees compares layers, lowest first, with what they should be.
func (e *launchEnv) checkTrees(dirs []string, want []tree) error {
	if len(dirs) != len(want) {
		return fmt.Errorf("%d layers, want %d: %q", len(dirs), len(want), dirs)
	}
	for i, dir := range dirs {
		got, err := readTree(dir)
		if err != nil {
			return err
		}
		same := got == want[i]
		if e.caller.UID != 0 {
			same = got.shape == want[i].shape && got.objects == want[i].objects
		}
		if !same {
			return fmt.Errorf("layer %d of %d is not what tar makes of it: %s", i+1, len(dirs), dir)
		}
	}
	return nil
}
