package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// insideEnv is set for the tests that run once more as somebody else.
const insideEnv = "LAMINA_CGROUP_INSIDE"

// effects are the tests that run once more.
const effects = "^Test(MemoryLimit|NoOOM|PidsLimit|CPUQuota|Update|Freezer|Remove|CPUSet|Load|AfterThe|Refused)"

// controllersForUser are what root gives to a user in these tests.
var controllersForUser = []string{"memory", "cpu", "cpuacct", "cpuset", "pids", "blkio", "freezer"}

// fillCPUSet is what root may forget.
var fillCPUSet = true

// testUser is the ordinary user that scripts/setup-debian.sh makes.
func testUser(t *testing.T) (name string, uid, gid int) {
	t.Helper()
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Skipf("needs an ordinary user: %v", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return u.Username, uid, gid
}

// rootOnV1 skips where the test cannot give a part of the hierarchies to a user.
func rootOnV1(t *testing.T) *machine {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		t.Skip("needs to be the one who gives")
	}
	if os.Geteuid() != 0 || inUserNamespace() {
		t.Skip("needs root, to give a user his part of the hierarchies")
	}
	m, err := look()
	if err != nil {
		t.Fatal(err)
	}
	if m.version != VersionV1 && m.version != VersionHybrid {
		t.Skip("needs cgroup v1")
	}
	return m
}

// give makes a directory in each hierarchy and gives it to the user; it is gone at the test's end.
func give(t *testing.T, m *machine, rel string, uid, gid int) (dirs []string) {
	t.Helper()
	for _, c := range controllersForUser {
		h := m.at(c)
		if h == nil || slices.Contains(dirs, filepath.Join(h.mount, rel)) {
			continue
		}
		dir := filepath.Join(h.mount, rel)
		var missing []string
		for d := dir; d != h.mount; d = filepath.Dir(d) {
			if _, err := os.Stat(d); err != nil {
				missing = append(missing, d)
			}
		}
		for _, d := range slices.Backward(missing) {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(d); err != nil && !errors.Is(err, syscall.EBUSY) { // another container's group is beside it
					t.Error(err)
				}
			})
		}
		if c == "cpuset" && fillCPUSet {
			// A new cpuset has nothing. The files stay root's: the user may make groups, not widen his own.
			for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
				for _, d := range []string{filepath.Dir(dir), dir} {
					if d == h.mount {
						continue
					}
					b, err := os.ReadFile(filepath.Join(h.mount, f))
					if err == nil {
						err = os.WriteFile(filepath.Join(d, f), b, 0)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// again runs tests as the user, in a user namespace in which he is root, as lamina does. place is called when the process
// waits to be put somewhere.
func again(t *testing.T, run string, uid, gid int, place func(pid int), env ...string) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			break // not ours any more
		}
		if filepath.Dir(d) == os.TempDir() {
			break
		}
	}
	cmd := exec.Command("/bin/sh", "-c", `read x; exec "$0" "$@"`, testBinary(t, dir), "-test.run", run, "-test.v")
	cmd.Dir = "/tmp"
	cmd.Env = append(os.Environ(), append(env, insideEnv+"=1", "TMPDIR=/tmp")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		Pdeathsig:   syscall.SIGKILL,
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if place != nil {
		place(cmd.Process.Pid)
	}
	fmt.Fprintln(in, "go")
	err = cmd.Wait()
	t.Log(out.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Errorf("as the user: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// testBinary is this binary where every user may execute it.
func testBinary(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "cgroup.test")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func passed(t *testing.T, out string, tests ...string) {
	t.Helper()
	for _, test := range tests {
		if !strings.Contains(out, "--- PASS: "+test) {
			t.Errorf("%s did not pass there", test)
		}
	}
}

// What the user's own name names below lamina/ is his.
func TestUserWithHisPart(t *testing.T) {
	m := rootOnV1(t)
	name, uid, gid := testUser(t)
	dirs := give(t, m, filepath.Join(folder, name), uid, gid)
	out := again(t, effects, uid, gid, nil)
	passed(t, out, "TestMemoryLimitKills", "TestPidsLimitStopsForks", "TestCPUQuotaThrottles", "TestFreezerStopsACounter", "TestCPUSet", "TestLoadFindsAndEnds", "TestAfterTheMonitorWasKilled")
	for _, d := range dirs {
		if left, err := filepath.Glob(filepath.Join(d, "test-*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

// So is the cgroup that he is in, when it was given to him.
func TestUserInHisOwnCgroup(t *testing.T) {
	m := rootOnV1(t)
	_, uid, gid := testUser(t)
	dirs := give(t, m, fmt.Sprintf("lamina-own-%d", os.Getpid()), uid, gid)
	out := again(t, effects, uid, gid, func(pid int) {
		for _, d := range dirs {
			if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Error(err)
			}
		}
	})
	passed(t, out, "TestMemoryLimitKills", "TestPidsLimitStopsForks", "TestCPUQuotaThrottles", "TestFreezerStopsACounter", "TestCPUSet", "TestLoadFindsAndEnds", "TestAfterTheMonitorWasKilled")
}

// Without any he is told so, by what needs one.
func TestUserWithNothing(t *testing.T) {
	rootOnV1(t)
	_, uid, gid := testUser(t)
	passed(t, again(t, "^TestNothing$", uid, gid, nil, "LAMINA_CGROUP_NOTHING=1"), "TestNothing")
}

func TestNothing(t *testing.T) {
	if os.Getenv("LAMINA_CGROUP_NOTHING") == "" {
		t.Skip("needs a user who may not write to any cgroup: TestUserWithNothing is one")
	}
	info := Probe()
	if info.Driver != "none" || len(info.Controllers) > 0 || !strings.Contains(strings.Join(info.Missing, " "), "chown lamina-test") {
		t.Errorf("Probe: %+v", info)
	}
	g, err := New("nothing", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if g.Path() != "" || !strings.Contains(g.Why(), "of the memory controller") {
		t.Errorf("a group at %q, because %q", g.Path(), g.Why())
	}
	for _, err := range []error{g.Add(os.Getpid()), g.Kill(), g.Update(nil), g.Update(&specs.LinuxResources{}), g.Remove()} {
		if err != nil {
			t.Error(err)
		}
	}
	if pids, err := g.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("Pids: %v, %v", pids, err)
	}
	var u *Unavailable
	if err := g.Freeze(); !errors.As(err, &u) || u.Op != "pause" || !strings.Contains(u.Why, "of the freezer controller") {
		t.Errorf("Freeze: %v", err)
	}
	if _, err := g.Stats(); !errors.As(err, &u) || u.Op != "stats" {
		t.Errorf("Stats: %v", err)
	}
	if _, open := <-g.OOM(); open || g.OOMKilled() {
		t.Error("OOMKilled, or an event of it")
	}
	controllerOf := map[string]string{
		"--memory": "memory", "--memory-swap": "memory", "--cpus": "cpu", "--cpu-shares": "cpu", "--cpuset-cpus": "cpuset",
		"--pids-limit": "pids", "--blkio-weight": "blkio",
	}
	limits := map[string]*specs.LinuxResources{
		"--memory":       {Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 30))}},
		"--memory-swap":  {Memory: &specs.LinuxMemory{Swap: ptr(int64(-1))}},
		"--cpus":         {CPU: &specs.LinuxCPU{Quota: ptr(int64(10000))}},
		"--cpu-shares":   {CPU: &specs.LinuxCPU{Shares: ptr(uint64(100))}},
		"--cpuset-cpus":  {CPU: &specs.LinuxCPU{Cpus: "0"}},
		"--pids-limit":   {Pids: &specs.LinuxPids{Limit: ptr(int64(10))}},
		"--blkio-weight": {BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(100))}},
	}
	for flag, r := range limits {
		var refused *Unenforceable
		if _, err := New("nothing", r, Options{}); !errors.As(err, &refused) || refused.Flag != flag || refused.Why == "" {
			t.Errorf("%s: %v", flag, err)
		}
		if err := g.Update(r); !errors.As(err, &refused) || refused.Flag != flag || !strings.Contains(refused.Why, controllerOf[flag]) {
			t.Errorf("update %s: %v", flag, err)
		}
	}
}

// A user with only some of the hierarchies has what they can do.
func TestUserWithMemoryOnly(t *testing.T) {
	m := rootOnV1(t)
	name, uid, gid := testUser(t)
	all := controllersForUser
	controllersForUser = []string{"memory"}
	t.Cleanup(func() { controllersForUser = all })
	give(t, m, filepath.Join(folder, name), uid, gid)
	passed(t, again(t, "^Test(MemoryLimitKills|MemoryOnly)$", uid, gid, nil, "LAMINA_CGROUP_MEMORY_ONLY=1"), "TestMemoryLimitKills", "TestMemoryOnly")
}

func TestMemoryOnly(t *testing.T) {
	if os.Getenv("LAMINA_CGROUP_MEMORY_ONLY") == "" {
		t.Skip("needs a user who was given the memory controller only: TestUserWithMemoryOnly is one")
	}
	g := newGroup(t, nil)
	var u *Unavailable
	if err := g.Freeze(); !errors.As(err, &u) || !strings.Contains(u.Why, "freezer") {
		t.Errorf("Freeze: %v", err)
	}
	var refused *Unenforceable
	if err := g.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(10000))}}); !errors.As(err, &refused) || refused.Flag != "--cpus" || !strings.Contains(refused.Why, "cpu") {
		t.Errorf("--cpus: %v", err)
	}
	h := start(t, "sleep", nil)
	if err := g.Add(h.Process.Pid); err != nil {
		t.Fatal(err)
	}
	s, err := g.Stats()
	if err != nil || len(s.MemoryStats.Stats) == 0 {
		t.Errorf("Stats: %+v, %v", s, err)
	}
	// Without freezer and cgroup.kill each process is signalled until none is left.
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if ws := h.wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("killed: %v", h.ProcessState)
	}
}

// A cpuset that was given away empty is none, and in nobody's way.
func TestUserWithEmptyCPUSet(t *testing.T) {
	m := rootOnV1(t)
	name, uid, gid := testUser(t)
	fillCPUSet = false
	t.Cleanup(func() { fillCPUSet = true })
	give(t, m, filepath.Join(folder, name), uid, gid)
	passed(t, again(t, "^Test(MemoryLimitKills|EmptyCPUSet)$", uid, gid, nil, "LAMINA_CGROUP_EMPTY_CPUSET=1"), "TestMemoryLimitKills", "TestEmptyCPUSet")
}

func TestEmptyCPUSet(t *testing.T) {
	if os.Getenv("LAMINA_CGROUP_EMPTY_CPUSET") == "" {
		t.Skip("needs a user who was given an empty cpuset: TestUserWithEmptyCPUSet is one")
	}
	newGroup(t, nil)
	var refused *Unenforceable
	_, err := New(testID(t)+"-refused", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}, options())
	if !errors.As(err, &refused) || refused.Flag != "--cpuset-cpus" || !strings.Contains(refused.Why, "cpuset.mems") {
		t.Errorf("--cpuset-cpus: %v", err)
	}
}

// On v2 a user who has logged in is, in his user namespace, still the user to systemd.
func TestInUserNamespaceOnV2(t *testing.T) {
	if os.Getenv(insideEnv) != "" || os.Geteuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	if Probe().Version != VersionV2 {
		t.Skip("needs cgroup v2")
	}
	needGroups(t, "memory", "pids")
	out := again(t, effects, os.Geteuid(), os.Getegid(), nil)
	passed(t, out, "TestMemoryLimitKills", "TestPidsLimitStopsForks", "TestFreezerStopsACounter", "TestLoadFindsAndEnds", "TestAfterTheMonitorWasKilled")
}

// Without systemd's help, groups go below the caller's own cgroup, whose processes make room.
func TestBelowTheOwnCgroupOnV2(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		t.Skip("needs to be outside")
	}
	if Probe().Version != VersionV2 || Probe().Driver != "systemd" {
		t.Skip("needs cgroup v2 and systemd, which gives the own cgroup")
	}
	args := []string{"--quiet", "--scope", "-p", "Delegate=yes"}
	if os.Geteuid() != 0 {
		args = append(args, "--user")
	}
	args = append(args, testBinary(t, t.TempDir()), "-test.run", effects, "-test.v")
	cmd := exec.Command("systemd-run", args...)
	cmd.Env = append(os.Environ(), insideEnv+"=1", noSystemdEnv+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a scope of its own: %v", err)
	}
	passed(t, string(out), "TestMemoryLimitKills", "TestPidsLimitStopsForks", "TestFreezerStopsACounter", "TestLoadFindsAndEnds", "TestAfterTheMonitorWasKilled")
}
