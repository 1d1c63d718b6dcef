package layertar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// session is what somebody does in a union, and what Changes then says.
type session struct {
	name    string
	script  string
	changes string // one a line
}

// lowers is what the sessions begin with, the lowest first.
const lowers = `
	mkdir -p 1/etc/conf.d 1/var/lib/dpkg 1/usr/bin 1/tree/a/b 1/gone
	echo passwd > 1/etc/passwd; echo one > 1/etc/conf.d/one; echo two > 1/etc/conf.d/two; echo x > 1/gone/x
	echo low > 1/tree/low; echo deep > 1/tree/a/b/deep; echo ls > 1/usr/bin/ls; ln 1/usr/bin/ls 1/usr/bin/dir
	echo hidden > 1/tree/hidden; ln -s passwd 1/etc/link
	mkdir -p 2/tree/a 2/etc; echo mid > 2/tree/mid; echo over > 2/tree/a/over; : > 2/tree/.wh.hidden
	mkdir 2/var; : > 2/.wh.gone; chmod 711 2/etc
`

var sessions = []session{
	{"nothing", ":", ""},
	{"add", "mkdir -p new/dir; echo x > new/dir/f; ln -s f new/dir/l; mkfifo new/p", "A /new\nA /new/dir\nA /new/dir/f\nA /new/dir/l\nA /new/p"},
	{"change", "echo more >> etc/passwd; chmod 700 usr", "C /etc\nC /etc/passwd\nC /usr"},
	{"change deep", "touch -d @5 tree/a/b/deep", "C /tree\nC /tree/a\nC /tree/a/b\nC /tree/a/b/deep"},
	{"written and put back", "touch -r etc/passwd /tmp/ref$$; echo passwd > etc/passwd; touch -r /tmp/ref$$ etc/passwd; rm /tmp/ref$$", ""},
	{"delete", "rm etc/passwd; rm -r tree", "C /etc\nD /etc/passwd\nD /tree"},
	{"add and delete", "echo x > etc/x; rm etc/x; mkdir y; rmdir y", ""},
	{"replace a directory", "rm -r etc; mkdir etc; echo new > etc/conf.d; echo p > etc/passwd",
		"C /etc\nC /etc/conf.d\nD /etc/link\nC /etc/passwd"},
	{"replace by another type", "rm -r tree; echo file > tree; rm etc/passwd; mkdir etc/passwd; echo > etc/passwd/x",
		"C /etc\nC /etc/passwd\nA /etc/passwd/x\nC /tree"},
	{"replace by the same name", "rm etc/passwd; echo again > etc/passwd", "C /etc\nC /etc/passwd"},
	{"move a file", "mv etc/passwd etc/shadow", "C /etc\nD /etc/passwd\nA /etc/shadow"},
	{"move a directory", "mv tree forest", "A /forest\nA /forest/a\nA /forest/a/b\nA /forest/a/b/deep\nA /forest/a/over\nA /forest/low\nA /forest/mid\nD /tree"},
	{"move and change", "mv tree forest; rm forest/low; echo y > forest/a/b/new; rm forest/a/over",
		"A /forest\nA /forest/a\nA /forest/a/b\nA /forest/a/b/deep\nA /forest/a/b/new\nA /forest/mid\nD /tree"},
	{"move over a name that was there", "rm -r etc; mv tree etc", "C /etc\nA /etc/a\nA /etc/a/b\nA /etc/a/b/deep\nA /etc/a/over\nD /etc/conf.d\nD /etc/link\nA /etc/low\nA /etc/mid\nD /etc/passwd\nD /tree"},
	{"move into a new directory", "mkdir n; mv tree/a n/t", "A /n\nA /n/t\nA /n/t/b\nA /n/t/b/deep\nA /n/t/over\nC /tree\nD /tree/a"},
	{"move within a moved directory", "mv tree forest; mv forest/a forest/z",
		"A /forest\nA /forest/low\nA /forest/mid\nA /forest/z\nA /forest/z/b\nA /forest/z/b/deep\nA /forest/z/over\nD /tree"},
	{"what a lower layer deleted", "mkdir gone; echo x > gone/y", "A /gone\nA /gone/y"},
	{"what a lower layer hides", "echo back > tree/hidden", "C /tree\nA /tree/hidden"},
	{"hard links", "ln etc/passwd etc/again; echo n > n; ln n tree/n; ln n n2", "C /etc\nA /etc/again\nA /n\nA /n2\nC /tree\nA /tree/n"},
	{"odd names", "echo x > '-+ !'; mkdir '!d'; echo y > '!d/.wx'", "A /!d\nA /!d/.wx\nA /-+ !"},
	{"root", "chmod 700 .", ""},
}

// TestPackedLayerShowsTheSame: a layer made of the upper, on top of the old ones, shows what the union showed. In every
// format in which an upper may have its marks, with directories moved and copied.
func TestPackedLayerShowsTheSame(t *testing.T) {
	uniontest.NeedRoot(t)
	for _, sys := range []struct {
		name   string
		system uniontest.System
		opts   []string
	}{
		{"wh", uniontest.Laminafs, nil},
		{"overlay", uniontest.Laminafs, []string{"whiteout=overlay"}},
		{"xattr", uniontest.Laminafs, []string{"xattr_permissions=2"}},
		{"kernel", uniontest.Overlay, nil},
	} {
		for _, s := range sessions {
			t.Run(sys.name+"/"+s.name, func(t *testing.T) { testSession(t, sys.system, s, sys.opts) })
		}
	}
}

func testSession(t *testing.T, system uniontest.System, s session, opts []string) {
	l := uniontest.NewLayers(t, 2)
	prepare := func(script string) { run(t, "sh", "-euc", "cd "+l.Dir+"; "+script) }
	prepare(strings.NewReplacer(" 1/", " lower2/", " 2/", " lower1/").Replace(lowers))
	if system == uniontest.Overlay { // which reads no .wh. files
		prepare("rm lower1/tree/.wh.hidden lower1/.wh.gone; mknod lower1/tree/hidden c 0 0; mknod lower1/gone c 0 0")
	}
	m := uniontest.Start(t, system, l, opts...)
	run(t, "sh", "-euc", "cd "+m.Dir()+"; "+s.script)
	want := describe(t, m.Dir())
	m.Unmount()

	var below []*os.File
	for _, dir := range l.Lowers {
		below = append(below, openDir(t, dir))
	}
	changes, err := layertar.Changes(openDir(t, l.Upper), below)
	must(t, err)
	var lines []string
	for _, c := range changes {
		lines = append(lines, c.String())
	}
	if got := strings.Join(lines, "\n"); got != s.changes {
		t.Errorf("changes:\n%s\nwant\n%s", got, s.changes)
	}

	layer := pack(t, l.Upper, l.Lowers...)
	over := uniontest.NewLayers(t, 0)
	top := filepath.Join(over.Dir, "top")
	must(t, os.Mkdir(top, 0o755))
	_, err = layertar.Apply(t.Context(), openDir(t, top), bytes.NewReader(layer), layertar.Options{Lowers: func() ([]*os.File, error) { return below, nil }})
	must(t, err)
	if marks := devicesIn(t, top); len(marks) > 0 {
		t.Errorf("kernel whiteouts %q are in the layer", marks)
	}
	over.Upper, over.Work = "", "" // whose root would be shown
	over.Lowers = append([]string{top}, l.Lowers...)
	got := describe(t, uniontest.Start(t, uniontest.Laminafs, over).Dir())
	for _, tree := range []map[string]string{got, want} {
		root, _, _ := strings.Cut(tree["."], " mtime=") // belongs to the upper's directory, which has no entry
		tree["."] = root
		for name, line := range tree {
			// Names of one file that are not in the upper stay the lower's: kernel overlayfs and Docker have it so too.
			if strings.HasPrefix(name, "usr/bin/") {
				line, _, _ = strings.Cut(line, " is=")
				tree[name] = line
			}
		}
	}
	same(t, got, want)
}

// devicesIn lists the character devices 0:0 below dir.
func devicesIn(t testing.TB, dir string) (found []string) {
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if st := lstat(t, path); st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			found = append(found, path)
		}
		return err
	}))
	return found
}

// TestPackErrors: what cannot go into a layer is said, and what may be lost is.
func TestPackErrors(t *testing.T) {
	uniontest.NeedRoot(t)
	dir := t.TempDir()
	at := func(name string) sys.At { return sys.At{Dirfd: unix.AT_FDCWD, Name: filepath.Join(dir, name)} }
	must(t, os.WriteFile(at("f").Name, []byte("x"), 0o644), sys.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0),
		sys.Setxattr(at("f"), "user.a=b", []byte("v"), 0), sys.Setxattr(at("f"), "user.overlay.metacopies", nil, 0))
	var lost []string
	warn := layertar.PackOptions{Warn: func(path string, err error) { lost = append(lost, fmt.Sprint(path, ": ", err)) }}
	var b bytes.Buffer
	must(t, layertar.Pack(t.Context(), &b, openDir(t, dir), nil, warn))
	if len(lost) != 2 || !strings.Contains(lost[0], "user.a=b") || !strings.Contains(lost[1], "socket") {
		t.Errorf("said of what is lost: %q", lost)
	}
	tree := describe(t, apply(t, b.Bytes(), layertar.Options{}))
	if names(tree) != "f" || strings.Contains(tree["f"], "user.") {
		t.Errorf("packed %v", tree)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := layertar.Pack(ctx, &b, openDir(t, dir), nil, warn); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want Canceled", err)
	}
	full := errors.New("disk full")
	if err := layertar.Pack(t.Context(), writeFunc(func([]byte) (int, error) { return 0, full }), openDir(t, dir), nil, warn); !errors.Is(err, full) {
		t.Errorf("error %v, want %v", err, full)
	}
	must(t, sys.Setxattr(at("f"), "user.overlay.metacopy", nil, 0))
	var e *layertar.EntryError
	if err := layertar.Pack(t.Context(), &b, openDir(t, dir), nil, warn); !errors.As(err, &e) || e.Name != "f" {
		t.Errorf("error %v, want one that names f", err)
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// TestImpliedDirectories: a directory without an entry is made like the one it is merged with.
func TestImpliedDirectories(t *testing.T) {
	uniontest.NeedRoot(t)
	tmp := t.TempDir()
	run(t, "sh", "-euc", "cd "+tmp+`; mkdir -p 1/a/b/c 1/d/e 2/a 2/d; chmod 700 1/a/b; chown 5:6 1/a/b; setfattr -n user.x -v y 1/a/b
		setfattr -n user.overlay.opaque -v y 2/d; chmod 4711 2/a; touch -d @1000.5 1/a/b 2/a`)
	layer := archive(t, file("a/b/f", ""), file("d/e/f", ""), file("new/dir/f", ""))
	path := apply(t, layer, layertar.Options{Lowers: func() ([]*os.File, error) {
		return []*os.File{openDir(t, tmp+"/2"), openDir(t, tmp+"/1")}, nil
	}})
	got := describe(t, path)
	for name, want := range map[string]string{
		"a": "mode=44711 owner=0:0 mtime=1000500000000", "a/b": `mode=40700 owner=5:6 mtime=1000500000000 user.x="y"`,
		"d": "mode=40755", "d/e": "mode=40755 owner=0:0", "new": "mode=40755 owner=0:0", "new/dir": "mode=40755 owner=0:0",
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	if strings.Contains(got["d"], "opaque") {
		t.Errorf("a mark of the layer below came along: %s", got["d"])
	}
}

// TestAttributesOfUnions: what would mean something to the union is not taken from a tar: an overlay's goes one deeper,
// and comes back; an owner that a tar claims in an attribute is no owner.
func TestAttributesOfUnions(t *testing.T) {
	uniontest.NeedRoot(t)
	e := dir("d/", 0o755)
	e.PAXRecords = map[string]string{}
	for _, name := range []string{"user.overlay.opaque", "trusted.overlay.redirect", "user.containers.override_stat", "user.fuseoverlayfs.opaque", "security.selinux", "user.ok"} {
		e.PAXRecords["SCHILY.xattr."+name] = "y"
	}
	var lost []string
	path := apply(t, archive(t, e), layertar.Options{Warn: func(entry string, err error) { lost = append(lost, err.Error()) }})
	line := describe(t, path)["d"]
	for _, want := range []string{` user.overlay.overlay.opaque="y"`, ` trusted.overlay.overlay.redirect="y"`, ` user.ok="y"`} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if strings.Count(line, "=\"y\"") != 3 {
		t.Errorf("more than that is in %s", line)
	}
	if len(lost) != 2 || !strings.Contains(lost[0], "override_stat") || !strings.Contains(lost[1], "fuseoverlayfs") {
		t.Errorf("said of what is lost: %q", lost)
	}
	again := apply(t, pack(t, path), layertar.Options{})
	if got := describe(t, again)["d"]; got != line {
		t.Errorf("packed and unpacked: %s, want %s", got, line)
	}
}

// TestDefaultACL: what is unpacked into a directory with a default ACL does not inherit from it; the directory has it.
func TestDefaultACL(t *testing.T) {
	uniontest.NeedRoot(t)
	src := t.TempDir()
	run(t, "sh", "-euc", "cd "+src+"; mkdir -p d/e; echo x > d/f; setfacl -d -m u:1234:rwx d; setfacl -m u:55:r d/f; chmod 750 d/e")
	acl := describe(t, src)
	if !strings.Contains(acl["d"], "posix_acl_default") || !strings.Contains(acl["d/f"], "posix_acl_access") {
		t.Skip("the filesystem has no ACLs")
	}
	delete(acl, ".")
	layer := pack(t, src)
	// Entries that come back to the directory later do not inherit from it either.
	layer = concat(unended(layer), archive(t, dir("other/", 0o755), file("d/late", ""), dir("d/dir/", 0o755)))
	got := describe(t, apply(t, layer, layertar.Options{}))
	if strings.Contains(got["d/late"]+got["d/dir"]+got["other"], "acl") {
		t.Errorf("inherited: %s, %s", got["d/late"], got["d/dir"])
	}
	for _, name := range []string{".", "other", "d/late", "d/dir"} {
		delete(got, name)
	}
	same(t, got, acl)
}

// TestOpen finds files as Apply made them, and nothing that is not one.
func TestOpen(t *testing.T) {
	path := apply(t, archive(t, file("/a/b", "data"), link('2', "l", "a/b"), link('2', "dir", "a"), link('6', "fifo", "")), layertar.Options{})
	d := openDir(t, path)
	for _, name := range []string{"a/b", "/a/b", "./a//b"} {
		f, err := layertar.Open(d, name)
		must(t, err)
		content := make([]byte, 10)
		if n, _ := f.Read(content); string(content[:n]) != "data" {
			t.Errorf("%s: %q", name, content[:n])
		}
		f.Close()
	}
	for _, name := range []string{"l", "dir/b", "a", "fifo", "../layer/a/b", "", "none", "a/b/c"} {
		if f, err := layertar.Open(d, name); err == nil {
			t.Errorf("%s was opened: %s", name, f.Name())
		}
	}
}
