package regress

import (
	"os"
	"os/exec"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// subvolumes makes two subvolumes of btrfs in the directory, in which a and b are two names of one file. Each subvolume
// counts its files from the same number on.
func subvolumes(t *testing.T, in string) {
	t.Helper()
	must(t, os.Mkdir(in, 0o755))
	for _, sub := range []string{"one", "two"} {
		dir := in + "/" + sub
		if out, err := exec.Command("btrfs", "subvolume", "create", dir).CombinedOutput(); err != nil {
			t.Skipf("needs btrfs: %v %s", err, out)
		}
		write(t, dir+"/a", sub)
		must(t, os.Link(dir+"/a", dir+"/b"))
		write(t, dir+"/single", sub)
	}
}

// Two files with several names in two subvolumes of one lower were taken for the same: whoever opened the second read and
// wrote the first.
func TestHardLinksInSubvolumes(t *testing.T) {
	l := newLayers(t)
	l.Lowers[0] = disk(t, "btrfs", 300, "defaults") + "/lower"
	subvolumes(t, l.Lowers[0])
	m := uniontest.Start(t, uniontest.Laminafs, l)
	number := func(name string) uint64 {
		var st unix.Stat_t
		must(t, unix.Lstat(l.Merged+"/"+name, &st))
		return st.Ino
	}
	names := []string{"one/a", "one/b", "one/single", "two/a", "two/b", "two/single"}
	before := map[string]uint64{}
	seen := map[uint64]string{}
	for _, name := range names {
		wantContent(t, l.Merged+"/"+name, name[:3])
		before[name] = number(name)
		if other := seen[before[name]]; other != "" && (other[:3] != name[:3] || name[4:] == "single") {
			t.Errorf("%s and %s have the number %#x", other, name, before[name])
		}
		seen[before[name]] = name
	}
	write(t, l.Merged+"/two/b", "written")
	must(t, os.Chmod(l.Merged+"/two/single", 0o600))
	for round := range 3 {
		for name, want := range map[string]string{"one/a": "one", "one/b": "one", "two/a": "written", "two/b": "written"} {
			wantContent(t, l.Merged+"/"+name, want)
			var st unix.Stat_t
			must(t, unix.Stat(l.Merged+"/"+name, &st))
			if st.Nlink != 2 {
				t.Errorf("%s has %d links", name, st.Nlink)
			}
		}
		for _, name := range names {
			if got := number(name); got != before[name] {
				t.Errorf("round %d: %s: number %#x, was %#x", round, name, got, before[name])
			}
		}
		m.Remount()
	}
}

// The same is true of an upper.
func TestHardLinksInSubvolumesOfUpper(t *testing.T) {
	l := newLayers(t)
	mnt := disk(t, "btrfs", 300, "defaults")
	upperOn(t, l, mnt)
	must(t, os.Remove(l.Upper))
	subvolumes(t, l.Upper)
	m := uniontest.Start(t, uniontest.Laminafs, l)
	for range 2 {
		for _, name := range []string{"one/a", "two/a", "two/b", "one/b"} {
			wantContent(t, l.Merged+"/"+name, name[:3])
		}
		write(t, l.Merged+"/one/b", "one")
		m.Remount()
	}
	must(t, os.Link(l.Merged+"/two/a", l.Merged+"/two/c"))
	write(t, l.Merged+"/two/c", "new")
	for name, want := range map[string]string{"two/a": "new", "two/b": "new", "one/a": "one"} {
		wantContent(t, l.Merged+"/"+name, want)
	}
}
