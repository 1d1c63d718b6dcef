package idmap

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// The test binary is what Reexec runs again: "idmap-outer" is a program as the user calls it, "idmap-inner" what it
// becomes. The inner one does what IDMAP_TEST says.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "idmap-outer":
		id, err := Discover()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(125)
		}
		if os.Getenv("IDMAP_SINGLE") != "" {
			id.Kind, id.UIDs, id.GIDs = Single, rangesToMap(id.UID, nil), rangesToMap(id.GID, nil)
		}
		if os.Getenv("IDMAP_FOREIGN") != "" { // a range that nobody has given us
			id.UIDs = rangesToMap(id.UID, []subRange{{3000000000, 10}})
		}
		reexec := func() (int, error) { return id.Reexec("idmap-inner") }
		if os.Getenv("IDMAP_PROGRAM") != "" {
			reexec = func() (int, error) { return startProgram(id, "idmap-inner") }
		}
		code, err := reexec()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	case "idmap-inner":
		inner()
	}
	os.Exit(m.Run())
}

// startProgram is Reexec by StartProgram, in a session and a mount namespace of its own.
func startProgram(id *Identity, argv0 string) (int, error) {
	self, err := executable()
	if err != nil {
		return 125, err
	}
	pid, err := id.StartProgram(self, []string{argv0}, os.Environ(), "/", []*os.File{os.Stdin, os.Stdout, os.Stderr},
		&syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS})
	if err != nil {
		return 125, err
	}
	status, err := sys.WaitProgram(pid)
	return status.ExitStatus(), err
}

// A report is what the inner process sees of itself.
type report struct {
	Inside   *Identity
	Euid     int
	UIDMap   string
	Status   map[string]string
	MountNS  string
	Pid      int
	CanMknod bool
	Chown5   bool
}

func inner() {
	switch do := os.Getenv("IDMAP_TEST"); {
	case do == "report":
		r := report{Inside: Inside(), Euid: os.Geteuid(), Pid: os.Getpid(), Status: map[string]string{}}
		b, _ := os.ReadFile("/proc/self/uid_map")
		r.UIDMap = strings.Join(strings.Fields(string(b)), " ")
		b, _ = os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok {
				r.Status[k] = strings.TrimSpace(v)
			}
		}
		r.MountNS, _ = os.Readlink("/proc/self/ns/mnt")
		r.CanMknod = r.Inside.CanMknod()
		r.Chown5 = r.Inside.CanChown(5, 5)
		_ = json.NewEncoder(os.Stdout).Encode(r)
		os.Exit(0)
	case strings.HasPrefix(do, "exit "):
		n, _ := strconv.Atoi(do[5:])
		os.Exit(n)
	case strings.HasPrefix(do, "shell "):
		err := syscall.Exec("/bin/sh", []string{"sh", "-c", do[6:]}, os.Environ())
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(99)
}

// binary is a copy of the test binary that every user can execute.
func binary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "idmap-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "idmap.test")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// ordinaryUser is the user that tests run as when they are root: he has ranges of ids.
func ordinaryUser(t *testing.T) (uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		return os.Geteuid(), os.Getegid()
	}
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Skip("needs the user lamina-test (scripts/setup-debian.sh makes it)")
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

// outer is the command as the user with the ids would give it.
func outer(t *testing.T, uid, gid int, do string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := &exec.Cmd{Path: binary(t), Args: []string{"idmap-outer"}, Dir: "/", Stderr: os.Stderr}
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "IDMAP_TEST=" + do}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

func needUserNS(t *testing.T) {
	t.Helper()
	if missing := thisHost.missingUserns(); len(missing) > 0 {
		t.Skip("needs user namespaces: ", missing)
	}
}

func runReport(t *testing.T, cmd *exec.Cmd) report {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

// waitFor polls until ok, for what is signalled by nothing that a test could wait for.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
