package layertar_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// The test process again, as an ordinary user: applyAs names the directory to unpack stdin to, and how owners are kept.
const (
	applyAs = "LAYERTAR_TEST_APPLY"
	packAs  = "LAYERTAR_TEST_PACK"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(applyAs); dir != "" {
		os.Exit(helper(func(d *os.File) error {
			o := layertar.Options{Warn: func(entry string, err error) { fmt.Printf("warning: %s: %v\n", entry, err) }}
			if os.Getenv("LAYERTAR_TEST_OWNERS") == "xattr" {
				o.Owners = layertar.Xattr
			}
			size, err := layertar.Apply(ctxOfTests(), d, os.Stdin, o)
			fmt.Println("size", size)
			return err
		}, dir))
	}
	if dir := os.Getenv(packAs); dir != "" {
		os.Exit(helper(func(d *os.File) error {
			return layertar.Pack(ctxOfTests(), os.Stdout, d, nil, layertar.PackOptions{})
		}, dir))
	}
	os.Exit(m.Run())
}

func helper(f func(*os.File) error, dir string) int {
	d, err := os.Open(dir)
	if err == nil {
		err = f(d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// identity is a way to be an ordinary user.
type identity struct {
	name string
	argv []string // before the program
	env  []string
}

var identities = []identity{
	{"range of ids", []string{"unshare", "--user", "--map-root-user", "--map-auto"}, nil},
	{"one id", []string{"unshare", "--user", "--map-root-user"}, []string{"LAYERTAR_TEST_OWNERS=xattr"}},
	{"one id, not told", []string{"unshare", "--user", "--map-root-user"}, nil},
	{"no user namespace", nil, []string{"LAYERTAR_TEST_OWNERS=xattr"}},
}

// user is a place of the ordinary user's, with a copy of this program.
type userPlace struct {
	dir      string
	program  string
	uid, gid int
}

func newUserPlace(t *testing.T) userPlace {
	t.Helper()
	uniontest.NeedRoot(t)
	uid, gid := uniontest.NeedUser(t)
	dir, err := os.MkdirTemp("", "layertar-user-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "program")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err, os.WriteFile(program, self, 0o755), os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "own"), 0o755))
	must(t, os.Chown(filepath.Join(dir, "own"), uid, gid))
	return userPlace{dir, program, uid, gid}
}

// mkdir makes a directory that belongs to the user.
func (p userPlace) mkdir(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(p.dir, "own", name)
	must(t, os.Mkdir(path, 0o755), os.Chown(path, p.uid, p.gid))
	return path
}

// run runs the program again, as the user and within id.
func (p userPlace) run(t *testing.T, id identity, stdin io.Reader, env ...string) (string, error) {
	t.Helper()
	argv := append([]string{"setpriv", "--reuid=" + strconv.Itoa(p.uid), "--regid=" + strconv.Itoa(p.gid), "--clear-groups"}, id.argv...)
	cmd := exec.Command(argv[0], append(argv[1:], p.program)...)
	cmd.Stdin, cmd.Env = stdin, append(append([]string{"PATH=" + os.Getenv("PATH")}, id.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// userLayer is a layer with what an ordinary user cannot make, and cannot open again.
func userLayer(t *testing.T) []byte {
	owned := func(e entry, uid, gid int) entry {
		e.Uid, e.Gid, e.Format = uid, gid, tar.FormatPAX
		e.ModTime = mtime
		return e
	}
	mode := func(e entry, mode int64) entry { e.Mode = mode; return e }
	attrs := func(e entry) entry {
		e.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept"}
		return e
	}
	return archive(t,
		owned(dir("./", 0o755), 0, 0), owned(attrs(dir("locked/", 0)), 0, 0), owned(attrs(mode(file("locked/secret", "data"), 0)), 0, 42),
		owned(mode(file("su", "#!"), 0o6755), 0, 0), owned(attrs(mode(file("mine", "x"), 0o440)), 1234, 5678),
		owned(dir("home/", 0o700), 1000, 1000), owned(file("home/f", "home"), 1000, 1000),
		owned(mode(entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}, 0o666), 0, 0),
		owned(mode(entry{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 70000}, ""}, 0o660), 0, 6),
		owned(mode(link(tar.TypeFifo, "fifo", ""), 0o622), 0, 0), owned(mode(link(tar.TypeFifo, "fifo2", ""), 0o600), 33, 33),
		owned(link(tar.TypeSymlink, "link", "/etc"), 0, 0), owned(link(tar.TypeLink, "locked/again", "mine"), 0, 0),
		file("home/.wh.gone", ""),
	)
}

// TestOrdinaryUser: whatever he may, the layer that he unpacks has everything, and he can pack it again: what comes out
// is what came in.
func TestOrdinaryUser(t *testing.T) {
	p := newUserPlace(t)
	layer := userLayer(t)
	want := describe(t, apply(t, layer, layertar.Options{}))
	for i, id := range identities {
		t.Run(id.name, func(t *testing.T) {
			path := p.mkdir(t, strconv.Itoa(i))
			if _, err := p.run(t, id, bytes.NewReader(layer), applyAs+"="+path); err != nil {
				t.Fatal(err)
			}
			if id.argv == nil {
				// Without a user namespace's capabilities he reads only what the inodes let him; that is all of it.
				must(t, filepath.WalkDir(path, func(name string, _ os.DirEntry, err error) error {
					if st := lstat(t, name); st.Uid != uint32(p.uid) || st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o600 != 0o600 {
						t.Errorf("%s: mode %o, owner %d", name, st.Mode, st.Uid)
					}
					return err
				}))
			}
			packed, err := p.run(t, id, nil, packAs+"="+path)
			if err != nil {
				t.Fatal(err)
			}
			got := describe(t, apply(t, []byte(packed), layertar.Options{}))
			if id.argv == nil { // he has an id that is not root's: the owner of a symbolic link is his, and lost
				got["link"] = strings.Replace(got["link"], fmt.Sprintf("owner=%d:%d", p.uid, p.gid), "owner=0:0", 1)
			}
			got["home/.wh.gone"] = want["home/.wh.gone"] // a mark has no time
			delete(got, ".")                             // Pack has nothing below to tell from
			wantRoot := want["."]
			delete(want, ".")
			same(t, got, want)
			want["."] = wantRoot
		})
	}
}

// TestUnionReadsIt: laminafs shows the layer as it is meant.
func TestUnionReadsIt(t *testing.T) {
	p := newUserPlace(t)
	uniontest.NeedFuse(t)
	layer := userLayer(t)
	want := describe(t, apply(t, layer, layertar.Options{}))
	delete(want, "home/.wh.gone")
	for i, id := range identities[:2] {
		t.Run(id.name, func(t *testing.T) {
			lower := p.mkdir(t, strconv.Itoa(i))
			if _, err := p.run(t, id, bytes.NewReader(layer), applyAs+"="+lower); err != nil {
				t.Fatal(err)
			}
			n := strconv.Itoa(i)
			merged := p.mkdir(t, "merged"+n)
			// Where one id is mapped the kernel shows others as nobody, and keeps even root out of what is theirs alone.
			// That the layer has them all, root of the machine sees.
			argv := []string{"unshare"}
			if i == 0 {
				argv = append([]string{"setpriv", "--reuid=" + strconv.Itoa(p.uid), "--regid=" + strconv.Itoa(p.gid), "--clear-groups"}, id.argv...)
			}
			argv = append(argv, "--mount", "sh", "-ec", `"$0" -o "lowerdir=$1" "$2"; cd "$2"
				for f in . home home/f locked locked/again locked/secret mine su null disk fifo fifo2 link; do
				stat -c "%n %f %u:%g %s %t:%T %Y" "$f"; done; cat locked/secret; getfattr --only-values -n user.note locked/secret mine;
				cd /; umount "$2"`, uniontest.Binary(t), lower, merged)
			cmd := exec.Command(argv[0], argv[1:]...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, line := range []string{
				". 41ed 0:0", "locked 4000 0:0", "locked/secret 8000 0:42 4", "su 8ded 0:0 2", "mine 8120 1234:5678 1",
				"locked/again 8120 1234:5678 1", "home 41c0 1000:1000", "home/f 81a4 1000:1000 4", "null 21b6 0:0 0 1:3",
				"disk 61b0 0:6 0 103:11170", "fifo 1192 0:0", "fifo2 1180 33:33", "link a1ff ", "datakeptkept",
			} {
				if !strings.Contains("\n"+string(out), "\n"+line) {
					t.Errorf("no line %q in\n%s", line, out)
				}
			}
		})
	}
}
