package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/bench"
	"github.com/laminafs/lamina/bench/report"
	"github.com/laminafs/lamina/runtime/idmap"
)

// A stage is a process that measures a part of a plan. It is this program again.
//
// In namespaces it is the first process of its own: when it ends, or is killed, the kernel kills all others, and the mounts end
// with the last of them. It is killed when the process dies that started it.
//
// It is in a session of its own, so that ^C is not seen by the programs that do the work. Who started it sends it SIGTERM; then
// it leaves a report of what is complete, and ends without another word.
type stage struct {
	Plan              *plan
	Unions, Launchers bool
	Namespaces        bool
	Result            string // file for the report
}

// envStage carries a stage to its process.
const envStage = "_LAMINA_BENCH_STAGE"

// stageLimit is how long a stage may take to end. It writes a file and exits.
const stageLimit = 20 * time.Second

// run starts the process, waits for it and adds what it has found to r. When ctx ends, that is what was complete by then.
func (s stage) run(ctx context.Context, id *idmap.Identity, r *report.Report) (err error) {
	if ctx.Err() != nil {
		r.Interrupted = 1 // in the first repetition of this stage
		return nil
	}
	s.Result = s.Plan.Scratch.path("result.json")
	told, err := json.Marshal(s)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path: self, Args: os.Args, Env: append(os.Environ(), envStage+"="+string(told)),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setsid: true},
	}
	const flags = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	switch {
	case !s.Namespaces:
		var end func() error
		if end, err = bench.Adopt(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end(), unmountBelow(s.Plan.Scratch.Dir)) }()
		err = cmd.Start()
	case id.Kind == idmap.Root:
		cmd.SysProcAttr.Cloneflags = flags
		err = cmd.Start()
	default:
		err = idmap.Start(cmd, id.UIDs, id.GIDs, flags)
	}
	if err != nil {
		return fmt.Errorf("start in namespaces of its own: %w", err)
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		_ = cmd.Process.Signal(unix.SIGTERM) // it may just have ended
		select {
		case <-time.After(stageLimit):
			_ = cmd.Process.Kill() // as above
		case <-done:
		}
	}()
	err = cmd.Wait()
	close(done)
	if ctx.Err() != nil {
		if s.collect(r) != nil {
			r.Interrupted = 1 // it was in the middle of something that it cannot be interrupted in, or had not begun
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("the measuring process: %w", err)
	}
	return s.collect(r)
}

func (s *stage) collect(r *report.Report) error {
	more, err := report.Load(s.Result)
	if err != nil {
		return err
	}
	add(r, more)
	return os.Remove(s.Result)
}

// takeStage does the work of a stage if this process is one.
func takeStage() (code int, ours bool) {
	told, ours := os.LookupEnv(envStage)
	if !ours {
		return 0, false
	}
	if err := os.Unsetenv(envStage); err != nil {
		return status(err), true
	}
	var s stage
	if err := json.Unmarshal([]byte(told), &s); err != nil {
		return status(fmt.Errorf("%s: %w", envStage, err)), true
	}
	outlivePipes()
	return status(s.measure()), true
}

// measure is what the process of a stage does.
func (s *stage) measure() (err error) {
	if s.Namespaces {
		if err := enter(); err != nil {
			return err
		}
	}
	dir := s.Plan.Scratch.path(work)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(dir)) }()
	if err := s.runDir(dir); err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	defer progress.Close()
	suite, err := s.suite(dir, progress)
	if err != nil {
		return err
	}
	var once sync.Once // whoever comes first: the end, or a signal
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGTERM)
	go func() {
		<-ended
		once.Do(func() {
			if err := s.write(suite.Interrupted()); err != nil {
				os.Exit(status(err))
			}
			os.Exit(exitInterrupted) // with all processes and mounts, which are of our namespaces; or see run
		})
	}()
	r, err := suite.Run()
	if err != nil {
		return err
	}
	once.Do(func() { err = s.write(r) })
	return err
}

// write leaves a report for who has started us.
func (s *stage) write(r *report.Report) error {
	f, err := os.OpenFile(s.Result, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(r.Write(f), f.Close())
}

// enter makes the mounts of the new namespace our own, and has /proc show the new namespace's processes.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// runDir has servers tell of themselves where it goes with the run, also with one that is interrupted.
func (s *stage) runDir(dir string) error {
	if os.Getuid() == 0 && s.Launchers {
		return s.privateRunDirs()
	}
	path := filepath.Join(dir, "run")
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Setenv("XDG_RUNTIME_DIR", path)
}

// privateRunDirs are what our namespace sees of root's: where programs note things about processes, and no option says where.
func (s *stage) privateRunDirs() error {
	paths := []string{"/run/laminafs"}
	if slices.Contains(s.Plan.Systems, bench.Podman) {
		paths = append(paths, "/run/runc", "/run/netns")
	}
	for _, path := range paths {
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			continue // then the program cannot either, and goes elsewhere
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	return nil
}
