package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LaunchSuite measures lamina beside those that do the same: starting a container, and loading an image.
//
// Everything is made anew in directories of its own, the stores of the peers included. What somebody does is looked at
// before its time counts: exit status and output of a container, names, types, modes, owners, times, link targets and
// content of each layer of an image.
type LaunchSuite struct {
	Bin      string         // directory with lamina and laminafs
	Callers  []Caller       // each with all samples
	Match    *regexp.Regexp // only the workloads whose name matches; nil for all
	Rounds   int
	Fixtures *Fixtures // Scale is of the loaded images' size
	Progress io.Writer // a line for each workload of a round
}

// A Caller is who calls lamina and its peers.
type Caller struct {
	Name     string
	UID, GID uint32
}

// Launch is what a LaunchSuite has found.
type Launch struct {
	Rounds  int
	Scale   float64
	Images  []LaunchImage
	Samples []LaunchSample
	Skipped []Skip

	places []*launchEnv // to be removed
}

// LaunchImage is an image that was loaded.
type LaunchImage struct {
	Name                   string
	Bytes, Layers, Objects int64
}

// A LaunchSample is one container, or one load.
type LaunchSample struct {
	Caller, Workload, System string
	Round                    int

	Wall time.Duration // from the start of the command to its end
	CPU  time.Duration // of it and all that it left running, up to the end of that
	Peak int64         // largest resident set of one of the processes, in bytes
}

// A Skip is somebody who cannot be had here, and why.
type Skip struct{ Caller, Workload, System, Why string }

// A launchTask is one system doing one workload for one caller.
type launchTask struct {
	workload, system string

	// prepare makes what is there before, and looks at whether the result is right.
	prepare func(e *launchEnv) error

	// reset gives each sample the same to begin with; check looks at what it has made. Either may be nil.
	reset, check func(e *launchEnv) error

	run func(e *launchEnv) error
}

// launchEnv is where a task of a caller is done.
type launchEnv struct {
	caller Caller
	dir    string // the task's own, and its caller's
	bin    string
	peak   int64 // of the commands since it was reset, in bytes
}

// Run takes all samples. A peer that does not work is skipped; lamina that does not is an error.
func (s *LaunchSuite) Run() (_ *Launch, err error) {
	l := &Launch{Rounds: s.Rounds, Scale: s.Fixtures.Scale}
	if err := os.Chmod(s.Fixtures.Dir, 0o755); err != nil { // for callers that are not root
		return nil, err
	}
	bin := filepath.Join(s.Fixtures.Dir, "bin")
	if err := run("cp", "-RL", s.Bin, bin); err != nil {
		return nil, err
	}
	tasks, err := s.tasks(l)
	if err != nil {
		return nil, err
	}
	o, err := adopt()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	for i, c := range s.Callers {
		dir := filepath.Join(s.Fixtures.Dir, fmt.Sprintf("caller%d", i))
		err := errors.Join(s.measure(l, c, bin, dir, tasks, o), o.kill())
		for _, e := range l.places {
			err = errors.Join(err, e.remove())
		}
		if err != nil {
			return nil, fmt.Errorf("as %s: %w", c.Name, err)
		}
	}
	return l, nil
}

// tasks are all that there are, those of a workload in a row.
func (s *LaunchSuite) tasks(l *Launch) ([][]launchTask, error) {
	small, err := s.Fixtures.busyboxImage()
	if err != nil {
		return nil, err
	}
	all := [][]launchTask{
		runTasks(small, RunTrue, noNetwork),
		runTasks(small, RunTrueNet, userNetwork),
	}
	for _, mb := range []int{50, 500} {
		if !s.wants(loadName(mb)) {
			continue
		}
		image, err := s.Fixtures.realImage(mb)
		if err != nil {
			return nil, err
		}
		l.Images = append(l.Images, image.LaunchImage)
		all = append(all, loadTasks(image))
	}
	return slices.DeleteFunc(all, func(tasks []launchTask) bool { return !s.wants(tasks[0].workload) }), nil
}

func (s *LaunchSuite) wants(workload string) bool {
	return s.Match == nil || s.Match.MatchString(workload)
}

// measure takes the samples of one caller.
func (s *LaunchSuite) measure(l *Launch, c Caller, bin, dir string, all [][]launchTask, o *orphans) error {
	if err := makeOwned(dir, c); err != nil {
		return err
	}
	type ready struct {
		launchTask
		e *launchEnv
	}
	var workloads [][]ready
	for i, tasks := range all {
		var list []ready
		for j, t := range tasks {
			fmt.Fprintf(s.Progress, "as %s: %s: trying %s\n", c.Name, t.workload, t.system)
			// Short names: sockets are made below them.
			e := &launchEnv{caller: c, dir: filepath.Join(dir, fmt.Sprintf("%d%d", i, j)), bin: bin}
			l.places = append(l.places, e)
			err := makeOwned(e.dir, c)
			if err == nil {
				err = t.prepare(e)
			}
			switch {
			case err == nil:
				list = append(list, ready{t, e})
			case t.system == Lamina:
				return fmt.Errorf("%s: %w", t.workload, err)
			default:
				l.Skipped = append(l.Skipped, Skip{c.Name, t.workload, t.system, err.Error()})
			}
			o.reap()
		}
		workloads = append(workloads, list)
	}
	for round := range s.Rounds {
		for _, list := range workloads {
			fmt.Fprintf(s.Progress, "as %s: round %d of %d: %s\n", c.Name, round+1, s.Rounds, list[0].workload)
			for i := range list {
				t := list[(i+round)%len(list)]
				sample, err := t.measure(t.e, o)
				if err != nil {
					return fmt.Errorf("%s by %s: %w", t.workload, t.system, err)
				}
				sample.Round = round
				l.Samples = append(l.Samples, sample)
			}
		}
	}
	return nil
}

// measure takes one sample.
func (t *launchTask) measure(e *launchEnv, o *orphans) (s LaunchSample, err error) {
	if t.reset != nil {
		if err := t.reset(e); err != nil {
			return s, err
		}
	}
	o.reap()
	e.peak = 0
	before, err := childrenCPU()
	if err != nil {
		return s, err
	}
	start := time.Now()
	err = t.run(e)
	s.Wall = time.Since(start)
	if err != nil {
		return s, err
	}
	o.reap()
	after, err := childrenCPU()
	if err != nil {
		return s, err
	}
	s.Caller, s.Workload, s.System = e.caller.Name, t.workload, t.system
	s.CPU, s.Peak = after-before, e.peak
	if t.check != nil {
		err = t.check(e)
	}
	return s, err
}

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
	return os.RemoveAll(e.dir)
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
	// Files: a pipe would be waited for while anybody has it.
	var files [2]*os.File
	for i := range files {
		if files[i], err = os.CreateTemp("", "lamina-bench-"); err != nil {
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
