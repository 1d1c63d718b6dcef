package sys_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// openDir returns a new directory and a descriptor for it.
func openDir(t testing.TB) (string, int) {
	t.Helper()
	dir := t.TempDir()
	fd, err := sys.Open(sys.At{Dirfd: unix.AT_FDCWD, Name: dir}, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return dir, fd
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// needUserXattr skips the test where the directory's filesystem has no user attributes.
func needUserXattr(t testing.TB, dirfd int) {
	t.Helper()
	err := sys.Setxattr(sys.Fd(dirfd), "user.probe", nil, 0)
	if err == unix.ENOTSUP {
		t.Skip("the filesystem has no user extended attributes")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.Removexattr(sys.Fd(dirfd), "user.probe"); err != nil {
		t.Fatal(err)
	}
}

func TestXattrByEveryKindOfAt(t *testing.T) {
	dir, dirfd := openDir(t)
	needUserXattr(t, dirfd)
	writeFile(t, filepath.Join(dir, "f"), "data")
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	file := sys.At{Dirfd: dirfd, Name: "f"}
	open := func(flags int) sys.At {
		fd, err := sys.Open(file, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sys.Close(fd) })
		return sys.Fd(fd)
	}
	for _, tt := range []struct {
		name string
		at   sys.At
	}{
		{"name", file},
		{"read-only descriptor", open(unix.O_RDONLY)},
		{"writable descriptor", open(unix.O_RDWR)},
		{"O_PATH descriptor", open(unix.O_PATH)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			value := bytes.Repeat([]byte("v"), 1000) // more than XattrValue's first try
			if err := sys.Setxattr(tt.at, "user.a", value, unix.XATTR_CREATE); err != nil {
				t.Fatalf("set: %v", err)
			}
			if err := sys.Setxattr(tt.at, "user.a", value, unix.XATTR_CREATE); err != unix.EEXIST {
				t.Errorf("create again: %v, want EEXIST", err)
			}
			if err := sys.Setxattr(tt.at, "user.empty", nil, 0); err != nil {
				t.Errorf("set empty: %v", err)
			}
			names, err := sys.XattrNames(tt.at)
			if err != nil || !slices.Contains(names, "user.a") || !slices.Contains(names, "user.empty") {
				t.Errorf("names %q, %v", names, err)
			}
			if v, err := sys.XattrValue(tt.at, "user.a"); err != nil || !bytes.Equal(v, value) {
				t.Errorf("value of %d bytes, %v", len(v), err)
			}
			if v, err := sys.XattrValue(tt.at, "user.empty"); err != nil || len(v) != 0 {
				t.Errorf("empty value %q, %v", v, err)
			}
			if n, err := sys.Getxattr(tt.at, "user.a", nil); n != 1000 || err != nil {
				t.Errorf("size %d, %v", n, err)
			}
			if _, err := sys.Getxattr(tt.at, "user.a", make([]byte, 10)); err != unix.ERANGE {
				t.Errorf("too small: %v, want ERANGE", err)
			}
			if _, err := sys.Listxattr(tt.at, make([]byte, 1)); err != unix.ERANGE {
				t.Errorf("list too small: %v, want ERANGE", err)
			}
			for _, name := range []string{"user.a", "user.empty"} {
				if err := sys.Removexattr(tt.at, name); err != nil {
					t.Errorf("remove %s: %v", name, err)
				}
			}
			if _, err := sys.XattrValue(tt.at, "user.a"); err != unix.ENODATA {
				t.Errorf("after removal: %v, want ENODATA", err)
			}
			if err := sys.Removexattr(tt.at, "user.a"); err != unix.ENODATA {
				t.Errorf("remove again: %v, want ENODATA", err)
			}
		})
	}
}

func TestXattrOfLinkIsNotItsTargets(t *testing.T) {
	dir, dirfd := openDir(t)
	needUserXattr(t, dirfd)
	writeFile(t, filepath.Join(dir, "f"), "")
	if err := os.Symlink("f", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := sys.Setxattr(sys.At{Dirfd: dirfd, Name: "f"}, "user.a", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	link := sys.At{Dirfd: dirfd, Name: "link"}
	fd, err := sys.Open(link, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	for _, at := range []sys.At{link, sys.Fd(fd)} {
		if names, err := sys.XattrNames(at); err != nil || slices.Contains(names, "user.a") {
			t.Errorf("names of the link: %q, %v", names, err)
		}
		if err := sys.Setxattr(at, "user.b", nil, 0); err != unix.EPERM && err != unix.ENOTSUP {
			t.Errorf("set on a link: %v, want EPERM", err)
		}
	}
}

func TestManyXattrNames(t *testing.T) {
	dir, dirfd := openDir(t)
	needUserXattr(t, dirfd)
	writeFile(t, filepath.Join(dir, "f"), "")
	file := sys.At{Dirfd: dirfd, Name: "f"}
	var want []string
	for i := range 20 { // more than XattrNames' first buffer holds, and less than a 4 KiB block of ext4
		name := "user." + string(bytes.Repeat([]byte{byte('a' + i)}, 80))
		if err := sys.Setxattr(file, name, nil, 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	names, err := sys.XattrNames(file)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if names = slices.DeleteFunc(names, func(s string) bool { return s[0] != 'u' }); !slices.Equal(names, want) {
		t.Errorf("got %d names %q", len(names), names)
	}
}

func TestSplitXattrNames(t *testing.T) {
	for _, tt := range []struct {
		list string
		want []string
	}{
		{"", nil},
		{"user.a\x00", []string{"user.a"}},
		{"user.a\x00user.b\x00", []string{"user.a", "user.b"}},
		{"user.a\x00cut", []string{"user.a"}},
		{"\x00", []string{""}},
	} {
		if got := sys.SplitXattrNames([]byte(tt.list)); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.list, got, tt.want)
		}
	}
}
