package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The networks that containers get: none, or a user-mode one, which is a process of its own.
const (
	noNetwork   = "none"
	userNetwork = "user"
)

// runner runs a command in a new container.
type runner func(e *launchEnv, command ...string) (result, error)

// runTasks are those of a workload that runs `true` in a container.
func runTasks(network string) []launchTask {
	var image *smallImage // made when the first prepares
	task := func(system string, have func(e *launchEnv) error, start runner) launchTask {
		return launchTask{
			system: system,
			prepare: func(e *launchEnv) (err error) {
				if image == nil {
					if image, err = e.f.busyboxImage(); err != nil {
						return err
					}
				}
				if err := have(e); err != nil {
					return err
				}
				return tryRunner(e, start)
			},
			run: func(e *launchEnv) error {
				r, err := start(e, "true")
				if err == nil && r != (result{}) {
					err = fmt.Errorf("exit status %d, output %q", r.code, r.out)
				}
				return err
			},
		}
	}
	private := map[string]string{noNetwork: "none", userNetwork: "private"}[network]
	slirp := map[string]string{noNetwork: "none", userNetwork: "slirp4netns"}[network]
	tasks := []launchTask{
		task(Lamina, func(e *launchEnv) error {
			_, err := e.lamina("load", "-q", "-i", image.archive)
			return err
		}, func(e *launchEnv, command ...string) (result, error) {
			return e.outcome("lamina", append(e.laminaFlags("run", "--rm", "--network", private, image.tag), command...))
		}),
		task(Podman, func(e *launchEnv) error {
			_, err := e.podman("load", "-q", "-i", image.archive)
			return err
		}, func(e *launchEnv, command ...string) (result, error) {
			flags := append([]string{"run", "--rm", "--log-driver=k8s-file", "--network=" + slirp}, ourLimits()...)
			return e.outcome("podman", append(e.podmanFlags(append(flags, image.tag)...), command...))
		}),
	}
	if network != noNetwork {
		return tasks // the others know of none
	}
	return append(tasks,
		task(Runc, func(e *launchEnv) error { return e.makeBundle() },
			func(e *launchEnv, command ...string) (result, error) { return e.runBundle(image.rootfs, command) }),
		task(Bwrap, func(*launchEnv) error { return nil }, func(e *launchEnv, command ...string) (result, error) {
			flags := []string{"--bind", image.rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent",
				"--clearenv", "--setenv", "PATH", "/bin"}
			return e.outcome("bwrap", append(flags, command...))
		}),
	)
}

// tryRunner looks at whether output and exit status of a container come out.
func tryRunner(e *launchEnv, start runner) error {
	got, err := start(e, "sh", "-c", "echo here; exit 7")
	if want := (result{"here\n", 7}); err == nil && got != want {
		err = fmt.Errorf("it gave %+v, not %+v", got, want)
	}
	return err
}

// outcome runs a program whose exit status is the container's. Messages of its own are an error.
func (e *launchEnv) outcome(program string, args []string) (result, error) {
	path, err := e.find(program)
	if err != nil {
		return result{}, err
	}
	r, stderr, err := e.exec(path, args...)
	if err == nil && r.code != 0 && stderr != "" {
		err = fmt.Errorf("%s: exit status %d: %s", program, r.code, stderr)
	}
	return r, err
}

// find is the path of a program: ours, or one of $PATH.
func (e *launchEnv) find(program string) (string, error) {
	if path := filepath.Join(e.bin, program); exists(path) {
		return path, nil
	}
	return exec.LookPath(program)
}

func (e *launchEnv) lamina(args ...string) (string, error) {
	return e.call(filepath.Join(e.bin, "lamina"), e.laminaFlags(args...)...)
}

func (e *launchEnv) laminaFlags(args ...string) []string {
	return append([]string{"--root", e.path("root"), "--runroot", e.path("run")}, args...)
}

func (e *launchEnv) podman(args ...string) (string, error) {
	path, err := e.find("podman")
	if err != nil {
		return "", err
	}
	return e.call(path, e.podmanFlags(args...)...)
}

// podmanFlags have podman use the kernel's overlayfs, nothing outside of our directory, and no service of systemd.
func (e *launchEnv) podmanFlags(args ...string) []string {
	return append([]string{
		"--root", e.path("root"), "--runroot", e.path("run"), "--tmpdir", e.path("tmp"), "--storage-driver=overlay",
		"--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=none",
	}, args...)
}

// ourLimits keep podman from raising limits, which not every root may do.
func ourLimits() (flags []string) {
	for name, which := range map[string]int{"nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC} {
		var l unix.Rlimit
		if unix.Getrlimit(which, &l) == nil {
			n := min(l.Max, 4096)
			flags = append(flags, fmt.Sprintf("--ulimit=%s=%d:%d", name, n, n))
		}
	}
	return flags
}

// makeBundle writes runc's own specification.
func (e *launchEnv) makeBundle() error {
	runc, err := e.find("runc")
	if err != nil {
		return err
	}
	args := []string{"spec"}
	if e.caller.UID != 0 {
		args = append(args, "--rootless")
	}
	_, err = e.call(runc, args...)
	return err
}

// runBundle is what lamina does, by hand: directories, union mount, container, unmount.
func (e *launchEnv) runBundle(rootfs string, command []string) (r result, err error) {
	if err := e.setCommand(command); err != nil {
		return r, err
	}
	layers := e.path("layers")
	for _, dir := range []string{layers, layers + "/merged", layers + "/upper", layers + "/work"} {
		if err := makeOwned(dir, e.caller); err != nil {
			return r, err
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%[2]s/work", rootfs, layers)
	if _, err := e.call(filepath.Join(e.bin, "laminafs"), "-o", opts, layers+"/merged"); err != nil {
		return r, err
	}
	r, err = e.outcome("runc", []string{"--root", e.path("runc"), "run", e.runcID()})
	if e := e.unmount(layers + "/merged"); err == nil {
		err = e
	}
	return r, errors.Join(err, os.RemoveAll(layers))
}

func (e *launchEnv) unmount(dir string) error {
	if e.caller.UID == 0 {
		return os.NewSyscallError("unmount "+dir, unix.Unmount(dir, 0))
	}
	path, err := e.find("fusermount3")
	if err == nil {
		_, err = e.call(path, "-u", dir)
	}
	return err
}

// setCommand puts the command into the bundle's specification.
func (e *launchEnv) setCommand(command []string) error {
	text, err := os.ReadFile(e.path("config.json"))
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return errors.New("runc spec wrote no process")
	}
	process["terminal"], process["args"] = false, command
	process["env"] = []string{"PATH=/bin"}
	spec["root"] = map[string]any{"path": e.path("layers/merged")}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(e.path("config.json"), text, 0o644)
}
