package whiteout_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

func TestParseFormat(t *testing.T) {
	for _, f := range []whiteout.Format{whiteout.WH, whiteout.Overlay} {
		if got, err := whiteout.ParseFormat(f.String()); got != f || err != nil {
			t.Errorf("%v: %v, %v", f, got, err)
		}
	}
	for _, s := range []string{"", "WH", "wh ", "aufs"} {
		if _, err := whiteout.ParseFormat(s); err == nil {
			t.Errorf("%q is a format", s)
		}
	}
}

var classes = []struct {
	name   string
	kind   whiteout.Kind
	target string
}{
	{"a", whiteout.Plain, ""},
	{".wh", whiteout.Plain, ""},
	{".whx", whiteout.Plain, ""},
	{"x.wh.y", whiteout.Plain, ""},
	{".WH.a", whiteout.Plain, ""},
	{".wh.a", whiteout.Deleted, "a"},
	{".wh. ", whiteout.Deleted, " "},
	{".wh.\xff\n", whiteout.Deleted, "\xff\n"},
	{".wh..hidden", whiteout.Deleted, ".hidden"},
	{".wh..wh", whiteout.Deleted, ".wh"},
	{".wh....", whiteout.Deleted, "..."},
	{".wh..wh..opq", whiteout.Opaque, ""},
	{".wh..opq", whiteout.Opaque, ""},
	{".wh..wh..opqx", whiteout.Internal, ""},
	{".wh..wh.plnk", whiteout.Internal, ""},
	{".wh..wh.aufs", whiteout.Internal, ""},
	{".wh..wh.", whiteout.Internal, ""},
	{".wh.", whiteout.Internal, ""},
	{".wh..", whiteout.Internal, ""},
	{".wh...", whiteout.Internal, ""},
}

func TestClassify(t *testing.T) {
	for _, tt := range classes {
		if kind, target := whiteout.Classify(tt.name); kind != tt.kind || target != tt.target {
			t.Errorf("%q: %v of %q, want %v of %q", tt.name, kind, target, tt.kind, tt.target)
		}
	}
}

// FuzzClassify: every name that a layer may hold is one thing, and nothing that a mark can do reaches outside the
// directory that it is in.
func FuzzClassify(f *testing.F) {
	for _, tt := range classes {
		f.Add(tt.name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		kind, target := whiteout.Classify(name)
		if (kind == whiteout.Plain) == whiteout.Reserved(name) {
			t.Errorf("%q is of kind %v and reserved %v", name, kind, whiteout.Reserved(name))
		}
		if (kind == whiteout.Deleted) != (target != "") {
			t.Errorf("%q is of kind %v and deletes %q", name, kind, target)
		}
		if kind == whiteout.Deleted {
			if sys.ValidName(name) && !sys.ValidName(target) {
				t.Errorf("%q deletes %q, which is no name", name, target)
			}
			if back, err := whiteout.Name(target); len(name) <= 255 && (back != name || err != nil) {
				t.Errorf("%q deletes %q, whose whiteout is %q, %v", name, target, back, err)
			}
		}
		// A name that the union lets a program create can be deleted, and that deletes it and nothing else.
		if kind == whiteout.Plain && sys.ValidName(name) && len(name) <= whiteout.MaxName {
			wh, err := whiteout.Name(name)
			kind, target := whiteout.Classify(wh)
			if name == ".opq" {
				if err != unix.EPERM {
					t.Errorf("the whiteout of .opq is %q, %v: an opaque mark", wh, err)
				}
			} else if err != nil || kind != whiteout.Deleted || target != name {
				t.Errorf("the whiteout of %q is %q, %v: %v of %q", name, wh, err, kind, target)
			}
		}
	})
}

// TestOpaqueMarkIsNoWhiteout: ".wh..opq" says that its directory is opaque, not that ".opq" is gone.
func TestOpaqueMarkIsNoWhiteout(t *testing.T) {
	_, fd := openDir(t)
	if err := whiteout.MakeFile(fd, ".opq"); !errors.Is(err, unix.EPERM) || whiteout.HasOpaqueFile(fd) {
		t.Errorf("deleting .opq: %v, opaque %v", err, whiteout.HasOpaqueFile(fd))
	}
	if err := whiteout.SetOpaque(fd, whiteout.WH); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".opq", ".wh..opq"} {
		if whiteout.HasFile(fd, name) {
			t.Errorf("an opaque mark is seen as the whiteout of %s", name)
		}
		if err := whiteout.RemoveFile(fd, name); err != nil || !whiteout.HasOpaqueFile(fd) {
			t.Errorf("removing the whiteout of %s: %v, opaque %v", name, err, whiteout.HasOpaqueFile(fd))
		}
	}
}

func TestNameTooLong(t *testing.T) {
	if wh, err := whiteout.Name(strings.Repeat("n", whiteout.MaxName)); len(wh) != 255 || err != nil {
		t.Errorf("the longest name: %d bytes, %v", len(wh), err)
	}
	if _, err := whiteout.Name(strings.Repeat("n", whiteout.MaxName+1)); err != unix.ENAMETOOLONG {
		t.Errorf("one more: %v, want ENAMETOOLONG", err)
	}
}

func TestIsDevice(t *testing.T) {
	for _, tt := range []struct {
		mode uint32
		rdev uint64
		want bool
	}{
		{unix.S_IFCHR, 0, true},
		{unix.S_IFCHR | 0o666, 0, true},
		{unix.S_IFCHR, unix.Mkdev(1, 3), false},
		{unix.S_IFBLK, 0, false},
		{unix.S_IFREG, 0, false},
		{unix.S_IFIFO, 0, false},
	} {
		if got := whiteout.IsDevice(tt.mode, tt.rdev); got != tt.want {
			t.Errorf("mode %o device %d: %v", tt.mode, tt.rdev, got)
		}
	}
}

// openDir returns a new directory and a descriptor for it.
func openDir(t *testing.T) (string, int) {
	t.Helper()
	dir := t.TempDir()
	fd, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: dir}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return dir, fd
}

func TestFiles(t *testing.T) {
	dir, fd := openDir(t)
	for range 2 { // idempotent
		if err := whiteout.MakeFile(fd, "gone"); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Lstat(filepath.Join(dir, ".wh.gone"))
	if err != nil || fi.Mode() != 0o644 || fi.Size() != 0 {
		t.Errorf("the whiteout is %v, %v: want an empty file of mode 0644", fi, err)
	}
	if !whiteout.HasFile(fd, "gone") || whiteout.HasFile(fd, "other") {
		t.Error("HasFile does not see what is there")
	}
	for range 2 {
		if err := whiteout.RemoveFile(fd, "gone"); err != nil {
			t.Fatal(err)
		}
	}
	if whiteout.HasFile(fd, "gone") {
		t.Error("the whiteout is still there")
	}

	long := strings.Repeat("n", whiteout.MaxName+1)
	if err := whiteout.MakeFile(fd, long); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("whiteout of a long name: %v, want ENAMETOOLONG", err)
	}
	if err := whiteout.RemoveFile(fd, long); err != nil || whiteout.HasFile(fd, long) {
		t.Errorf("a name that has no whiteout: %v", err)
	}
}

func TestDevice(t *testing.T) {
	_, fd := openDir(t)
	a := sys.At{Dirfd: fd, Name: "gone"}
	if err := whiteout.MakeDevice(a); err == unix.EPERM {
		t.Skip("the kernel lets nobody without privilege make device 0:0")
	} else if err != nil {
		t.Fatal(err)
	}
	if st, err := sys.Stat(a); err != nil || !whiteout.IsDevice(st.Mode, st.Rdev) {
		t.Errorf("mode %o device %d, %v: no whiteout", st.Mode, st.Rdev, err)
	}
}
