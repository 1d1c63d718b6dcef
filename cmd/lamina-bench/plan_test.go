package main

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/bench/report"
)

// A Debian is made for those who work on it only.
func TestNoDebianForLaunchers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/mmdebstrap", []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for system, wants := range map[string]bool{"tar": false, "plain": true} {
		o := options{systems: []string{system}, reps: 1, scale: "tiny", dir: dir, out: dir + "/out", cache: dir + "/cache"}
		p, err := o.plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := p.NoRootfs != ""; got != wants {
			t.Errorf("%s: a Debian was asked for: %v, want %v", system, got, wants)
		}
	}
}

// A user's number is mostly that of his group, too.
func TestCaller(t *testing.T) {
	u := ordinary(t)
	c, err := caller(u.Username)
	if want := (bench.Caller{Name: u.Username, UID: number(t, u.Uid), GID: number(t, u.Gid)}); err != nil || c != want {
		t.Errorf("%+v, error %v; want %+v", c, err, want)
	}
}

// The launchers of a user run as him.
func TestLaunchersRunAsTheUser(t *testing.T) {
	needRoot(t)
	u := ordinary(t)
	dir := open(t)
	fake := "#!/bin/sh\n[ $1 = --version ] && exit\n{ id -u; id -g; } >>" + dir + "/ids\nexit 1\n"
	if err := os.WriteFile(dir+"/bwrap", []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	ids := dir + "/ids"
	if err := errors.Join(os.WriteFile(ids, nil, 0o644), os.Chmod(ids, 0o666)); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out", "--systems", "bwrap", "--workloads", "container-start@*",
		"--user", u.Username)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	_ = cmd.Run() // there is nothing that it could measure
	text, err := os.ReadFile(ids)
	if err != nil || string(text) != u.Uid+"\n"+u.Gid+"\n" {
		t.Errorf("uid and gid %q, error %v; want %s and %s", text, err, u.Uid, u.Gid)
	}
}

// A system is not measured under the name of options that have no effect here.
func TestOptionsWithoutEffect(t *testing.T) {
	needRoot(t)
	skipped := func(as *user.User, system string) string {
		dir := open(t)
		_, complaints, _ := call(t, as, "run", "--scale", "tiny", "--reps", "1", "--dir", dir, "--out", dir+"/out", "--systems", "plain,"+system, "--workloads", "storm")
		r, err := report.Load(dir + "/out/report.json")
		if err != nil {
			t.Fatalf("%v:\n%s", err, complaints)
		}
		if find(r, "storm", system) != nil || len(r.Skipped) != 1 {
			return ""
		}
		return r.Skipped[0].Why
	}
	if why := skipped(ordinary(t), "laminafs:passthrough"); !strings.Contains(why, "passthrough: not possible") { // only root may
		t.Errorf("passthrough of an ordinary user: skipped because of %q", why)
	}
	offered, err := os.ReadFile("/sys/module/fuse/parameters/enable_uring")
	if err == nil && string(offered) == "Y\n" {
		t.Skip("needs a kernel that does not offer FUSE over io_uring")
	}
	if why := skipped(nil, "laminafs:transport=uring"); !strings.Contains(why, "no FUSE over io_uring") {
		t.Errorf("io_uring: skipped because of %q", why)
	}
}

// Without lamina the others are measured all the same.
func TestLaminaIsNotThere(t *testing.T) {
	needRoot(t)
	dir := open(t)
	_, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--bin", dir, "--dir", dir, "--out", dir+"/out",
		"--systems", "lamina,tar", "--workloads", "image-load-50m")
	r, err := report.Load(dir + "/out/report.json")
	if err != nil || code != 0 {
		t.Fatalf("exit status %d, error %v:\n%s", code, err, complaints)
	}
	if len(r.Samples) != 1 || r.Samples[0].System != bench.Tar || r.Samples[0].Wall <= 0 {
		t.Errorf("samples %+v, want one of tar", r.Samples)
	}
	if len(r.Skipped) != 1 || r.Skipped[0].System != bench.Lamina || !strings.Contains(r.Skipped[0].Why, "bin/lamina: no such file") {
		t.Errorf("skipped %+v", r.Skipped)
	}
	nothingLeft(t, dir, "out")
}

// Requests are counted also where the path to the mount has a symbolic link in it.
func TestRequestsBelowALink(t *testing.T) {
	needRoot(t)
	dir := open(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	_, complaints, code := call(t, nil, "run", "--scale", "tiny", "--reps", "1", "--dir", link, "--out", dir+"/out", "--systems", "laminafs", "--workloads", "walk-cold")
	r, err := report.Load(dir + "/out/report.json")
	if err != nil || code != 0 {
		t.Fatalf("exit status %d, error %v:\n%s", code, err, complaints)
	}
	if len(r.Samples) != 1 || r.Samples[0].Requests["READDIRPLUS"] == 0 {
		t.Errorf("samples %+v, want one with requests", r.Samples)
	}
}

// A slash in an option does not make a system somebody else's.
func TestRegressionWithAPathAmongOptions(t *testing.T) {
	named := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), `"laminafs"`, `"laminafs:metrics=unix:/run/metrics"`))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before := named(reportFile(t, "before.json", 100, 101, 99, 100, 102, 98))
	after := named(reportFile(t, "after.json", 200, 201, 199, 200, 202, 198))
	for ours, want := range map[string]int{"lamina*": exitWorse, "laminafs:metrics=unix:/run/*": exitWorse, "laminafs": 0} {
		if out, complaints, code := call(t, nil, "compare", "--ours", ours, before, after); code != want {
			t.Errorf("--ours %s: exit status %d, want %d:\n%s%s", ours, code, want, out, complaints)
		}
	}
}
