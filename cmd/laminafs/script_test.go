package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// Scripts run the real binary: testdata/NAME.txtar. "under PROGRAM..." in one runs a program under the identity of the
// run, and $LIB has functions for shells. At the end no server may be left.
//
// Each program has a mount namespace of its own: a copy of the machine's, made by anybody while a mount is there, would
// keep that mount, and its server, alive. Root's programs have a pid namespace besides, so that process 1 is in the same
// mount namespace as they are, as it is on a machine.

// identity is who runs a script.
type identity struct {
	name  uniontest.Identity
	needs func(t *testing.T)
	// argv comes before a program and its arguments.
	argv []string
	uid  string // who the files of the script belong to; empty for ourselves
}

func identities(t *testing.T) []identity {
	if os.Geteuid() != 0 {
		return []identity{{name: uniontest.User, needs: needFusermount}}
	}
	list := []identity{{name: uniontest.Root, needs: func(t *testing.T) { uniontest.NeedFuse(t) },
		argv: []string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"}}}
	u, err := user.Lookup(uniontest.TestUser)
	if err != nil {
		t.Logf("as root only: %v", err)
		return list
	}
	as := []string{"setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups", "--"}
	return append(list,
		identity{name: uniontest.User, uid: u.Uid, argv: append([]string{"unshare", "--mount", "--"}, as...),
			needs: needFusermount},
		identity{name: uniontest.UserNS, uid: u.Uid, needs: func(t *testing.T) {
			uniontest.NeedFuse(t)
			if _, err := exec.LookPath("newuidmap"); err != nil {
				t.Skipf("needs newuidmap: %v", err)
			}
		}, argv: append(as, "unshare", "--user", "--map-auto", "--map-root-user", "--mount", "--")})
}

func needFusermount(t *testing.T) {
	uniontest.NeedFuse(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skipf("needs fusermount3: %v", err)
	}
}

func TestScripts(t *testing.T) {
	lib, err := filepath.Abs("testdata/lib.sh")
	if err != nil {
		t.Fatal(err)
	}
	bin := uniontest.Binary(t)
	for _, id := range identities(t) {
		t.Run(string(id.name), func(t *testing.T) {
			id.needs(t)
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata",
				RequireExplicitExec: true,
				Setup:               func(env *testscript.Env) error { return id.setup(env, bin, lib) },
				Cmds:                map[string]func(*testscript.TestScript, bool, []string){"under": id.under},
				Condition: func(cond string) (bool, error) {
					switch uniontest.Identity(cond) {
					case uniontest.Root, uniontest.User, uniontest.UserNS:
						return uniontest.Identity(cond) == id.name, nil
					}
					return false, fmt.Errorf("unknown condition %q", cond)
				},
			})
		})
	}
}

// setup makes the directories that every script has: l1 and l2 with a file each, u, w and m, and run for what is told
// of mounts.
func (id identity) setup(env *testscript.Env, bin, lib string) error {
	env.Setenv("LIB", filepath.Join(env.WorkDir, "lib.sh"))
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
	env.Setenv("PATH", filepath.Dir(bin)+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	env.Defer(func() { checkLeft(env) })
	text, err := os.ReadFile(lib)
	if err != nil {
		return err
	}
	run, err := os.ReadFile(filepath.Join(filepath.Dir(lib), "run.sh"))
	if err != nil {
		return err
	}
	files := map[string]string{"run.sh": string(run), "lib.sh": string(text), "l1/one": "1\n", "l2/one": "hidden\n", "l2/two": "2\n"}
	for _, d := range []string{"l1", "l2", "u", "w", "m", "run"} {
		if err := os.Mkdir(filepath.Join(env.WorkDir, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// The directories above are those of a test run by root.
	for d := env.WorkDir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	if id.uid == "" {
		return nil
	}
	return exec.Command("chown", "-R", id.uid, env.WorkDir).Run()
}

// under runs a program under the identity.
func (id identity) under(ts *testscript.TestScript, neg bool, args []string) {
	argv := append(append([]string{}, id.argv...), "sh", ts.Getenv("WORK")+"/run.sh")
	argv = append(argv, args...)
	err := ts.Exec(argv[0], argv[1:]...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("%q: %v", args, err)
	case err == nil && neg:
		ts.Fatalf("%q succeeds", args)
	}
}

// checkLeft fails the script when it leaves a server behind, and kills it: its mount goes with its namespace.
func checkLeft(env *testscript.Env) {
	dir, err := filepath.EvalSymlinks(env.WorkDir)
	if err != nil {
		env.T().Fatal(err)
	}
	for pid, cmd := range serversOf(dir) {
		_ = unix.Kill(pid, unix.SIGKILL)
		defer env.T().Fatal(fmt.Sprintf("left behind: %d %.200s", pid, cmd))
	}
}

// serversOf are the processes of laminafs that were started by the script in dir, which is in their environment, by
// pid.
func serversOf(dir string) map[int]string {
	found := map[int]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is valid
	for _, path := range procs {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\x00"+string(env), "\x00XDG_RUNTIME_DIR="+dir+"/run\x00") {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil {
			continue
		}
		argv := strings.Split(string(cmdline), "\x00")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && filepath.Base(argv[0]) == "laminafs" {
			found[pid] = strings.Join(argv, " ")
		}
	}
	return found
}
