package container

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// TestRootless runs the other tests as an ordinary user, with a range of IDs and with one.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	const who = "lamina-test"
	u, err := user.Lookup(who)
	if err != nil {
		t.Skipf("needs a user %s with a range of IDs in /etc/subuid", who)
	}
	runuser, err := exec.LookPath("runuser")
	if err != nil {
		t.Skip("needs runuser")
	}
	fs, err := laminafsPath()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := commandPath()
	if err != nil {
		t.Fatal(err)
	}
	faulty, err := faultyPath()
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]string{"range": "X=", "single": envSingle + "=1"} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "lamina-rootless") // not below a directory that is root's only
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			tmp := filepath.Join(dir, "tmp")
			if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o1777),
				copyFile(fs, dir+"/laminafs"), copyFile(exe, dir+"/container.test"), copyFile(faulty, dir+"/faulty.test")); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(runuser, "-u", who, "--", "env", env, "HOME="+u.HomeDir, "TMPDIR="+tmp,
				"LAMINA_TEST_LAMINAFS="+dir+"/laminafs",
				"LAMINA_TEST_FAULTY="+dir+"/faulty.test", dir+"/container.test", "-test.v", "-test.run", flagRun())
			cmd.Dir = "/"
			out, err := cmd.CombinedOutput()
			for _, line := range strings.Split(string(out), "\n") {
				if s := strings.TrimSpace(line); strings.HasPrefix(s, "--- SKIP") || err != nil && !strings.HasPrefix(s, "===") && !strings.HasPrefix(s, "--- PASS") {
					t.Log(line)
				}
			}
			if err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// flagRun are the tests of the user: those that LAMINA_TEST_RUN names, or all.
func flagRun() string {
	if s := os.Getenv("LAMINA_TEST_RUN"); s != "" {
		return s
	}
	return "."
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
