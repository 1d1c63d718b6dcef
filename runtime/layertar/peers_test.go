package layertar_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// run runs a program, which must be there and succeed.
func run(t testing.TB, argv ...string) string {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("needs %s: %v", argv[0], err)
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// realTree makes a tree with one of everything that root can make.
func realTree(t testing.TB) string {
	t.Helper()
	uniontest.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "tree")
	p := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.MkdirAll(p("usr/bin"), 0o755), os.MkdirAll(p("closed"), 0o755),
		os.WriteFile(p("usr/bin/su"), []byte("#!"), 0o755), os.Chmod(p("usr/bin/su"), os.ModeSetuid|os.ModeSetgid|0o755),
		os.WriteFile(p("usr/bin/ping"), []byte("ping"), 0o755),
		unix.Setxattr(p("usr/bin/ping"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		os.WriteFile(p("owned"), bytes.Repeat([]byte("data"), 100_000), 0o640), os.Lchown(p("owned"), 1234, 54321),
		unix.Setxattr(p("owned"), "user.note", []byte("a\x00b\n"), 0),
		unix.Setxattr(p("owned"), "user.empty", nil, 0),
		unix.Setxattr(p("usr"), "trusted.note", []byte("root's"), 0),
		os.Link(p("owned"), p("usr/again")),
		os.Symlink("../nowhere", p("link")), os.Lchown(p("link"), 7, 8), os.Link(p("link"), p("usr/link")),
		unix.Mkfifo(p("fifo"), 0o622), unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(p("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))),
		os.WriteFile(p("closed/f"), nil, 0), os.Chmod(p("closed"), 0),
		os.Mkdir(p("tmp"), 0o755), os.Chmod(p("tmp"), os.ModeSticky|0o777),
		os.WriteFile(p("\xff\xfe odd \n name"), []byte("x"), 0o600), os.WriteFile(p(strings.Repeat("n", 255)), nil, 0o644),
		os.Chmod(p(""), 0o755),
	)
	sparse, err := os.OpenFile(p("sparse"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	for _, off := range []int64{0, 1 << 20, 3<<20 + 5} {
		_, err := sparse.WriteAt([]byte("island"), off)
		must(t, err)
	}
	must(t, sparse.Truncate(5<<20), sparse.Close())
	when := []unix.Timespec{{Sec: 1e9, Nsec: 999999999}, {Sec: 1e9 + 7, Nsec: 123456789}}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW)
	}))
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p(""), when, 0))
	settle(t, dir)
	return dir
}

// settle has the disk write a tree back: tar(1) takes a file that has no block for a hole, and while it is written back it may have none
// for a moment.
func settle(t testing.TB, dir string) {
	t.Helper()
	run(t, "sync", "--file-system", dir)
}

// TestTarMakesTheSame: GNU tar packs a tree in each of its formats; we unpack it as it was.
func TestTarMakesTheSame(t *testing.T) {
	dir := realTree(t)
	want := describe(t, dir)
	for _, args := range [][]string{
		{"--format=posix"}, {"--format=posix", "--sparse"}, {"--format=posix", "--sparse", "--sparse-version=0.0"},
		{"--format=posix", "--sparse", "--sparse-version=0.1"}, {"--format=gnu", "--sparse"}, {"--format=gnu"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "t.tar")
			argv := append([]string{"tar", "-c", "-C", dir, "-f", out, "--numeric-owner"}, args...)
			gnu := strings.Contains(args[0], "gnu")
			if !gnu { // the old format has neither attributes nor nanoseconds
				argv = append(argv, "--xattrs", "--xattrs-include=*")
			}
			run(t, append(argv, ".")...)
			layer, err := os.ReadFile(out)
			must(t, err)
			path := apply(t, layer, layertar.Options{})
			got := describe(t, path)
			if gnu {
				for name := range want {
					got[name], _, _ = strings.Cut(got[name], " user.")
				}
				for name, line := range want {
					line, _, _ = strings.Cut(line, " security.")
					line, _, _ = strings.Cut(line, " trusted.")
					line, _, _ = strings.Cut(line, " user.")
					if want := strings.Replace(line, "1000000007123456789", "1000000007000000000", 1); got[name] != want {
						t.Errorf("%s:\n got  %s\n want %s", name, got[name], want)
					}
				}
			} else {
				same(t, got, want)
			}
			if len(args) > 1 {
				if st := lstat(t, filepath.Join(path, "sparse")); st.Blocks*512 >= 1<<20 {
					t.Errorf("the sparse file takes %d bytes on disk", st.Blocks*512)
				}
			}
		})
	}
}

// TestPackAndTarAgree: what we pack, tar unpacks to the same tree, and so do we.
func TestPackAndTarAgree(t *testing.T) {
	dir := realTree(t)
	want := describe(t, dir)
	layer := pack(t, dir)
	if again := pack(t, dir); !bytes.Equal(layer, again) {
		t.Error("packed twice, it is not the same")
	}
	same(t, describe(t, apply(t, layer, layertar.Options{})), want)

	in := filepath.Join(t.TempDir(), "t.tar")
	must(t, os.WriteFile(in, layer, 0o600))
	out, _ := newDir(t)
	run(t, "tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", out, "-f", in)
	same(t, describe(t, out), want)
}

// pack packs a directory.
func pack(t testing.TB, upper string, lowers ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	var below []*os.File
	for _, l := range lowers {
		below = append(below, openDir(t, l))
	}
	if err := layertar.Pack(t.Context(), &b, openDir(t, upper), below, layertar.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestUmociMakesTheSame: an image of our layer, with deletions on top, unpacked by umoci; we unpack layer by layer.
func TestUmociMakesTheSame(t *testing.T) {
	dir := realTree(t)
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skipf("needs umoci: %v", err)
	}
	tmp := t.TempDir()
	image := filepath.Join(tmp, "image")
	run(t, "umoci", "init", "--layout", image)
	run(t, "umoci", "new", "--image", image+":x")
	in := filepath.Join(tmp, "layer.tar")
	must(t, os.WriteFile(in, pack(t, dir), 0o600))
	run(t, "umoci", "raw", "add-layer", "--image", image+":x", in)
	run(t, "umoci", "unpack", "--image", image+":x", filepath.Join(tmp, "bundle"))
	got := describe(t, apply(t, pack(t, dir), layertar.Options{}))
	for name, line := range got {
		got[name] = strings.Replace(line, ` user.empty=""`, "", 1) // umoci 0.4 loses an attribute without a value
	}
	same(t, got, describe(t, filepath.Join(tmp, "bundle/rootfs")))
}

// TestSparseHasHoles: a file much larger than the disk, which is all hole but for its end.
func TestSparseHasHoles(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644), os.Truncate(filepath.Join(dir, "f"), 3<<30))
	f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString("end")
	must(t, err, f.Close())
	settle(t, dir)
	out := filepath.Join(t.TempDir(), "t.tar")
	run(t, "tar", "-c", "--sparse", "-C", dir, "-f", out, "f")
	layer, err := os.ReadFile(out)
	must(t, err)
	path := filepath.Join(apply(t, layer, layertar.Options{}), "f")
	if st := lstat(t, path); st.Size != 3<<30+3 || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d, %d bytes on disk", st.Size, st.Blocks*512)
	}
	got, err := os.Open(path)
	must(t, err)
	defer got.Close()
	end := make([]byte, 5)
	if _, err := got.ReadAt(end, 3<<30-2); string(end) != "\x00\x00end" || err != nil {
		t.Errorf("ends with %q, %v", end, err)
	}
	_, d := newDir(t)
	if _, err := layertar.Apply(t.Context(), d, bytes.NewReader(layer), layertar.Options{MaxSize: 1 << 30}); err == nil {
		t.Error("a file larger than the limit is unpacked because it is a hole")
	}
}

// TestZerosBecomeHoles: a tar that says nothing of holes, as that of a commit, does not fill the disk with zeros.
func TestZerosBecomeHoles(t *testing.T) {
	dir := t.TempDir()
	want := make([]byte, 8<<20+100)
	copy(want[3<<20+7:], "island")
	copy(want[8<<20+95:], "ends")
	must(t, os.WriteFile(filepath.Join(dir, "f"), want, 0o644))
	layer := pack(t, dir)
	if len(layer) < len(want) {
		t.Fatalf("the tar has %d bytes: it has holes itself", len(layer))
	}
	path := filepath.Join(apply(t, layer, layertar.Options{}), "f")
	if st := lstat(t, path); st.Blocks*512 > 2<<20 {
		t.Errorf("%d bytes on disk", st.Blocks*512)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other data: %d bytes, %v", len(got), err)
	}
}
