package regress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// tryTree changes the tree below dir, of which it knows what is in it: f, d/a, d/b, gone, h and its second name d/h.
func tryTree(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return dir + "/" + name }
	for name, want := range map[string]string{"f": "f", "d/a": "a", "d/b": "b", "h": "h", "d/h": "h"} {
		wantContent(t, at(name), want)
	}
	if b, err := os.Readlink(at("l")); err != nil || b != "f" {
		t.Errorf("l leads to %q, %v", b, err)
	}
	must(t, os.WriteFile(at("f"), []byte("new"), 0), os.Chmod(at("d/a"), 0o600), os.Remove(at("d/b")),
		os.WriteFile(at("d/h"), []byte("both"), 0), os.Rename(at("d"), at("e")), os.Mkdir(at("d"), 0o755),
		os.Symlink("x", at("d/l")), os.Remove(at("gone")), unix.Setxattr(at("e/a"), "user.a", []byte("1"), 0))
}

// triedTree checks what tryTree has left.
func triedTree(t *testing.T, dir string) {
	t.Helper()
	for name, want := range map[string]string{"f": "new", "e/a": "a", "e/h": "both"} {
		wantContent(t, dir+"/"+name, want)
	}
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(strings.TrimPrefix(path, dir), "/"))
		return err
	}))
	if want := []string{"", "d", "d/l", "e", "e/a", "e/h", "f", "h", "l"}; !slices.Equal(all, want) {
		t.Errorf("the tree is %q, want %q", all, want)
	}
	buf := make([]byte, 4)
	if k, err := unix.Getxattr(dir+"/e/a", "user.a", buf); err != nil || string(buf[:k]) != "1" {
		t.Errorf("attribute %q, %v", buf[:max(k, 0)], err)
	}
}

// treeToTry fills a lower for tryTree.
func treeToTry(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir+"/d", 0o755), os.Symlink("f", dir+"/l"))
	for _, name := range []string{"f", "d/a", "d/b", "gone", "h"} {
		write(t, dir+"/"+name, filepath.Base(name))
	}
	must(t, os.Link(dir+"/h", dir+"/d/h"))
}

var redirects = []string{"redirect_dir=off", "redirect_dir=on"}

// A laminafs mount as the lower of another one: what the first has hidden stays hidden.
func TestOverLaminafs(t *testing.T) {
	for _, redirect := range redirects {
		for _, format := range []string{"whiteout=wh", "whiteout=overlay"} {
			t.Run(redirect+","+format, func(t *testing.T) {
				first := newLayers(t)
				treeToTry(t, first.Lowers[0])
				write(t, first.Lowers[0]+"/removed", "1")
				write(t, first.Lowers[0]+"/d/removed", "1")
				uniontest.Start(t, uniontest.Laminafs, first, redirect, format)
				must(t, os.Remove(first.Merged+"/removed"), os.Remove(first.Merged+"/d/removed"),
					os.Rename(first.Merged+"/d", first.Merged+"/x"), os.Rename(first.Merged+"/x", first.Merged+"/d"))
				second := newLayers(t)
				second.Lowers = []string{first.Merged}
				m := uniontest.Start(t, uniontest.Laminafs, second, redirect, format)
				tryTree(t, second.Merged)
				triedTree(t, second.Merged)
				m.Remount()
				triedTree(t, second.Merged)
				wantContent(t, first.Merged+"/d/b", "b")
			})
		}
	}
}

// An upper on a laminafs mount could hold no .wh. files.
func TestUpperOnLaminafsIsRefused(t *testing.T) {
	first := newLayers(t)
	uniontest.Start(t, uniontest.Laminafs, first)
	second := newLayers(t)
	upperOn(t, second, first.Merged)
	for _, format := range []string{"whiteout=wh", "whiteout=overlay"} {
		if _, err := uniontest.TryStart(t, uniontest.Laminafs, second, format); err == nil || !strings.Contains(err.Error(), "upper") {
			t.Errorf("%s: %v, want a word on the upper", format, err)
		}
	}
}

// A laminafs mount as the lower of kernel overlayfs.
func TestKernelOverlayOverLaminafs(t *testing.T) {
	first := newLayers(t)
	treeToTry(t, first.Lowers[0])
	write(t, first.Lowers[0]+"/removed", "1")
	uniontest.Start(t, uniontest.Laminafs, first, "redirect_dir=on")
	must(t, os.Remove(first.Merged+"/removed"), os.Chmod(first.Merged+"/d/a", 0o640))
	second := newLayers(t)
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on", first.Merged, second.Upper, second.Work)
	mount := func() {
		t.Helper()
		if err := unix.Mount("overlay", second.Merged, "overlay", 0, opts); errors.Is(err, unix.ENODEV) {
			t.Skipf("needs kernel overlayfs: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() { must(t, unix.Unmount(second.Merged, 0)) }
	mount()
	defer func() { _ = unix.Unmount(second.Merged, unix.MNT_DETACH) }() // mounted still where the test failed
	for name, want := range map[string]string{"f": "f", "d/a": "a", "d/b": "b", "h": "h"} {
		wantContent(t, second.Merged+"/"+name, want)
	}
	at := func(name string) string { return second.Merged + "/" + name }
	must(t, os.WriteFile(at("f"), []byte("new"), 0), os.Chmod(at("d/a"), 0o600), os.Remove(at("gone")), os.Remove(at("d/b")),
		os.Rename(at("d"), at("e")), os.Mkdir(at("d"), 0o755))
	unmount()
	mount()
	for name, want := range map[string]string{"f": "new", "e/a": "a", "e/h": "h"} {
		wantContent(t, at(name), want)
	}
	for _, gone := range []string{"gone", "e/b", "d/a", "removed"} {
		if _, err := os.Lstat(at(gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	unmount()
	wantContent(t, first.Merged+"/f", "f")
	wantContent(t, first.Merged+"/d/b", "b")
}

// As many layers as there may be, with the descriptors that everybody has.
func TestManyLayers(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	const layers = 500
	l := uniontest.NewLayers(t, layers)
	for n, dir := range l.Lowers {
		must(t, os.MkdirAll(fmt.Sprintf("%s/d/only%d", dir, n), 0o755))
		write(t, fmt.Sprintf("%s/d/f%d", dir, n), fmt.Sprint(n))
		write(t, dir+"/d/all", fmt.Sprint(n))
		write(t, fmt.Sprintf("%s/d/only%d/x", dir, n), fmt.Sprint(n))
		if n > 0 { // hidden by the layer above
			write(t, fmt.Sprintf("%s/d/gone%d", dir, n), "1")
			write(t, fmt.Sprintf("%s/d/.wh.gone%d", l.Lowers[n-1], n), "")
		}
	}
	t.Setenv(maxFiles, "1024")
	m := uniontest.Start(t, uniontest.Laminafs, l)
	for pass := range 2 {
		list, err := os.ReadDir(l.Merged + "/d")
		must(t, err)
		if want := 2*layers + 1; len(list) != want {
			t.Errorf("pass %d: %d entries, want %d", pass, len(list), want)
		}
		wantContent(t, l.Merged+"/d/all", "0")
		for n := range layers {
			want := fmt.Sprint(n)
			if pass == 1 {
				want += "+"
			}
			wantContent(t, fmt.Sprintf("%s/d/f%d", l.Merged, n), want)
			wantContent(t, fmt.Sprintf("%s/d/only%d/x", l.Merged, n), want)
			if _, err := os.Lstat(fmt.Sprintf("%s/d/gone%d", l.Merged, n)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("gone%d: %v", n, err)
			}
			if pass == 0 {
				write(t, fmt.Sprintf("%s/d/f%d", l.Merged, n), want+"+")
				write(t, fmt.Sprintf("%s/d/only%d/x", l.Merged, n), want+"+")
			}
		}
		m.Remount()
	}
	must(t, os.RemoveAll(l.Merged+"/d"))
	m.Remount()
	if list, err := os.ReadDir(l.Merged); err != nil || len(list) > 0 {
		t.Errorf("%d entries are left, %v", len(list), err)
	}
}

// The mount point may lie in a lower: the union is not part of itself.
func TestMountPointInLower(t *testing.T) {
	for _, where := range []string{"mnt", "d/mnt"} {
		t.Run(where, func(t *testing.T) {
			l := newLayers(t)
			treeToTry(t, l.Lowers[0])
			l.Merged = l.Lowers[0] + "/" + where
			must(t, os.Mkdir(l.Merged, 0o755))
			write(t, l.Merged+"/below", "covered")
			m := uniontest.Start(t, uniontest.Laminafs, l)
			inTime(t, m, func() {
				inner := l.Merged + "/" + where
				wantContent(t, inner+"/below", "covered") // the directory that is mounted on, not the mount
				must(t, os.WriteFile(inner+"/new", []byte("1"), 0o644), os.RemoveAll(inner))
				tryTree(t, l.Merged)
				triedTree(t, l.Merged)
			})
			m.Remount()
			inTime(t, m, func() { triedTree(t, l.Merged) })
		})
	}
}

// What an ordinary user may not read in a lower stays out of reach, and keeps nobody from the rest.
func TestUnreadableLower(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	h := uniontest.As(t, uniontest.User)
	l := uniontest.NewLayers(t, 2, h)
	l.Trust = true // who is not the owner cannot read without moving the access time; all else is compared below
	low := l.Lowers[0]
	must(t, os.Chown(low, 0, 0), os.MkdirAll(low+"/secret/in", 0o755), os.MkdirAll(low+"/open", 0o755),
		os.MkdirAll(l.Lowers[1]+"/secret", 0o755), os.Chmod(low+"/secret", 0o700))
	write(t, low+"/secret/f", "secret")
	write(t, l.Lowers[1]+"/secret/below", "seen")
	write(t, low+"/key", "secret")
	must(t, os.Chmod(low+"/key", 0o600))
	write(t, low+"/open/f", "open")
	before := listing(t, l.Lowers...)
	uniontest.Start(t, uniontest.Laminafs, l)
	sh := func(script string) (string, int) {
		r, err := h.Exec(uniontest.Command{Argv: []string{"sh", "-c", script, "sh"}, Dir: l.Merged})
		must(t, err)
		return strings.TrimSpace(r.Stdout + r.Stderr), r.Code
	}
	for _, tt := range []struct {
		script string
		denied bool
		want   string
	}{
		{"ls", false, "key\nopen\nsecret"},
		{"stat -c '%a %U' secret key", false, "700 root\n600 root"},
		{"ls secret", true, ""},
		{"cat secret/f", true, ""},
		{"cat secret/below", true, ""},
		{"cat key", true, ""},
		{"echo x >>key", true, ""},
		{"rmdir secret", true, ""},
		{"rm -rf secret", true, ""},
		{"cat open/f", false, "open"},
		{"echo x >>open/f", true, ""},
		{"mkdir open/new", true, ""},
		{"mkdir new && echo new >new/f && cat new/f", false, "new"}, // the root is that of the upper
		{"ls", false, "key\nnew\nopen\nsecret"},
	} {
		if out, code := sh(tt.script); (code != 0) != tt.denied || !tt.denied && out != tt.want {
			t.Errorf("%s: status %d, %q", tt.script, code, out)
		} else if tt.denied && !strings.Contains(out, "ermission denied") {
			t.Errorf("%s: %q, want: permission denied", tt.script, out)
		}
	}
	// A layer that cannot be listed at all is said before anything is mounted.
	wantSame(t, "the lowers", before, listing(t, l.Lowers...))
	l = uniontest.NewLayers(t, 1, h)
	low = l.Lowers[0]
	must(t, os.Chown(low, 0, 0), os.Chmod(low, 0o711))
	if _, err := uniontest.TryStart(t, uniontest.Laminafs, l); err == nil || !strings.Contains(err.Error(), "lowerdir="+low+": permission denied") {
		t.Errorf("an unreadable layer: %v", err)
	}
}

// copyOnWriteRoot mounts / as the lower in a mount namespace of its own, with the upper on a tmpfs there, and removes in
// the mount what $WHAT says. It looks twice where it is before it does: all else is the machine's own.
const copyOnWriteRoot = `
set -eu
here=${1:?}
server=${2:?}
case $here in /*/*) ;; *) echo "$here is no directory of ours" >&2; exit 2;; esac
[ "$(readlink /proc/self/ns/mnt)" != "${3:?}" ] || { echo "in the namespace of the machine" >&2; exit 2; }
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$here"
mkdir "$here/upper" "$here/work" "$here/merged"
merged=$here/merged
"$server" -f -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$merged" &
pid=$!
trap 'umount "$merged" 2>/dev/null || umount -l "$merged" || :; wait "$pid"' EXIT
tries=0
until [ "$(stat -f -c %T "$merged")" = fuseblk ] || [ "$(stat -f -c %T "$merged")" = fuse ]; do
	tries=$((tries + 1)); [ $tries -lt 3000 ] || exit 3
	kill -0 "$pid"; sleep 0.01
done
cd "$merged"
[ "$(stat -c %d .)" != "$(stat -c %d /)" ] && [ "$(findmnt -n -o TARGET --target .)" = "$merged" ] || exit 4
[ -d usr/bin ] && [ -e etc/passwd ] || exit 5
chroot . /bin/true
for d in $4; do
	case $d in /*|*..*|'') exit 6;; esac
	[ -e "$merged/$d" ] || [ -L "$merged/$d" ] || continue
	rm -rf --one-file-system -- "${merged:?}/${d:?}"
	[ ! -e "$merged/$d" ] && [ ! -L "$merged/$d" ]
done
ls -A
cd /
`

// The whole machine can be the lower of a root that is all one's own.
func TestRemoveEverythingOfCopyOnWriteRoot(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	for _, prog := range []string{"unshare", "findmnt", "chroot"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Skipf("needs %s: %v", prog, err)
		}
	}
	server := uniontest.Binary(t)
	ns, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	// With LAMINA_LONG everything, which is a matter of minutes on a large machine.
	what, long := "bin sbin lib lib64 etc usr/bin usr/sbin usr/include usr/lib/systemd boot opt srv media mnt", os.Getenv("LAMINA_LONG") != ""
	if long {
		list, err := os.ReadDir("/")
		must(t, err)
		what = ""
		for _, e := range list {
			what += " " + e.Name()
		}
	}
	var out []byte
	var changed []string
	for range 2 { // somebody else's program may just change something of the machine's, and not a second time
		before := machine(t)
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", copyOnWriteRoot, "sh", t.TempDir(), server, ns, what)
		cmd.Env = append(os.Environ(), maxFiles+"=")
		if out, err = cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		now := machine(t)
		if changed = differences(before, now); len(changed) == 0 {
			break
		}
		t.Logf("the machine is not what it was: %q", changed[:min(len(changed), 10)])
		for _, path := range changed {
			was, is := before[path], now[path]
			if is == (object{}) || was != (object{}) && (is.ino != was.ino || is.mode != was.mode) {
				t.Errorf("%s was %+v, and is %+v", path, was, is)
			}
		}
	}
	if len(changed) > 0 {
		t.Errorf("the machine is not what it was: %q", changed[:min(len(changed), 10)])
	}
	left := strings.Fields(string(out))
	for _, name := range left {
		if long || slices.Contains([]string{"bin", "sbin", "lib", "etc", "boot", "opt", "mnt"}, name) {
			t.Errorf("%s is left", name)
		}
	}
}

// object is what must not change of one: its number, type, size and change time.
type object struct {
	ino   uint64
	mode  uint32
	size  int64
	ctime int64
}

// machine looks at the parts of the machine that nobody changes while tests run.
func machine(t *testing.T) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, dir := range []string{"/bin", "/sbin", "/lib", "/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", "/boot", "/opt"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			all[path] = object{st.Ino, st.Mode, st.Size, st.Ctim.Nano()}
			return err
		})
		if !errors.Is(err, os.ErrNotExist) {
			must(t, err)
		}
	}
	return all
}

// differences are the names of what has changed, come or gone.
func differences(before, after map[string]object) (changed []string) {
	for path, o := range before {
		if after[path] != o {
			changed = append(changed, path)
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	return changed
}
