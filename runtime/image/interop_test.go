package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// need skips a test where a program or root is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is missing: run scripts/setup-debian.sh", p)
		}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the test's peers need root")
	}
}

// script makes an image of two layers above busybox, with all that a layer can do to those below it.
const buildScript = `
set -eu
b() { buildah --root "$W/storage" --runroot "$W/run" --storage-driver vfs "$@"; }
c=$(b from scratch)
m=$(b mount $c)
umask 022
mkdir -p $m/bin $m/etc $m/dev $m/opaque/sub $m/gone/deep $m/type $m/home/u
cp /bin/busybox $m/bin/
ln $m/bin/busybox $m/bin/sh
ln -s ../bin/sh $m/etc/shell
echo root:x:0:0:root:/root:/bin/sh > $m/etc/passwd
echo one > $m/opaque/one; echo two > $m/opaque/sub/two
echo x > $m/gone/deep/x; echo y > $m/gone-file
echo file > $m/type/file; mkdir $m/type/dir; echo in > $m/type/dir/in; ln -s file $m/type/link
mkfifo $m/fifo
mknod $m/dev/zero c 1 5
chmod 4755 $m/bin/busybox
chmod 1777 $m/home
chown 1000:1001 $m/home/u
setfattr -n user.lamina -v hello $m/etc/passwd
cp /bin/busybox $m/bin/ping; setcap cap_net_raw+ep $m/bin/ping
truncate -s 3M $m/sparse; printf end >> $m/sparse
touch -d '2001-02-03 04:05:06.789012345' $m/etc/passwd
printf 'latin\351' > "$m/$(printf 'caf\351')"
b config --cmd /bin/sh --env A=b --label kind=test --port 80/tcp --volume /data $c
b commit --quiet $c localhost/lamina/test:base >/dev/null
m=$(b mount $c)
rm -r $m/gone $m/gone-file
rm -r $m/opaque; mkdir -m 700 $m/opaque; echo new > $m/opaque/new
rm $m/type/file; mkdir $m/type/file; echo now > $m/type/file/in
rm -r $m/type/dir; echo now > $m/type/dir
rm $m/type/link; mkdir $m/type/link
echo more >> $m/etc/passwd
chmod 750 $m/home/u
b commit --quiet $c localhost/lamina/test:two >/dev/null
b umount $c >/dev/null
`

// realImage is an image of two layers in several kinds of archives, made by other programs.
func realImage(t *testing.T) (dir string) {
	needRoot(t)
	need(t, "buildah", "skopeo", "umoci", "podman", "busybox", "setfattr", "setcap")
	dir = t.TempDir()
	cmd := exec.Command("bash", "-c", buildScript)
	cmd.Env = append(os.Environ(), "W="+dir, "BUILDAH_ISOLATION=chroot")
	t.Cleanup(func() { _ = exec.Command("umount", "-l", filepath.Join(dir, "storage/vfs")).Run() }) // vfs is bind mounted
	// The layers below the second: buildah commits to one layer, unless it begins from an image.
	script := strings.Replace(buildScript, "m=$(b mount $c)\nrm -r", "b rm $c >/dev/null; c=$(b from localhost/lamina/test:base); m=$(b mount $c)\nrm -r", 1)
	cmd.Args[2] = script
	run(t, cmd)
	return dir
}

// podmanImage is how podman and skopeo find the image that realImage made.
func podmanImage(dir, ref string) string {
	return fmt.Sprintf("containers-storage:[vfs@%s/storage+%s/run]%s", dir, dir, ref)
}

func TestImagesOfOtherPrograms(t *testing.T) {
	dir := realImage(t)
	const ref = "localhost/lamina/test:two"
	podman := []string{"podman", "--root", dir + "/storage", "--runroot", dir + "/run", "--storage-driver", "vfs"}
	from := podmanImage(dir, ref)
	layout := filepath.Join(dir, "layout")
	command(t, "skopeo", "copy", "-q", from, "oci:"+layout+":"+ref)
	command(t, "umoci", "unpack", "--image", layout+":"+ref, filepath.Join(dir, "bundle"))
	want := walkPlain(t, filepath.Join(dir, "bundle/rootfs"))

	archives := map[string]string{"skopeo OCI layout": layout}
	makeArchive := func(name string, words ...string) {
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "FILE", file)
		}
		command(t, words...)
		archives[name] = file
	}
	makeArchive("podman docker-archive", append(podman, "save", "-q", "--format", "docker-archive", "-o", "FILE", ref)...)
	makeArchive("podman OCI archive", append(podman, "save", "-q", "--format", "oci-archive", "-o", "FILE", ref)...)
	makeArchive("skopeo docker-archive", "skopeo", "copy", "-q", from, "docker-archive:FILE:"+ref)
	makeArchive("skopeo OCI archive", "skopeo", "copy", "-q", from, "oci-archive:FILE:"+ref)
	makeArchive("skopeo OCI zstd", "skopeo", "copy", "-q", "--dest-compress-format", "zstd", from, "oci:FILE:"+ref)
	makeArchive("gzip", "bash", "-c", "gzip -c "+archives["podman docker-archive"]+" > FILE")
	if _, err := exec.LookPath("zstd"); err == nil {
		makeArchive("zstd", "bash", "-c", "zstd -q -c "+archives["podman OCI archive"]+" > FILE")
	}
	// umoci adds a layer of its own.
	command(t, "cp", "-a", layout, layout+"-umoci")
	byUmoci := filepath.Join(dir, "bundle/rootfs/by-umoci")
	writeFile(t, byUmoci, "x")
	command(t, "touch", "-d", "2002-03-04 05:06:07", byUmoci) // it keeps whole seconds
	command(t, "umoci", "repack", "--image", layout+"-umoci:again", filepath.Join(dir, "bundle"))
	wantUmoci := walkPlain(t, filepath.Join(dir, "bundle/rootfs"))

	for name, path := range archives {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			loaded, err := s.Load(context.Background(), LoadOptions{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			s.checkInvariants(t)
			if len(loaded) != 1 || !slices.Equal(loaded[0].Tags, []string{ref}) {
				t.Errorf("loaded %+v", loaded)
			}
			compareTrees(t, walkImage(t, s, ref), want)
			if name == "podman OCI archive" {
				checkSaved(t, s, ref, want)
			}
		})
	}
	t.Run("umoci", func(t *testing.T) {
		s := openStore(t)
		loaded, err := s.Load(context.Background(), LoadOptions{Path: layout + "-umoci"})
		if err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
		if len(loaded) != 2 {
			t.Errorf("loaded %+v, want two images", loaded)
		}
		compareTrees(t, walkImage(t, s, ref), want)
		compareTrees(t, walkImage(t, s, "again"), wantUmoci)
	})
	t.Run("from a pipe", func(t *testing.T) {
		s := openStore(t)
		f, err := os.Open(archives["podman OCI archive"])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, w := io.Pipe()
		go func() { _, err := io.Copy(w, f); w.CloseWithError(err) }()
		if _, err := s.Load(context.Background(), LoadOptions{Stdin: r}); err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
		compareTrees(t, walkImage(t, s, ref), want)
	})
}

// checkSaved saves an image, and has other programs read it.
func checkSaved(t *testing.T, s *Store, ref string, want map[string]string) {
	img, err := s.Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "li") // podman wants a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, format := range []Format{DockerArchive, OCIArchive} {
		path := filepath.Join(dir, string(format))
		if err := os.WriteFile(path, save(t, s, format, ref), 0o600); err != nil {
			t.Fatal(err)
		}
		var inspect struct{ Layers []string }
		source := string(format) + ":" + path
		if err := json.Unmarshal([]byte(command(t, "skopeo", "inspect", source)), &inspect); err != nil {
			t.Fatal(err)
		}
		for i, d := range img.Spec.RootFS.DiffIDs {
			if i >= len(inspect.Layers) || inspect.Layers[i] != string(d) {
				t.Errorf("%s: skopeo shows layers %q, want %q", format, inspect.Layers, img.Spec.RootFS.DiffIDs)
				break
			}
		}
		raw := command(t, "skopeo", "inspect", "--config", "--raw", source)
		if digest.FromString(raw) != img.ID {
			t.Errorf("%s: skopeo shows another configuration", format)
		}
		storage := []string{"podman", "--root", dir + "/s-" + string(format), "--runroot", dir + "/r-" + string(format), "--storage-driver", "vfs"}
		out := command(t, append(storage, "load", "-q", "-i", path)...)
		if !strings.Contains(out, ref) {
			t.Errorf("%s: podman load: %q", format, out)
		}
		id := strings.TrimSpace(command(t, append(storage, "image", "inspect", "--format", "{{.Id}}", ref)...))
		if id != img.ID.Encoded() {
			t.Errorf("%s: podman shows image %s, want %s", format, id, img.ID.Encoded())
		}
		root := strings.TrimSpace(command(t, append(storage, "image", "mount", ref)...))
		compareTrees(t, walkPlain(t, root), want)
		command(t, append(storage, "image", "umount", "-a")...)
		_ = exec.Command("umount", "-l", dir+"/s-"+string(format)+"/vfs").Run() // podman leaves it bind mounted
	}
}

// compareTrees compares what walk functions return.
func compareTrees(t *testing.T, got, want map[string]string) {
	t.Helper()
	names := slices.Collect(maps.Keys(got))
	for name := range want {
		if _, ok := got[name]; !ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	if len(want) < 10 {
		t.Errorf("only %d names to compare", len(want))
	}
	for _, name := range names {
		if got[name] != want[name] {
			t.Errorf("%q is\n\t%s, want\n\t%s", name, got[name], want[name])
		}
	}
}

// walkPlain describes a directory tree.
func walkPlain(t *testing.T, root string) map[string]string {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(root, err)
	}
	defer unix.Close(fd)
	return walk(t, &view{dirs: []int{fd}}, false)
}

// walkImage describes the union of an image's layers.
func walkImage(t *testing.T, s *Store, name string) map[string]string {
	t.Helper()
	img, err := s.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.layer(img.Layer())
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.lower(l.CacheID)
	if err != nil {
		t.Fatal(err)
	}
	v, err := openView(s.below(lower))
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	return walk(t, v, true)
}

// walk describes each name below a merged directory: type, mode, owner, time, content, attributes, names of one file.
func walk(t *testing.T, top *view, marks bool) map[string]string {
	t.Helper()
	tree := map[string]string{}
	var into func(v *view, path string)
	links := map[string][]string{}
	into = func(v *view, path string) {
		seen := map[string]bool{}
		for _, dir := range v.dirs {
			var names []string
			if err := sys.ReadDir(dir, func(e sys.Dirent) { names = append(names, e.Name) }); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if seen[name] || marks && whiteout.Reserved(name) {
					continue
				}
				seen[name] = true
				child, err := v.lookup(name)
				if err != nil {
					t.Fatal(err)
				}
				if len(child.dirs) > 0 {
					tree[path+name] = describe(t, sys.Fd(child.dirs[0]), nil, "")
					into(child, path+name+"/")
				} else if child.file {
					for _, d := range v.dirs { // the first that has it
						if _, err := sys.Stat(sys.At{Dirfd: d, Name: name}); err == nil {
							tree[path+name] = describe(t, sys.At{Dirfd: d, Name: name}, links, path+name)
							break
						}
					}
				}
				child.close()
			}
		}
	}
	into(top, "")
	for _, names := range links {
		sort.Strings(names)
		for _, name := range names {
			tree[name] += fmt.Sprintf(" names %q", names)
		}
	}
	return tree
}

func describe(t *testing.T, a sys.At, links map[string][]string, name string) string {
	t.Helper()
	st, err := sys.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	s := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := sys.Open(a, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), name)
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		s += fmt.Sprintf(" %d bytes %s at %d.%09d", st.Size, hex.EncodeToString(sum.Sum(nil))[:12], st.Mtim.Sec, st.Mtim.Nsec/1e6*1e6)
		if st.Nlink > 1 {
			key := fmt.Sprint(st.Dev, ":", st.Ino)
			links[key] = append(links[key], name)
		}
	case unix.S_IFLNK:
		to, err := sys.Readlink(a)
		if err != nil {
			t.Fatal(err)
		}
		s += " -> " + to
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" device %x", st.Rdev)
	}
	attrs, err := sys.XattrNames(a)
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(attrs)
	for _, attr := range attrs {
		if strings.HasPrefix(attr, "user.rootlesscontainers") || strings.HasPrefix(attr, "user.overlay") {
			continue
		}
		v, err := sys.XattrValue(a, attr)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %s=%x", attr, bytes.TrimRight(v, "\x00"))
	}
	return s
}
