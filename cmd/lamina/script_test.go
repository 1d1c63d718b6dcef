package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// Scripts run the real programs: testdata/NAME.txtar, each with a store of its own, and as each identity.
//
//	lamina ARG...          under the identity of the run
//	run ARG...             lamina run --network none: no tool to wait for
//	sh SCRIPT [ARG...]     a shell with the functions of testdata/lib.sh
//	status N CMD ARG...    one of the above, which must end with status N
//
// At the end all containers are removed, and no process of ours may be left.

// identity is who runs a script.
type identity struct {
	name  string
	argv  []string // before a program and its arguments
	uid   string   // who the files of the script belong to; empty for ourselves
	path  string   // of programs; empty for the usual
	needs func(t *testing.T)
}

// The identities: root of the machine, an ordinary user with a range of ids, and one with his own id only.
const (
	asRoot   = "root"
	asUser   = "user"
	asSingle = "single"
)

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func identities(t *testing.T, f *fixture) []identity {
	nobody := identity{name: asSingle, path: f.path("nomap"), needs: func(t *testing.T) { uniontest.NeedFuse(t) }}
	ranged := identity{name: asUser, path: systemPath, needs: func(t *testing.T) {
		uniontest.NeedFuse(t)
		if _, err := exec.LookPath("newuidmap"); err != nil {
			t.Skipf("needs newuidmap: %v", err)
		}
	}}
	if os.Geteuid() != 0 {
		return []identity{ranged, nobody}
	}
	list := []identity{{name: asRoot, path: systemPath, needs: func(t *testing.T) { uniontest.NeedFuse(t) }}}
	u, err := user.Lookup(uniontest.TestUser)
	if err != nil {
		t.Logf("as root only: %v", err)
		return list
	}
	argv := []string{"setpriv", "--reuid=" + u.Uid, "--regid=" + u.Gid, "--clear-groups", "--"}
	ranged.argv, ranged.uid = argv, u.Uid
	nobody.argv, nobody.uid = argv, u.Uid
	return append(list, ranged, nobody)
}

func TestScripts(t *testing.T) {
	f := needFixture(t)
	for _, id := range identities(t, f) {
		t.Run(id.name, func(t *testing.T) {
			id.needs(t)
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Dir:                 "testdata",
				RequireExplicitExec: true,
				Setup:               func(env *testscript.Env) error { return id.setup(env, f) },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"lamina": id.command("lamina"), "run": id.command("run"), "sh": id.command("sh"), "status": id.status,
					"delegated": id.delegated,
				},
				Condition: func(cond string) (bool, error) {
					switch cond {
					case asRoot, asUser, asSingle:
						return cond == id.name, nil
					case "long":
						return os.Getenv("LAMINA_LONG") != "", nil
					case "delegates": // root on cgroup v1: he can give a part of every hierarchy away
						return os.Geteuid() == 0 && len(hierarchiesV1()) > 0, nil
					}
					return false, fmt.Errorf("unknown condition %q", cond)
				},
			})
		})
	}
}

// setup makes a script's home: with the programs, the images, and a lamina that knows where the store is.
func (id identity) setup(env *testscript.Env, f *fixture) error {
	place := id.place(env.WorkDir)
	for _, v := range place.env {
		k, v, _ := strings.Cut(v, "=")
		env.Setenv(k, v)
	}
	env.Setenv("IMAGES", f.path("images.tar"))
	env.Setenv("WHO", id.name)
	env.Defer(func() { place.clean(env.T().Fatal) })
	return place.make(f)
}

// A place is the directory of a test: data, run and home are lamina's.
type place struct {
	id  identity
	dir string
	env []string
}

func (id identity) place(dir string) *place {
	return &place{id: id, dir: dir, env: []string{
		"HOME=" + dir + "/home", "XDG_DATA_HOME=" + dir + "/data", "XDG_RUNTIME_DIR=" + dir + "/run",
		"PATH=" + dir + "/bin:" + id.path, "LIB=" + dir + "/lib.sh", "LC_ALL=C.UTF-8", "TZ=UTC", "USER=" + id.name,
	}}
}

func (p *place) make(f *fixture) error {
	for _, d := range []string{"bin", "data", "run", "home"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	lib, err := os.ReadFile("testdata/lib.sh")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.dir, "lib.sh"), lib, 0o644); err != nil {
		return err
	}
	where := ""
	if p.id.name == asRoot {
		where = fmt.Sprintf("--root %s/data/lamina --runroot %s/run/lamina", p.dir, p.dir)
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", f.path("bin/lamina"), where)
	// Written by a child: a fork elsewhere in this process would keep our descriptor, and nobody could execute the file.
	write := exec.Command("sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", filepath.Join(p.dir, "bin/lamina"))
	write.Stdin = strings.NewReader(wrapper)
	if err := write.Run(); err != nil {
		return err
	}
	// The directories above are those of a test run by root.
	for d := p.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	if p.id.uid == "" {
		return nil
	}
	return exec.Command("chown", "-R", p.id.uid, p.dir).Run()
}

// argvOf is what a command of a script executes.
func (id identity) argvOf(dir, name string, args []string) []string {
	// What hangs ends, and does not take the rest with it.
	argv := append([]string{"timeout", "--foreground", "--signal=KILL", "300"}, id.argv...)
	switch name {
	case "lamina":
		argv = append(argv, dir+"/bin/lamina")
	case "run":
		argv = append(argv, dir+"/bin/lamina", "run", "--network", "none")
	case "sh":
		argv = append(argv, "bash", "-eEuo", "pipefail", "-c", ". \"$LIB\"\n"+args[0], "sh")
		args = args[1:]
	}
	return append(argv, args...)
}

func (id identity) command(name string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		argv := id.argvOf(ts.Getenv("WORK"), name, args)
		err := ts.Exec(argv[0], argv[1:]...)
		switch {
		case err != nil && !neg:
			ts.Fatalf("%s %q: %v", name, args, err)
		case err == nil && neg:
			ts.Fatalf("%s %q succeeds", name, args)
		}
	}
}

// delegated is sh in a cgroup of its own in every hierarchy, which belongs to the script's user.
func (id identity) delegated(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: delegated COMMANDS")
	}
	dirs, err := delegate(id.uid)
	ts.Defer(func() {
		for _, d := range dirs {
			if err := os.Remove(d); err != nil {
				ts.Logf("%v", err) // a later script has one of another name
			}
		}
	})
	ts.Check(err)
	argv := append([]string{"sh", "-c", `n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1/cgroup.procs" || exit; n=$((n - 1)); shift; done; exec "$@"`,
		"sh", strconv.Itoa(len(dirs))}, dirs...)
	argv = append(argv, id.argvOf(ts.Getenv("WORK"), "sh", args)...)
	ts.Check(ts.Exec(argv[0], argv[1:]...))
}

// hierarchiesV1 are the mount points of cgroup v1's controllers.
func hierarchiesV1() (dirs []string) {
	for _, c := range []string{"memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer"} {
		dir := "/sys/fs/cgroup/" + c
		if _, err := os.Stat(filepath.Join(dir, "tasks")); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// delegate makes cgroups and gives them to a user.
func delegate(uid string) (dirs []string, err error) {
	name := fmt.Sprintf("lamina-script-%d-%d", os.Getpid(), delegations.Add(1))
	n, err := strconv.Atoi(uid)
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchiesV1() {
		dir := filepath.Join(h, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return dirs, err
		}
		dirs = append(dirs, dir)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // without them no process may enter
			if b, err := os.ReadFile(filepath.Join(h, f)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, f), b, 0); err != nil {
					return dirs, err
				}
			}
		}
		if err := os.Chown(dir, n, -1); err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}

var delegations atomic.Int64

func (id identity) status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	argv := id.argvOf(ts.Getenv("WORK"), args[1], args[2:])
	err = ts.Exec(argv[0], argv[1:]...)
	var exit *exec.ExitError
	got := 0
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q ends with status %d, want %d", args[1:], got, want)
	}
}

// clean removes all containers, and fails where a process is left then, which it kills.
func (p *place) clean(fatal func(...any)) {
	argv := p.id.argvOf(p.dir, "sh", []string{`
		ids=$(lamina ps -aq --no-trunc) || exit
		[ -z "$ids" ] || lamina rm -f -v $ids >/dev/null
		lamina system prune -a -f --volumes >/dev/null`})
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = p.dir, append(p.env, "WORK="+p.dir)
	out, err := cmd.CombinedOutput()
	// A monitor, or the server of a union, may be about to end: nobody waits for those of what was --rm.
	for end := time.Now().Add(2 * time.Minute); len(p.processes()) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	var left []string
	for pid, argv := range p.processes() {
		_ = unix.Kill(pid, unix.SIGKILL)
		left = append(left, fmt.Sprintf("%d %.200s", pid, argv))
	}
	switch {
	case err != nil:
		fatal(fmt.Sprintf("cleaning up: %v: %s", err, out))
	case len(left) > 0:
		fatal("left behind: " + strings.Join(left, "\n"))
	}
}

// processes are those that were started in the place, which is in their environment, by pid.
func (p *place) processes() map[int]string {
	dir, err := filepath.EvalSymlinks(p.dir)
	if err != nil {
		return nil
	}
	found := map[int]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is valid
	for _, path := range procs {
		env, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\x00"+string(env), "\x00XDG_RUNTIME_DIR="+dir+"/run\x00") {
			continue
		}
		argv, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		pid, e := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && e == nil && len(argv) > 0 {
			found[pid] = strings.ReplaceAll(string(argv), "\x00", " ")
		}
	}
	return found
}
