package whiteout_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

func TestOwnedStoredShown(t *testing.T) {
	for _, tt := range []struct {
		attr   string
		owned  bool
		stored string // "" where a program may not set it
	}{
		{"user.a", false, "user.a"},
		{"user.overlayx", false, "user.overlayx"},
		{"user.overlay.opaque", true, "user.overlay.overlay.opaque"},
		{"trusted.overlay.redirect", true, "trusted.overlay.overlay.redirect"},
		{"user.overlay.overlay.opaque", false, "user.overlay.overlay.overlay.opaque"},
		{"user.fuseoverlayfs.origin", true, ""},
		{"security.fuseoverlayfs.override_stat", true, ""},
		{"user.overlay.lamina.origin", true, "user.overlay.overlay.lamina.origin"},
		{"trusted.overlay.lamina.origin", true, "trusted.overlay.overlay.lamina.origin"},
		{"user.containers.override_stat", true, ""},
		{"user.containers.other", false, "user.containers.other"},
		{"security.capability", false, "security.capability"},
		{"system.posix_acl_access", false, "system.posix_acl_access"},
	} {
		if got := whiteout.Owned(tt.attr); got != tt.owned {
			t.Errorf("%s: owned %v", tt.attr, got)
		}
		stored, err := whiteout.Stored(tt.attr)
		if stored != tt.stored || (err == nil) != (tt.stored != "") {
			t.Errorf("%s: stored as %q, %v; want %q", tt.attr, stored, err, tt.stored)
		}
		if err != nil {
			if err != unix.EPERM {
				t.Errorf("%s: %v, want EPERM", tt.attr, err)
			}
			continue
		}
		if shown, ok := whiteout.Shown(stored); shown != tt.attr || !ok {
			t.Errorf("%s: stored as %s, shown as %q, %v", tt.attr, stored, shown, ok)
		}
	}
	for _, stored := range []string{"user.overlay.opaque", "trusted.overlay.metacopy", "user.overlay.lamina.origin"} {
		if shown, ok := whiteout.Shown(stored); ok {
			t.Errorf("%s is shown as %s", stored, shown)
		}
	}
}

// set sets attributes, and skips the test where the filesystem or the user cannot.
func set(t *testing.T, a sys.At, attrs map[string]string) {
	t.Helper()
	for name, value := range attrs {
		if err := sys.Setxattr(a, name, []byte(value), 0); err == unix.ENOTSUP || err == unix.EPERM {
			t.Skipf("cannot set %s here: %v", name, err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func readMarks(t *testing.T, a sys.At) (whiteout.Marks, error) {
	t.Helper()
	names, err := sys.XattrNames(a)
	if err != nil {
		t.Fatal(err)
	}
	return whiteout.ReadMarks(a, names)
}

func TestReadMarks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		attrs map[string]string
		want  whiteout.Marks
		err   error
	}{
		{"none", map[string]string{"user.a": "y"}, whiteout.Marks{}, nil},
		{"userxattr", map[string]string{"user.overlay.opaque": "y"}, whiteout.Marks{Opaque: true}, nil},
		{"kernel", map[string]string{"trusted.overlay.opaque": "y"}, whiteout.Marks{Opaque: true}, nil},
		{"fuse-overlayfs", map[string]string{"user.fuseoverlayfs.opaque": "y"}, whiteout.Marks{Opaque: true}, nil},
		{"whiteouts by xattr", map[string]string{"user.overlay.opaque": "x"}, whiteout.Marks{Whiteouts: true}, nil},
		{"no", map[string]string{"user.overlay.opaque": "n"}, whiteout.Marks{}, nil},
		{"inner overlay", map[string]string{"user.overlay.overlay.opaque": "y"}, whiteout.Marks{}, nil},
		{"moved", map[string]string{"user.overlay.redirect": "/a/b", "user.overlay.opaque": "y"},
			whiteout.Marks{Opaque: true, Redirect: "/a/b"}, nil},
		{"moved, kernel", map[string]string{"trusted.overlay.redirect": "b"}, whiteout.Marks{Redirect: "b"}, nil},
		{"moved outside", map[string]string{"user.overlay.redirect": "/a/../../b"}, whiteout.Marks{}, unix.EIO},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, fd := openDir(t)
			set(t, sys.Fd(fd), tt.attrs)
			if m, err := readMarks(t, sys.Fd(fd)); m != tt.want || !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("%+v, %v; want %+v, %v", m, err, tt.want, tt.err)
			}
		})
	}
}

func TestOpaque(t *testing.T) {
	for _, f := range []whiteout.Format{whiteout.WH, whiteout.Overlay} {
		t.Run(f.String(), func(t *testing.T) {
			dir, fd := openDir(t)
			set(t, sys.Fd(fd), map[string]string{"user.probe": ""})
			for range 2 { // idempotent
				if err := whiteout.SetOpaque(fd, f); err != nil {
					t.Fatal(err)
				}
			}
			m, err := readMarks(t, sys.Fd(fd))
			if file := whiteout.HasOpaqueFile(fd); err != nil || file != (f == whiteout.WH) || m.Opaque != (f == whiteout.Overlay) {
				t.Errorf("opaque file %v, marks %+v, %v", file, m, err)
			}

			// Also what other tools made is taken back.
			if err := os.WriteFile(filepath.Join(dir, ".wh..opq"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			set(t, sys.Fd(fd), map[string]string{"user.fuseoverlayfs.opaque": "y"})
			for range 2 {
				if err := whiteout.ClearOpaque(fd); err != nil {
					t.Fatal(err)
				}
			}
			if m, err := readMarks(t, sys.Fd(fd)); m.Opaque || err != nil || whiteout.HasOpaqueFile(fd) {
				t.Errorf("still opaque: %+v, %v", m, err)
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	_, fd := openDir(t)
	set(t, sys.Fd(fd), map[string]string{"user.probe": ""})
	if err := whiteout.SetRedirect(sys.Fd(fd), "/a/b"); err != nil {
		t.Fatal(err)
	}
	if m, err := readMarks(t, sys.Fd(fd)); m.Redirect != "/a/b" || err != nil {
		t.Errorf("%+v, %v", m, err)
	}
	for range 2 {
		if err := whiteout.ClearRedirect(sys.Fd(fd)); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := readMarks(t, sys.Fd(fd)); m.Redirect != "" || err != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

var redirects = []struct {
	value string
	ok    bool
}{
	{"/a", true},
	{"/a/b/c", true},
	{"name", true},
	{"...", true},
	{"/" + strings.Repeat("d/", 2046) + "d", true},
	{"/a/" + strings.Repeat("n", 255), true},
	{"/a/" + strings.Repeat("n", 256) + "/b", false},
	{strings.Repeat("n", 256), false},
	{"", false},
	{"/", false},
	{"a/b", false},
	{"/a/", false},
	{"//a", false},
	{"/a//b", false},
	{".", false},
	{"..", false},
	{"/..", false},
	{"/a/../b", false},
	{"/a/./b", false},
	{"a\x00b", false},
	{"/" + strings.Repeat("d/", 2047) + "dd", false},
}

func TestParseRedirect(t *testing.T) {
	for _, tt := range redirects {
		got, err := whiteout.ParseRedirect(tt.value)
		if tt.ok && (got != tt.value || err != nil) || !tt.ok && !errors.Is(err, unix.EIO) {
			t.Errorf("%.40q: %.40q, %v", tt.value, got, err)
		}
	}
}

// FuzzParseRedirect: what is accepted cannot lead out of a layer, however it is walked.
func FuzzParseRedirect(f *testing.F) {
	for _, tt := range redirects {
		f.Add(tt.value)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, err := whiteout.ParseRedirect(v)
		if err != nil {
			if !errors.Is(err, unix.EIO) || got != "" {
				t.Errorf("%q: %q, %v", v, got, err)
			}
			return
		}
		if got != v || filepath.Clean(v) != v || strings.Contains(v, "\x00") || len(v) > unix.PathMax {
			t.Fatalf("%q is accepted as %q", v, got)
		}
		for i, part := range strings.Split(v, "/") {
			if i == 0 && part == "" {
				continue // absolute
			}
			if !sys.ValidName(part) {
				t.Errorf("%q has the component %q", v, part)
			}
		}
		if !strings.HasPrefix(v, "/") && strings.Contains(v, "/") {
			t.Errorf("%q is neither a path from the root nor a name", v)
		}
	})
}

func TestWhiteoutFileAndMetacopy(t *testing.T) {
	dir, fd := openDir(t)
	for _, name := range []string{"gone", "there"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set(t, sys.At{Dirfd: fd, Name: "gone"}, map[string]string{"user.overlay.whiteout": ""})
	set(t, sys.At{Dirfd: fd, Name: "there"}, map[string]string{"user.overlay.overlay.whiteout": ""})
	for name, want := range map[string]bool{"gone": true, "there": false} {
		if got := whiteout.IsWhiteoutFile(sys.At{Dirfd: fd, Name: name}); got != want {
			t.Errorf("%s: whiteout %v", name, got)
		}
	}
	for name, want := range map[string]bool{
		"user.overlay.metacopy": true, "trusted.overlay.metacopy": true, "user.overlay.overlay.metacopy": false, "user.a": false,
	} {
		if got := whiteout.IsMetacopy([]string{"user.x", name}); got != want {
			t.Errorf("%s: metacopy %v", name, got)
		}
	}
}

func TestReadMetacopy(t *testing.T) {
	dir, fd := openDir(t)
	const meta, redirect = "trusted.overlay.metacopy", "trusted.overlay.redirect"
	for _, tt := range []struct {
		name     string
		xattrs   map[string]string
		redirect string
		meta     bool
		err      error
	}{
		{"none", map[string]string{"user.a": "1"}, "", false, nil},
		{"by_name", map[string]string{meta: ""}, "", true, nil},
		{"by_path", map[string]string{meta: "", redirect: "/a/b"}, "/a/b", true, nil},
		{"beside", map[string]string{meta: "", redirect: "b"}, "b", true, nil},
		{"out", map[string]string{meta: "", redirect: "/../b"}, "", true, whiteout.ErrBadRedirect},
		{"redirect_only", map[string]string{redirect: "/a/b"}, "", false, nil},
		{"by_a_user", map[string]string{"user.overlay.metacopy": "", "user.overlay.redirect": "/a"}, "", false, nil},
	} {
		if err := os.WriteFile(filepath.Join(dir, tt.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := sys.At{Dirfd: fd, Name: tt.name}
		set(t, at, tt.xattrs)
		names, err := sys.XattrNames(at)
		if err != nil {
			t.Fatal(err)
		}
		if got, isMeta, err := whiteout.ReadMetacopy(at, names); got != tt.redirect || isMeta != tt.meta || !errors.Is(err, tt.err) {
			t.Errorf("%s: %q, %v, %v; want %q, %v, %v", tt.name, got, isMeta, err, tt.redirect, tt.meta, tt.err)
		}
	}
}

func TestOrigin(t *testing.T) {
	dir, fd := openDir(t)
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := sys.At{Dirfd: fd, Name: "f"}
	set(t, a, map[string]string{"user.probe": ""})
	st, err := sys.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	read := func(ino uint64) (whiteout.Origin, bool) {
		names, err := sys.XattrNames(a)
		if err != nil {
			t.Fatal(err)
		}
		return whiteout.ReadOrigin(a, ino, names)
	}
	want := whiteout.Origin{Device: 3, Ino: math.MaxUint64, Bearer: st.Ino}
	if err := whiteout.SetOrigin(a, want); err != nil {
		t.Fatal(err)
	}
	if o, ok := read(st.Ino); o != want || !ok {
		t.Errorf("%+v, %v; want %+v", o, ok, want)
	}
	if o, ok := read(st.Ino + 1); ok {
		t.Errorf("a copy of the file takes its identity along: %+v", o)
	}
	set(t, a, map[string]string{originAttr(t, a): "damaged"})
	if o, ok := read(st.Ino); ok {
		t.Errorf("a damaged record is %+v", o)
	}
}

var origins = []struct {
	value string
	ok    bool
}{
	{"0:1:2", true},
	{"65535:18446744073709551615:18446744073709551615", true},
	{"65536:1:2", false},
	{"0:18446744073709551616:2", false},
	{"-1:1:2", false},
	{"+1:1:2", false},
	{"0:1", false},
	{"0:1:2:3", false},
	{"0:1:", false},
	{"0:0x1:2", false},
	{" 0:1:2", false},
	{"", false},
}

func TestParseOrigin(t *testing.T) {
	for _, tt := range origins {
		o, err := whiteout.ParseOrigin(tt.value)
		if (err == nil) != tt.ok || err == nil && o.String() != tt.value || err != nil && !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: %+v, %v", tt.value, o, err)
		}
	}
}

// FuzzParseOrigin: what is accepted is written back the same, up to leading zeros.
func FuzzParseOrigin(f *testing.F) {
	for _, tt := range origins {
		f.Add(tt.value)
	}
	f.Fuzz(func(t *testing.T, v string) {
		o, err := whiteout.ParseOrigin(v)
		if err != nil {
			if !errors.Is(err, unix.EINVAL) {
				t.Errorf("%q: %v", v, err)
			}
			return
		}
		if o.Device < 0 || o.Device > math.MaxUint16 {
			t.Errorf("%q: device %d", v, o.Device)
		}
		if again, err := whiteout.ParseOrigin(o.String()); again != o || err != nil {
			t.Errorf("%q is %+v, and written back %+v, %v", v, o, again, err)
		}
	})
}

// originAttr is the attribute in which SetOrigin left its record: it depends on our rights.
func originAttr(t *testing.T, a sys.At) string {
	t.Helper()
	names, err := sys.XattrNames(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".overlay.lamina.origin") {
			return name
		}
	}
	t.Fatalf("no record among %q", names)
	return ""
}
