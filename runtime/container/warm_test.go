package container

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPrograms(t *testing.T) {
	env := []string{"PATH=/none", "A=b", "PATH=/bin:/usr/bin::relative"}
	for _, c := range []struct {
		args []string
		env  []string
		want []string
	}{
		{words("true"), env, words("/bin/true", "/usr/bin/true", "/work/true", "/work/relative/true")},
		{words("/bin/true"), env, words("/bin/true")},
		{words("./true"), env, words("/work/true")},
		{words("sub/true"), env, words("/work/sub/true")},
		{words("true"), nil, words("/work/true")},
		{[]string{""}, env, nil},
		{nil, env, nil},
	} {
		if got := programs(&specs.Process{Args: c.args, Env: c.env, Cwd: "/work"}); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}

// TestReadAhead: what is no regular file is left alone, and nothing leads out.
func TestReadAhead(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	for _, file := range []string{outside, dir + "/file"} {
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "/file", "out": outside} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for name, want := range map[string]error{"/file": nil, "/link": nil, "/out": unix.ENOENT, "/fifo": unix.EACCES, "/": unix.EACCES, "/none": unix.ENOENT} {
		if err := readAhead(root, name); err != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
