package container

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUserSpelling: what a user or group may be spelled as, down to nothing at all.
func TestUserSpelling(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/etc", 0o755), os.WriteFile(dir+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\n"), 0o644),
		os.WriteFile(dir+"/etc/group", []byte("root:x:0:\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, t.TempDir()} { // with the files, and without
		root, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(root)
		for _, who := range []string{"", ":", "0", "0:", ":0", "0:0"} {
			if u, _, err := resolveUser(root, who, words("0"), nil, nil); err != nil || u.UID != 0 || u.GID != 0 {
				t.Errorf("user %q: %+v, %v", who, u, err)
			}
		}
		for _, who := range []string{" ", ":nobody", "0:nobody", "-1", "0:-1", "4294967296", "::", "0:0:0"} {
			if u, _, err := resolveUser(root, who, nil, nil, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("user %q: %+v, %v", who, u, err)
			}
		}
		const none = `--group-add "": no matching entries in group file`
		for _, groups := range [][]string{{""}, {"0", ""}} {
			if u, _, err := resolveUser(root, "", groups, nil, nil); !errors.Is(err, ErrInvalid) || err.Error() != none {
				t.Errorf("groups %q: %+v, %v", groups, u, err)
			}
		}
		for _, group := range []string{" ", ":", "nobody", "-1", "4294967296"} {
			if u, _, err := resolveUser(root, "", []string{group}, nil, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("group %q: %+v, %v", group, u, err)
			}
		}
	}
}
