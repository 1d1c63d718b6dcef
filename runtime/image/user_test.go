package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/override"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const testUser = "lamina-test"

// namespaces are the user namespaces in which an ordinary user runs us, as commands.
var namespaces = map[string][]string{
	"a range of ids": {"unshare", "-U", "--map-root-user", "--map-auto"},
	"one id":         {"unshare", "-U", "--map-root-user"},
	"no namespace":   {},
}

// asUser is a folder of the ordinary user's, and the command that runs something as him.
func asUser(t *testing.T) (dir string, runAs []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	need(t, "runuser", "unshare", "newuidmap")
	u, err := user.Lookup(testUser)
	if err != nil {
		t.Skipf("%v: run scripts/setup-debian.sh", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err = os.MkdirTemp("", "lamina-image-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir, []string{"runuser", "-u", testUser, "--"}
}

// userCommand runs the test binary, which lies where the user may read it.
func userCommand(t *testing.T, dir string, before []string, args ...string) *exec.Cmd {
	t.Helper()
	bin := filepath.Join(dir, "image.test")
	if _, err := os.Stat(bin); err != nil {
		command(t, "cp", os.Args[0], bin)
		if err := os.Chmod(bin, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	words := append(append([]string{}, before...), bin)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, helperEnv+"="+strings.Join(args, "\n"))
	return cmd
}

// An image with other owners, devices and set-id files is loaded without privilege; what cannot be made is recorded,
// and the layer is given back bit for bit.
func TestOrdinaryUser(t *testing.T) {
	layer := layerTar(t,
		entry{name: "./", h: tar.Header{Mode: 0o755}},
		entry{name: "home/", h: tar.Header{Mode: 0o750, Uid: 1000, Gid: 1001}},
		entry{name: "home/f", body: "data", h: tar.Header{Mode: 0o4755, Uid: 1000, Gid: 1001}},
		entry{name: "null", h: tar.Header{Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}},
		entry{name: "secret", body: "x", h: tar.Header{Mode: 0o1, Uid: 0}})
	for name, ns := range namespaces {
		t.Run(name, func(t *testing.T) {
			dir, runAs := asUser(t)
			runAs = append(runAs, ns...)
			archive := filepath.Join(dir, "archive")
			writeFile(t, archive, string(dockerArchive(t, "c", []string{"x:1"}, layer)))
			root := filepath.Join(dir, "store")
			run(t, userCommand(t, dir, runAs, root, "load", archive))
			run(t, userCommand(t, dir, runAs, root, "mount", "c1", "x:1"))
			out := filepath.Join(dir, "saved")
			run(t, userCommand(t, dir, runAs, root, "save", "x:1", out))
			text, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if got := filesOf(t, text)[blobName(digest.FromBytes(layer))]; !bytes.Equal(got, layer) {
				t.Error("the layer does not come back bit for bit")
			}
			// We are root, and see what is on disk.
			s := &Store{root: root}
			s.checkInvariants(t)
			m, err := s.Mount("c1")
			if err != nil {
				t.Fatal(err)
			}
			diff := filepath.Join(m.LayersDir, m.Lowers[1])
			for file, want := range map[string]string{"home": "1000:1001:0750:dir", "home/f": "1000:1001:04755:file", "null": "0:0:0666:char-1-3"} {
				checkOwner(t, filepath.Join(diff, file), want, name == "a range of ids" && file != "null")
			}
			for _, args := range [][]string{{"rmi", "x:1"}, {"unmount", "c1"}} {
				run(t, userCommand(t, dir, runAs, append([]string{root}, args...)...))
			}
			s.checkInvariants(t)
			if got, _ := s.names("layers"); len(got) != 1 {
				t.Errorf("left %q", got)
			}
		})
	}
}

// checkOwner: an object's owner and mode are in its inode, with ids of the user's range, or in the attribute.
func checkOwner(t *testing.T, path, want string, inode bool) {
	t.Helper()
	a := sys.At{Dirfd: unix.AT_FDCWD, Name: path}
	v, err := sys.XattrValue(a, override.Containers)
	if inode {
		st, _ := sys.Stat(a)
		stat, _ := override.Parse(want)
		first := subID(t)
		if st.Uid != first+stat.UID-1 || st.Gid != first+stat.GID-1 || st.Mode != stat.Mode || err == nil {
			t.Errorf("%s: %d:%d:%o, attribute %q; want %s from %d on", path, st.Uid, st.Gid, st.Mode, v, want, first)
		}
		return
	}
	if string(v) != want {
		t.Errorf("%s: attribute %q, %v; want %q", path, v, err, want)
	}
}

// subID is the first id of the user's range, which stands for 1 in his namespace.
func subID(t *testing.T) uint32 {
	t.Helper()
	text, err := os.ReadFile("/etc/subuid")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var first uint32
		if _, err := fmt.Sscanf(line, testUser+":%d:", &first); err == nil {
			return first
		}
	}
	t.Skipf("%s has no range in /etc/subuid: run scripts/setup-debian.sh", testUser)
	return 0
}

// The other tests hold for an ordinary user too.
func TestTestsAsOrdinaryUser(t *testing.T) {
	for _, name := range []string{"a range of ids", "one id"} {
		t.Run(name, func(t *testing.T) {
			dir, runAs := asUser(t)
			ns := namespaces[name]
			cmd := userCommand(t, dir, append(runAs, ns...))
			cmd.Env = append(cmd.Env, helperEnv+"=")
			cmd.Args = append(cmd.Args, "-test.run", "^(TestLayersComeBack|TestBadArchives|TestMount|TestInit|TestRemove)")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
