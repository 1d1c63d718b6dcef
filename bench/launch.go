package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench/report"
)

// A launchWork is a workload of launchers: starting a container, or loading an image.
//
// Everything is made anew in directories of its own, the stores of the peers included. What somebody does is looked at
// before its time counts: exit status and output of a container, names, types, modes, owners, times, link targets and
// content of each layer of an image. CPU time is that of all processes, those included that outlive the command.
type launchWork struct {
	caller Caller
	tasks  []launchTask
}

// A Caller is who calls lamina and its peers.
type Caller struct {
	Name     string
	UID, GID uint32
}

// A launchTask is one system doing the workload. Each function but run may be nil.
type launchTask struct {
	system  string
	prepare func(e *launchEnv) error // makes what is there before, and looks at whether the result is right
	reset   func(e *launchEnv) error // gives each sample the same to begin with
	run     func(e *launchEnv) error
	check   func(e *launchEnv) error // looks at what was made
}

// launchEnv is where a task of a caller is done.
type launchEnv struct {
	f      *Fixtures
	caller Caller
	dir    string // the task's own, and its caller's
	bin    string
	peak   int64 // of the commands since it was reset, in bytes
}

// launchTrial is a system doing a launchWork.
type launchTrial struct {
	launchTask
	e *launchEnv
}

var _ trial = (*launchTrial)(nil)

func (w *launchWork) newTrial(_ string, f *Fixtures, sys System) (trial, error) {
	for _, task := range w.tasks {
		if task.system == sys.Name {
			return task.newTrial(f, w.caller)
		}
	}
	return nil, absentError{errors.New("it does no such thing")}
}

func (t launchTask) newTrial(f *Fixtures, caller Caller) (_ trial, err error) {
	bin, err := f.sharedBin()
	if err != nil {
		return nil, absentError{err}
	}
	if f.orphans == nil {
		if f.orphans, err = adopt(); err != nil {
			return nil, err
		}
	}
	f.places++
	// Short names: sockets are made below them.
	e := &launchEnv{f: f, caller: caller, bin: bin, dir: filepath.Join(f.Dir, fmt.Sprintf("c%d", f.places))}
	if err := makeOwned(e.dir, caller); err != nil {
		return nil, absentError{err}
	}
	err = t.prepare(e)
	f.orphans.reap()
	if err != nil {
		return nil, errors.Join(absentError{err}, e.remove())
	}
	return &launchTrial{t, e}, nil
}

// sharedBin has our programs where every caller can get at them: as they are installed, with what lamina looks for beside
// itself.
func (f *Fixtures) sharedBin() (string, error) {
	if err := os.Chmod(f.Dir, 0o755); err != nil {
		return "", err
	}
	return f.make("bin", func(dir string) error {
		for _, name := range []string{Lamina, Laminafs, "lamina-monitor", "lamina-init"} {
			path := filepath.Join(f.Bin, name)
			if !exists(path) {
				continue // who cannot do without says so
			}
			if err := run("cp", "-L", path, dir); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *launchTrial) begin() error {
	if t.reset == nil {
		return nil
	}
	return t.reset(t.e)
}

func (t *launchTrial) run() error { return t.launchTask.run(t.e) }

func (t *launchTrial) check() error {
	if t.launchTask.check == nil {
		return nil
	}
	return t.launchTask.check(t.e)
}

func (t *launchTrial) end() error   { return nil }
func (t *launchTrial) close() error { return t.e.remove() }

// gauges waits for what the command has left behind: it is part of the price.
func (t *launchTrial) gauges() (g gauges, err error) {
	t.e.f.orphans.reap()
	g.client, err = usage(unix.RUSAGE_CHILDREN)
	return g, err
}

func (t *launchTrial) requests() (map[string]int64, error) { return nil, nil }

func (t *launchTrial) took() time.Duration { return 0 }
func (t *launchTrial) objects() int64      { return 0 }

func (t *launchTrial) resetPeak() error {
	t.e.peak = 0
	return nil
}

func (t *launchTrial) memory() (*report.Memory, error) { return &report.Memory{Peak: t.e.peak}, nil }

// makeOwned makes a directory that is the caller's.
func makeOwned(dir string, c Caller) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Lchown(dir, int(c.UID), int(c.GID))
}

// remove removes what is there, with the mount that podman leaves over its store.
func (e *launchEnv) remove() error {
	_ = unix.Unmount(e.path("root/overlay"), unix.MNT_DETACH) // mostly it is none
	return e.f.remove(e.dir)
}

// path is below the task's directory.
func (e *launchEnv) path(name string) string { return filepath.Join(e.dir, name) }

// A result is what a command gave.
type result struct {
	out  string
	code int
}

// call runs a program as the caller. Only its exit status 0 is no error.
func (e *launchEnv) call(program string, args ...string) (string, error) {
	r, stderr, err := e.exec(program, args...)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", filepath.Base(program), r.code, strings.TrimSpace(stderr))
	}
	return r.out, err
}

func (e *launchEnv) exec(program string, args ...string) (r result, stderr string, err error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = e.dir
	cmd.Env = []string{
		"PATH=" + e.bin + ":" + os.Getenv("PATH"), "HOME=" + e.dir, "XDG_RUNTIME_DIR=" + e.dir, "TMPDIR=" + e.dir,
	}
	if int(e.caller.UID) != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: e.caller.UID, Gid: e.caller.GID}}
	}
	// Files: a pipe would be waited for while anybody has it. They are where an interrupted run leaves nothing.
	var files [2]*os.File
	for i := range files {
		if files[i], err = os.CreateTemp(e.f.Dir, "output-"); err != nil {
			return r, "", err
		}
		defer os.Remove(files[i].Name())
		defer files[i].Close()
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return r, "", err
	}
	r.code = cmd.ProcessState.ExitCode()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		e.peak = max(e.peak, u.Maxrss<<10) // KiB; with those that it has waited for
	}
	var text [2][]byte
	for i, f := range files {
		if text[i], err = os.ReadFile(f.Name()); err != nil {
			return r, "", err
		}
	}
	r.out = string(text[0])
	return r, string(bytes.TrimSpace(text[1])), nil
}
