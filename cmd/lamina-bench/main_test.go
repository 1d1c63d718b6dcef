package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/bench/report"
	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/version"
)

// bin has lamina, laminafs and lamina-bench, where everybody may run them.
var bin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lb")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "github.com/laminafs/lamina/cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := bin(); dir != "" {
		_ = os.RemoveAll(dir) // a few files in /tmp
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	dir, err := bin()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "lamina-bench")
}

// open is a directory that everybody may write to, with a short path.
func open(t *testing.T) string {
	t.Helper()
	base := "/dev/shm" // many small files
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "lb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs lamina-bench as a user, root for nil.
func call(t *testing.T, as *user.User, args ...string) (out, complaints string, code int) {
	t.Helper()
	cmd := command(t, as, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func command(t *testing.T, as *user.User, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Dir = "/"
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: number(t, as.Uid), Gid: number(t, as.Gid)}}
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + as.HomeDir}
	}
	return cmd
}

func number(t *testing.T, text string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// ordinary is the user that tests have.
func ordinary(t *testing.T) *user.User {
	t.Helper()
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Skipf("needs an ordinary user: %v", err)
	}
	return u
}

// rootfs is a tar file of a system that has true, and little else.
func rootfs(t *testing.T, dir string) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	script := `mkdir -p "$1/tree/bin" "$1/tree/usr/lib" && cp -L "$2" "$1/tree/bin/busybox" && ln -s busybox "$1/tree/bin/true" &&
		echo text >"$1/tree/usr/lib/file" && tar -C "$1/tree" -cf "$1/rootfs.tar" . && rm -r "$1/tree"`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, busybox).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(dir, "rootfs.tar")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	uniontest.NeedFuse(t)
	uniontest.NeedOverlay(t)
}

// everything measures all workloads once, small, and looks at the report.
func everything(t *testing.T, as *user.User, more ...string) *report.Report {
	t.Helper()
	dir := open(t)
	out := filepath.Join(dir, "out")
	args := append([]string{"run", "--scale", "tiny", "--reps", "1", "--no-fio", "--dir", dir, "--out", out, "--rootfs", rootfs(t, dir)}, more...)
	text, complaints, code := call(t, as, args...)
	r, err := report.Load(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatalf("exit status %d, %v:\n%s", code, err, complaints)
	}
	for _, s := range r.Skipped {
		t.Logf("skipped: %+v", s)
	}
	others := 0
	for _, s := range r.Incorrect() {
		if report.Ours(s.System) || s.System == bench.Plain {
			t.Errorf("%s on %s: %s", s.Workload, s.System, s.Incorrect)
			continue
		}
		t.Logf("%s on %s: %s", s.Workload, s.System, s.Incorrect)
		others++
	}
	if code != 0 {
		t.Errorf("exit status %d:\n%s", code, complaints)
	}
	if said := strings.Contains(complaints, fmt.Sprintf("wrong results of others: %d: see ", others)); said != (others > 0) {
		t.Errorf("%d wrong results of others, and it says\n%s", others, complaints)
	}
	if !strings.Contains(text, "## metadata") {
		t.Errorf("no tables:\n%s", text)
	}
	for _, name := range []string{"report.md", "report.html", "chart.svg"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() < 1000 {
			t.Errorf("%s: %v, error %v", name, info, err)
		}
	}
	left, err := filepath.Glob(dir + "/" + scratchPrefix + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, error %v", left, err)
	}
	return r
}

// find returns the sample of a workload on a system.
func find(r *report.Report, workload, system string) *report.Sample {
	i := slices.IndexFunc(r.Samples, func(s report.Sample) bool { return s.Workload == workload && s.System == system })
	if i < 0 {
		return nil
	}
	return &r.Samples[i]
}

// checkUnions looks at whether the workloads that match were measured on the systems.
func checkUnions(t *testing.T, r *report.Report, patterns []string, systems ...string) {
	t.Helper()
	list, err := bench.Match(bench.Workloads(), patterns)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		if w.Launches() || w.Name == "rootfs-verify" { // which needs a dpkg
			continue
		}
		for _, sys := range systems {
			s := find(r, w.Name, sys)
			if s == nil {
				t.Errorf("no sample of %s on %s", w.Name, sys)
				continue
			}
			if s.Wall <= 0 || s.Client <= 0 {
				t.Errorf("%+v", s)
			}
			cold := strings.HasSuffix(w.Name, "-cold")
			if sys == bench.Laminafs && (s.Memory == nil || s.Memory.Peak <= 0 || cold && (len(s.Requests) == 0 || s.Server <= 0)) {
				t.Errorf("%s: nothing is known of the server: %+v", w.Name, s)
			}
		}
	}
	if len(patterns) > 0 {
		return
	}
	m := find(r, "memory-1m", bench.Laminafs)
	if m == nil || m.Memory.Objects != 2002 || m.Memory.Before <= 0 || m.Memory.After <= 0 || m.Memory.FDs <= 0 {
		t.Errorf("memory: %+v", m)
	}
}

func TestEverything(t *testing.T) {
	needRoot(t)
	t.Parallel()
	u := ordinary(t)
	r := everything(t, nil, "--user", u.Username, "--systems", "plain,overlay,laminafs,lamina,podman,runc,bwrap,tar")
	checkUnions(t, r, nil, bench.Plain, bench.Overlay, bench.Laminafs)
	for _, as := range []string{"", "@" + u.Username} {
		for workload, systems := range map[string][]string{
			"container-start": {bench.Lamina}, "container-start-net": {bench.Lamina},
			"image-load-50m": {bench.Lamina, bench.Tar}, "image-load-500m": {bench.Lamina, bench.Tar},
		} {
			for _, sys := range systems {
				if s := find(r, workload+as, sys); s == nil || s.Wall <= 0 || s.Client <= 0 || s.Memory.Peak <= 0 {
					t.Errorf("%s%s on %s: %+v", workload, as, sys, s)
				}
			}
		}
	}
	for _, name := range []string{"go", bench.Lamina, bench.Laminafs} {
		if r.Machine.Versions[name] == "" {
			t.Errorf("no version of %s in %v", name, r.Machine.Versions)
		}
	}
	if r.Machine.Rootless != "" || r.Machine.Filesystem == "" || r.Machine.Kernel == "" || r.Machine.CPUs < 1 {
		t.Errorf("machine: %+v", r.Machine)
	}
}

// Others' servers are measured too, and what they do wrong is found and told: no failure of the run. They are asked for less than
// ours: all of it is for the long run.
func TestOtherServers(t *testing.T) {
	needRoot(t)
	t.Parallel()
	var patterns []string
	if os.Getenv("LAMINA_LONG") == "" {
		patterns = []string{"metadata"}
	}
	if _, err := exec.LookPath(bench.FuseOverlayfs); err != nil {
		t.Skipf("needs fuse-overlayfs: %v", err)
	}
	r := everything(t, nil, "--systems", "overlay,fuse-overlayfs,unionfs-fuse", "--workloads", strings.Join(patterns, ","))
	checkUnions(t, r, patterns, bench.Overlay, bench.FuseOverlayfs)
	for _, s := range r.Samples {
		if s.System == bench.FuseOverlayfs && s.Memory.Peak <= 0 {
			t.Errorf("nothing is known of the server: %+v", s)
		}
	}
	// It loses times.
	if s := find(r, "untar", bench.UnionfsFuse); s != nil && (s.Incorrect == "" || s.Wall != 0) {
		t.Errorf("what unionfs-fuse unpacks passes for right: %+v", s)
	}
}

// An ordinary user measures too: overlayfs in a user namespace, servers without any privilege, and his own containers.
func TestEverythingAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	t.Parallel()
	patterns := []string{"metadata", "copy-up", "programs", "mmap-*", "layers-500-*", "container-start", "image-load-50m"}
	if os.Getenv("LAMINA_LONG") != "" {
		patterns = nil
	}
	r := everything(t, ordinary(t), "--systems", "plain,overlay,laminafs,lamina,tar", "--workloads", strings.Join(patterns, ","))
	checkUnions(t, r, patterns, bench.Plain, bench.Overlay, bench.Laminafs)
	for _, workload := range []string{"container-start", "image-load-50m"} {
		if s := find(r, workload, bench.Lamina); s == nil || s.Wall <= 0 {
			t.Errorf("%s: %+v", workload, s)
		}
	}
	if r.Machine.Rootless == "" {
		t.Error("the report does not say that it was an ordinary user's")
	}
}

// Options make a system of their own.
func TestOptionsAreASystem(t *testing.T) {
	needRoot(t)
	dir := open(t)
	_, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out",
		"--systems", "laminafs,laminafs:whiteout=overlay,laminafs:whiteout=none,laminafs:whitout=overlay", "--workloads", "rm-lower", "--ledger", "more options")
	r, err := report.Load(dir + "/out/report.json")
	if err != nil || code != 0 {
		t.Fatalf("exit status %d, error %v:\n%s", code, err, complaints)
	}
	for _, name := range []string{"laminafs", "laminafs:whiteout=overlay"} {
		if s := find(r, "rm-lower", name); s == nil || s.Wall <= 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if len(r.Skipped) != 2 || r.Skipped[0].System != "laminafs:whiteout=none" || !strings.Contains(r.Skipped[0].Why, "whiteout=none") ||
		!strings.Contains(r.Skipped[1].Why, "unknown option whitout=overlay") {
		t.Errorf("skipped: %+v", r.Skipped)
	}
	if text, err := os.ReadFile(dir + "/out/ledger.md"); err != nil || !strings.Contains(string(text), ": more options\n") {
		t.Errorf("ledger: error %v:\n%s", err, text)
	}
}

// A run that is killed takes its processes and mounts with it, and the next one its files.
func TestKilled(t *testing.T) {
	needRoot(t)
	for name, as := range map[string]*user.User{"root": nil, "ordinary user": ordinary(t)} {
		t.Run(name, func(t *testing.T) { killed(t, as) })
	}
}

func killed(t *testing.T, as *user.User) {
	dir := open(t)
	args := []string{"run", "--scale", "tiny", "--reps", "100000", "--dir", dir, "--out", dir + "/out", "--systems", "plain,overlay,laminafs", "--workloads", "walk-*"}
	cmd := exec.Command(program(t), args...)
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: number(t, as.Uid), Gid: number(t, as.Gid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ours := func() (pids []int, mounted bool) {
		for _, pid := range processes(dir) {
			pids = append(pids, pid)
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)) // it may have ended
			mounted = mounted || strings.Contains(string(text), dir)
		}
		return pids, mounted
	}
	until(t, "there is a server and a mount", func() bool {
		pids, mounted := ours()
		return len(pids) >= 3 && mounted
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it ended well")
	}
	until(t, "no process is left, and so no mount", func() bool {
		pids, _ := ours()
		return len(pids) == 0
	})
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), dir) {
		t.Errorf("mounts are left, error %v", err)
	}
	if left, _ := filepath.Glob(dir + "/" + scratchPrefix + "*"); len(left) != 1 {
		t.Errorf("files left behind: %q, want one directory", left)
	}
	_, complaints, code := call(t, as, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out", "--systems", "plain", "--workloads", "readdir-cold")
	if left, _ := filepath.Glob(dir + "/" + scratchPrefix + "*"); code != 0 || len(left) != 0 {
		t.Errorf("exit status %d, files left behind after the next run: %q:\n%s", code, left, complaints)
	}
}

// processes are those that have the directory in their command line, or as an environment of a run.
func processes(dir string) (pids []int) {
	entries, _ := os.ReadDir("/proc") // it is there
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.Contains(text, []byte(dir)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !yes(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// ^C, or a service manager's SIGTERM, ends a run at once. Nothing is left of it but the report of what was complete.
func TestInterrupted(t *testing.T) {
	needRoot(t)
	metadata := []string{"--systems", "plain,overlay,laminafs", "--workloads", "walk-*"}
	launchers := []string{"--systems", "lamina,tar", "--workloads", "container-start,image-load-50m"}
	tests := []struct {
		name string
		as   *user.User
		with unix.Signal
		args []string
	}{
		{"root, ^C", nil, unix.SIGINT, metadata},
		{"root, SIGTERM", nil, unix.SIGTERM, metadata},
		{"root's launchers", nil, unix.SIGTERM, launchers},
		{"ordinary user", ordinary(t), unix.SIGINT, metadata},
		{"ordinary user's launchers", ordinary(t), unix.SIGHUP, launchers},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			interrupted(t, tt.as, tt.with, tt.args...)
		})
	}
}

func interrupted(t *testing.T, as *user.User, with unix.Signal, args ...string) {
	dir := open(t)
	out := filepath.Join(dir, "out")
	cmd := command(t, as, append([]string{"run", "--scale", "tiny", "--reps", "100000", "--dir", dir, "--out", out}, args...)...)
	var complaints file
	complaints.attach(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "a repetition is complete", func() bool { return strings.Contains(complaints.text(t), "repetition 2: ") })
	if err := cmd.Process.Signal(with); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("%v, want exit status %d", err, exitInterrupted)
	}
	r, err := report.Load(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatalf("%v:\n%s", err, complaints.text(t))
	}
	if want := fmt.Sprintf("lamina-bench: interrupted in repetition %d of 100000: see %s/report.md", r.Interrupted, out); !strings.Contains(complaints.text(t), want) {
		t.Errorf("no %q in\n%s", want, complaints.text(t))
	}
	// Each workload has as many samples of every system; some one more than others.
	of := map[[2]string]int{}
	for _, s := range r.Samples {
		if s.Incorrect != "" {
			t.Errorf("%s on %s: %s", s.Workload, s.System, s.Incorrect)
		}
		of[[2]string{s.Workload, s.System}]++
	}
	if r.Interrupted < 2 || len(of) < 3 {
		t.Errorf("interrupted in repetition %d with %v", r.Interrupted, of)
	}
	for key, n := range of {
		for other, m := range of {
			if n != m && (key[0] == other[0] || n < m-1) || n < r.Interrupted-1 || n > r.Interrupted {
				t.Errorf("interrupted in repetition %d: %v has %d samples, %v %d", r.Interrupted, key, n, other, m)
			}
		}
	}
	for name, want := range map[string]string{"report.md": "**interrupted in repetition ", "report.html": "<b>interrupted in repetition ", "chart.svg": "<svg"} {
		if text, err := os.ReadFile(filepath.Join(out, name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: error %v, or no %q in it", name, err, want)
		}
	}
	nothingLeft(t, dir, "out")
}

// nothingLeft looks for what a run has left: files, processes, mounts, and directories of mounts.
func nothingLeft(t *testing.T, dir string, but ...string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range left {
		if !slices.Contains(but, e.Name()) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
	if pids := processes(dir); len(pids) != 0 {
		t.Errorf("processes are left: %v", pids)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), dir+"/") {
		t.Errorf("mounts are left, error %v", err)
	}
	told, _ := filepath.Glob("/run/laminafs/si_*/mountpoint") // the pattern is right
	for _, path := range told {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), dir) {
			t.Errorf("%s is left, and says %s", path, text)
		}
	}
}

// file is what a program that still runs has said.
type file struct{ path string }

func (f *file) attach(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	to, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() }) // read by name
	f.path, cmd.Stderr = to.Name(), to
}

func (f *file) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A run that is interrupted before anything is complete leaves the report of the one before alone.
func TestInterruptedAtOnce(t *testing.T) {
	needRoot(t)
	dir := open(t)
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out+"/report.json", []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The million files of this one are made for minutes before the first sample.
	cmd := command(t, nil, "run", "--dir", dir, "--out", out, "--systems", "laminafs", "--workloads", "memory-1m")
	var complaints file
	complaints.attach(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it makes files", func() bool {
		made, _ := filepath.Glob(dir + "/" + scratchPrefix + "*/w/many/*")
		return len(made) > 0
	})
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.HasSuffix(complaints.text(t), "lamina-bench: interrupted before anything was complete: there is no report\n") {
		t.Errorf("exit status %d:\n%s", code, complaints.text(t))
	}
	if text, err := os.ReadFile(out + "/report.json"); err != nil || string(text) != "before" {
		t.Errorf("the report before is now %q, error %v", text, err)
	}
	nothingLeft(t, dir, "out")
}

// Interrupted while it makes a Debian, it takes mmdebstrap along.
func TestInterruptedDownload(t *testing.T) {
	dir := open(t)
	fake := filepath.Join(dir, "mmdebstrap")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\ntouch "+dir+"/begun\nwhile :; do sleep 1; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, nil, "run", "--dir", dir, "--out", dir+"/out", "--cache", dir+"/cache", "--systems", "plain", "--workloads", "rootfs-walk")
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	var complaints file
	complaints.attach(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "it has begun", func() bool { _, err := os.Stat(dir + "/begun"); return err == nil })
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is looked at
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.HasSuffix(complaints.text(t), "lamina-bench: interrupted before anything was measured\n") {
		t.Errorf("exit status %d:\n%s", code, complaints.text(t))
	}
	nothingLeft(t, dir, "mmdebstrap", "begun", "cache")
}

// reportFile writes a report of one workload with the times of laminafs.
func reportFile(t *testing.T, name string, walls ...time.Duration) string {
	t.Helper()
	r := report.Report{
		Schema: report.Schema, Scale: 1, Reps: len(walls), Systems: []report.System{{Name: "laminafs"}},
		Workloads: []report.Workload{{Name: "walk", Group: "metadata", Base: "overlay"}},
	}
	for i, w := range walls {
		r.Samples = append(r.Samples, report.Sample{Workload: "walk", System: "laminafs", Rep: i, Wall: w, Client: w})
	}
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// What peers do wrong is no failure of the run; what is ours is, and what all are judged by.
func TestWhoseWrongResultsFail(t *testing.T) {
	for system, fails := range map[string]bool{
		bench.Laminafs: true, "laminafs:noacl": true, bench.Lamina: true, bench.Plain: true,
		bench.Overlay: false, bench.FuseOverlayfs: false, bench.Podman: false, bench.Runc: false, "": false,
	} {
		r := &report.Report{Samples: []report.Sample{{Workload: "walk", System: bench.Overlay, Wall: 1}}}
		if system != "" {
			r.Samples = append(r.Samples, report.Sample{Workload: "walk", System: system, Rep: 1, Incorrect: "wrong"})
		}
		if err := (&options{out: "out"}).judge(r); errors.Is(err, errWorse) != fails {
			t.Errorf("%q: %v", system, err)
		}
	}
}

func TestCompareStatus(t *testing.T) {
	times := func(ms ...int) (list []time.Duration) {
		for _, n := range ms {
			list = append(list, time.Duration(n)*time.Millisecond)
		}
		return list
	}
	base := reportFile(t, "base.json", times(100, 101, 99, 100, 102, 98)...)
	noise := reportFile(t, "noise.json", times(101, 100, 98, 103, 99, 100)...)
	slow := reportFile(t, "slow.json", times(130, 131, 129, 130, 132, 128)...)
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte(`{"schema": 1, "samples": [`), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{base, noise}, 0, "~ (p="},
		{[]string{base, slow}, 1, "REGRESSION: wall of walk on laminafs"},
		{[]string{slow, base}, 0, "-23.08%"},
		{[]string{"--threshold", "0.5", base, slow}, 0, "+30.00%"},
		{[]string{"--ours", "podman", base, slow}, 0, "+30.00%"},
		{[]string{"--of", "cpu", base, slow}, 1, "REGRESSION: cpu"},
		{[]string{"--of", "luck", base, slow}, 2, `--of "luck": there are [wall cpu count peak]`},
		{[]string{"--alpha", "nan", base, slow}, 2, "--alpha NaN: want a number"},
		{[]string{"--threshold", "nan", base, slow}, 2, "--threshold NaN: want a fraction"},
		{[]string{base, broken}, 2, broken + ": not a report"},
		{[]string{base, "/nowhere.json"}, 2, "open /nowhere.json: no such file"},
		{[]string{base}, 2, "accepts 2 arg(s)"},
	}
	for _, tt := range tests {
		out, complaints, code := call(t, nil, append([]string{"compare"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out+complaints, tt.want) {
			t.Errorf("compare %q: exit status %d, want %d; and %q in\n%s%s", tt.args, code, tt.code, tt.want, out, complaints)
		}
	}
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	comma := filepath.Join(dir, "a,b")
	if err := os.Mkdir(comma, 0o755); err != nil {
		t.Fatal(err)
	}
	u := ordinary(t)
	for _, tt := range []struct{ args, want string }{
		{"--systems aufs", `there is no system "aufs": there are plain, overlay`},
		{"--systems overlay:x=y", "only laminafs has options"},
		{"--workloads dance", `there is no workload "dance"`},
		{"--scale huge", `--scale "huge": full, small, tiny, or a number`},
		{"--scale -1", `--scale "-1"`},
		{"--scale nan", `--scale "nan": full, small, tiny, or a number`},
		{"--reps 0", "--reps 0: at least one"},
		{"--user root", "--user root: that is no ordinary user"},
		{"--user lamina-test,lamina-test", "--user: lamina-test is there twice"},
		{"--dir " + comma + " --workloads walk-cold", "a comma, a colon or a backslash has a meaning in mount options"},
		{"--out= --workloads walk-cold", "--out: it is empty"},
		{"--user no-such-user", "no-such-user"},
		{"--dir /nowhere --workloads walk-cold", "/nowhere"},
		{"extra", `unknown command "extra"`},
		{"--systems plain,overlay,plain", "--systems: plain is there twice"},
		{"--systems lamina --workloads walk-cold", "none of --systems does any of --workloads"},
		{"--systems= --workloads walk-cold", "none of --systems does any of --workloads"},
		{"--out /dev/null --workloads walk-cold", "--out: write below /dev/null: not a directory"},
		{"--out /dev/null/x --workloads walk-cold", "--out: stat /dev/null/x: not a directory"},
		{"--out /proc/x --systems plain --workloads walk-cold", "--out: mkdir /proc/x: "},
		{"--out /sys --systems plain --workloads walk-cold", "--out: "},
	} {
		args := append([]string{"run", "--out", dir + "/out"}, strings.Fields(tt.args)...)
		if _, complaints, code := call(t, nil, args...); code != exitFailed || !strings.Contains(complaints, tt.want) {
			t.Errorf("%q: exit status %d, %q; want %d and %q", tt.args, code, complaints, exitFailed, tt.want)
		}
	}
	if _, err := os.Stat(dir + "/out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a report: %v", err)
	}
	if _, complaints, code := call(t, u, "run", "--workloads", "walk-cold", "--out", dir+"/out"); code != exitFailed || !strings.Contains(complaints, "permission denied") {
		t.Errorf("in somebody else's directory: exit status %d, %q", code, complaints)
	}
}

// A filesystem without room is told of, whatever is made on it, and nothing stays there.
func TestNoSpace(t *testing.T) {
	needRoot(t)
	full := open(t)
	if err := unix.Mount("none", full, "tmpfs", 0, "size=4m,mode=777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(full, 0); err != nil {
			t.Error(err)
		}
	})
	out := open(t)
	_, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", full, "--out", out+"/out",
		"--systems", "plain,laminafs", "--workloads", "walk-cold,readdir-cold", "--rootfs", "/dev/null")
	if code != exitFailed || !strings.Contains(complaints, "no space left on device") || !strings.Contains(complaints, "nothing could be measured: see ") {
		t.Errorf("for the layers: exit status %d:\n%s", code, complaints)
	}
	nothingLeft(t, full)
	fill, err := os.Create(full + "/fill")
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	if _, err := io.Copy(fill, rand.Reader); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filled: %v", err)
	}
	tables, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", out, "--out", full, "--systems", "plain", "--workloads", "storm")
	if code != exitFailed || !strings.Contains(complaints, "no space left on device; the tables are all that is left of the run") || !strings.Contains(tables, "| storm ") {
		t.Errorf("for the report: exit status %d, %s:\n%s", code, tables, complaints)
	}
	nothingLeft(t, full, "fill")
}

func TestListAndShow(t *testing.T) {
	out, _, code := call(t, nil, "list")
	for _, w := range bench.Workloads() {
		if !strings.Contains(out, " "+w.Name+" ") {
			t.Errorf("list does not have %s", w.Name)
		}
	}
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
	path := reportFile(t, "report.json", time.Millisecond)
	if out, complaints, code := call(t, nil, "show", path); code != 0 || !strings.Contains(out, "| walk") {
		t.Errorf("show: exit status %d, %s%s", code, out, complaints)
	}
	if out, _, code := call(t, nil, "show", "--ledger", "nothing", path); code != 0 || !strings.Contains(out, ": nothing\n") {
		t.Errorf("show --ledger: exit status %d, %s", code, out)
	}
	dir := t.TempDir()
	if _, complaints, code := call(t, nil, "show", "--out", dir, path); code != 0 {
		t.Errorf("show --out: exit status %d, %s", code, complaints)
	}
	if _, err := os.Stat(dir + "/report.html"); err != nil {
		t.Error(err)
	}
	if out, complaints, code := call(t, nil, "show", "--out", "/dev/null/x", path); code != exitFailed || out != "" || strings.Contains(complaints, "all that is left") {
		t.Errorf("show --out where nothing can be: exit status %d, %s%s", code, out, complaints)
	}
}

// TestVersion: every program that is run by hand tells which it is.
func TestVersion(t *testing.T) {
	dir := filepath.Dir(program(t))
	for _, name := range []string{"lamina", "laminafs", "lamina-bench"} {
		out, err := exec.Command(filepath.Join(dir, name), "--version").Output()
		if err != nil || !strings.HasPrefix(string(out), name+" ") || !strings.Contains(string(out), version.Devel) && !strings.Contains(string(out), " v") {
			t.Errorf("%s --version: %q, %v", name, out, err)
		}
	}
}
