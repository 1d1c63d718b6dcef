package layertar_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// describe says of every object below dir what a layer must keep, by path: type, mode, owner, device, size, time,
// attributes, content, and under which first name a file with several is there too.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	tree, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		st := lstat(t, path)
		line := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d", st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" -> %q", target)
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size=%d sha256=%.6x", st.Size, sha256.Sum256(content))
		default:
			line += fmt.Sprintf(" rdev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " is=" + first[st.Ino]
		}
		line += describeXattrs(t, path)
		tree[name] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func describeXattrs(t testing.TB, path string) string {
	t.Helper()
	at := sys.At{Dirfd: unix.AT_FDCWD, Name: path}
	names, err := sys.XattrNames(at)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		v, err := sys.XattrValue(at, name)
		if err != nil {
			t.Fatalf("%s: %s: %v", path, name, err)
		}
		fmt.Fprintf(&b, " %s=%q", name, v)
	}
	return b.String()
}

// same fails the test where two descriptions differ.
func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s:\n got  %s\n want %s", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: should not be there: %s", name, got[name])
		}
	}
}

// names lists the paths of a description, without the root.
func names(tree map[string]string) string {
	all := slices.Sorted(maps.Keys(tree))
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "." }), " ")
}
