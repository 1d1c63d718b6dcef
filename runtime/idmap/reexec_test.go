package idmap

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// noRange is an id that no passwd and no subuid file knows.
const noRange = 54321

func TestReexecWithRange(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	r := runReport(t, outer(t, uid, gid, "report"))
	if r.Inside.Kind != SubIDs || r.Inside.UID != uid || r.Inside.GID != gid || len(r.Inside.Missing) > 0 {
		t.Errorf("inside: %+v, want a user %d with a range and nothing missing", r.Inside, uid)
	}
	if r.Euid != 0 || !strings.HasPrefix(r.UIDMap, "0 "+strconv.Itoa(uid)+" 1 1 ") {
		t.Errorf("user %d, map %q; want root, and a range from 1 on", r.Euid, r.UIDMap)
	}
	// A process that keeps its capabilities as root has them all, and hands none on by itself.
	if s := r.Status; s["CapEff"] != s["CapBnd"] || s["CapPrm"] != s["CapBnd"] || strings.Trim(s["CapAmb"], "0") != "" || strings.Trim(s["CapInh"], "0") != "" {
		t.Errorf("capabilities %s %s, inheritable %s, ambient %s; bounding %s", s["CapEff"], s["CapPrm"], s["CapInh"], s["CapAmb"], s["CapBnd"])
	}
	if s := r.Status; strings.Join(strings.Fields(s["Uid"]+" "+s["Gid"]), " ") != "0 0 0 0 0 0 0 0" || s["Groups"] != "" {
		t.Errorf("ids %s / %s, groups %q", s["Uid"], s["Gid"], s["Groups"])
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	if r.MountNS != own {
		t.Error("mount namespace is another one than the caller's: its end would be waited for")
	}
	if !r.Chown5 || r.CanMknod {
		t.Errorf("can chown to 5: %v, can mknod: %v; want true, false", r.Chown5, r.CanMknod)
	}
}

// TestToldTwice: what a program of ours has told another one, which has come here in its environment, does not count.
func TestToldTwice(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	for _, how := range []string{"IDMAP_PROGRAM=yes", "IDMAP_PROGRAM="} {
		r := runReport(t, outer(t, uid, gid, "report", how, envIdentity+`={"Kind":"single","UID":7}`))
		if r.Inside.Kind != SubIDs || r.Inside.UID != uid {
			t.Errorf("%s: inside: %+v, want a user %d with a range", how, r.Inside, uid)
		}
	}
}

func TestStartProgram(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	r := runReport(t, outer(t, uid, gid, "report", "IDMAP_PROGRAM=yes"))
	if r.Inside.Kind != SubIDs || r.Inside.UID != uid || r.Inside.GID != gid || len(r.Inside.Missing) > 0 {
		t.Errorf("inside: %+v, want a user %d with a range and nothing missing", r.Inside, uid)
	}
	if r.Euid != 0 || !strings.HasPrefix(r.UIDMap, "0 "+strconv.Itoa(uid)+" 1 1 ") {
		t.Errorf("user %d, map %q; want root, and a range from 1 on", r.Euid, r.UIDMap)
	}
	if own, _ := os.Readlink("/proc/self/ns/mnt"); r.MountNS == own {
		t.Error("mount namespace is the caller's")
	}
	if session := r.Status["NSsid"]; session != strconv.Itoa(r.Pid) {
		t.Errorf("session %s of process %d", session, r.Pid)
	}
}

func TestReexecWithoutRange(t *testing.T) {
	needUserNS(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become a user without a range")
	}
	r := runReport(t, outer(t, noRange, noRange, "report"))
	if r.Inside.Kind != Single || r.UIDMap != "0 54321 1" || r.Euid != 0 {
		t.Errorf("inside %+v, map %q, user %d; want 0 mapped to the caller alone", r.Inside, r.UIDMap, r.Euid)
	}
	if s := strings.Join(r.Inside.Missing, "\n"); !strings.Contains(s, "/etc/subuid") || !strings.Contains(s, "usermod --add-subgids") {
		t.Errorf("missing: %s\nwant both files, and the command that helps", s)
	}
	if s := r.Status; s["CapEff"] != s["CapBnd"] {
		t.Errorf("capabilities %s, want %s", s["CapEff"], s["CapBnd"])
	}
	if r.Chown5 {
		t.Error("can chown to 5, which is not mapped")
	}
}

func TestReexecKeepsNofile(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	in := outer(t, uid, gid, "shell ulimit -Sn")
	cmd := outer(t, uid, gid, "")
	cmd.Path, cmd.Env = "/bin/bash", in.Env // for exec -a
	cmd.Args = []string{"bash", "-c", `ulimit -Sn 200; exec -a idmap-outer ` + in.Path}
	out, err := cmd.Output()
	if err != nil || string(out) != "200\n" {
		t.Errorf("soft limit of open files %q, %v; want 200", out, err)
	}
}

func TestReexecExitCodes(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	for do, want := range map[string]int{
		"exit 0": 0, "exit 7": 7, "exit 255": 255, "shell kill -9 $$": 137, "shell kill -TERM $$": 143,
	} {
		for _, single := range []string{"", "IDMAP_SINGLE=1"} {
			cmd := outer(t, uid, gid, do, single)
			_ = cmd.Run() // the code says it
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Errorf("%q %s: exit code %d, want %d", do, single, got, want)
			}
		}
	}
}

// started runs cmd and returns the first line it writes, a pid.
func started(t *testing.T, cmd *exec.Cmd) (pid int, rest *bufio.Reader) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(out)
	line, err := rest.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return pid, rest
}

func TestReexecForwardsSignals(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGWINCH} {
		name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
		cmd := outer(t, uid, gid, "shell trap 'echo got "+name+"; exit 5' "+name+"; echo $$; while :; do sleep 0.01; done")
		// A session of its own: without a terminal nothing but us sends signals.
		cmd.SysProcAttr.Setsid = true
		_, rest := started(t, cmd)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		line, _ := rest.ReadString('\n')
		if line != "got "+name+"\n" {
			t.Errorf("%s: the program wrote %q", name, line)
		}
		_ = cmd.Wait() // the code says it
		if cmd.ProcessState.ExitCode() != 5 {
			t.Errorf("%s: %v, want exit code 5", name, cmd.ProcessState)
		}
	}
}

func TestReexecDiesWithItsParent(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	cmd := outer(t, uid, gid, "shell echo $$; exec sleep 1000")
	pid, _ := started(t, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	waitFor(t, "the program ends with the one that started it", func() bool { return !alive(pid) })
}

// What newuidmap refuses is said, and the process that waited for its map is gone.
func TestRefusedMap(t *testing.T) {
	needUserNS(t)
	uid, gid := ordinaryUser(t)
	cmd := outer(t, uid, gid, "exit 0", "IDMAP_FOREIGN=1")
	var said strings.Builder
	cmd.Stderr = &said
	_ = cmd.Run() // the code says it
	if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(said.String(), "newuidmap") || !strings.Contains(said.String(), "/etc/subuid") {
		t.Errorf("%v, %q", cmd.ProcessState, said.String())
	}
}
