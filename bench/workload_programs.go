package bench

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"os/exec"
	"syscall"
)

func programWork() []Workload {
	rootfs := (*Fixtures).RootfsLayers
	return []Workload{
		onUnion(programs, "compile", "go build of gofmt (at smaller scales of a package of the library); toolchain, sources, build cache and result are all in the union", 1.0,
			unionWork{layers: (*Fixtures).Toolchain, writes: true, run: compile, left: compiled}),
		onUnion(programs, "exec-storm", "1,000 times: /bin/true of a Debian system is executed there", 0,
			unionWork{layers: rootfs, run: execStorm}),
		onUnion(programs, "rootfs-walk", "stat of every object of a Debian system, cold", 1.5, unionWork{layers: rootfs, run: onTree(walk)}),
		onUnion(programs, "rootfs-read", "every file of it is read, cold", 2.0, unionWork{layers: rootfs, run: onTree(readAll)}),
		onUnion(programs, "rootfs-verify", "its own dpkg --verify, which reads what packages own, cold", 0,
			unionWork{layers: rootfs, prepare: needDpkg, run: verify}),
		onUnion(programs, "rootfs-rm", "rm -rf of its /usr", 2.5, unionWork{
			layers: rootfs, writes: true, left: all,
			run: func(j *job) (string, error) { return "", run("rm", "-rf", j.path("usr")) },
		}),
	}
}

// compile builds with nothing but what is in the tree.
func compile(j *job) (string, error) {
	for _, dir := range []string{"cache", "tmp", "out"} {
		if err := os.Mkdir(j.path(dir), 0o755); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(j.path("bin/go"), "build", "-trimpath", "-buildvcs=false", "-o", j.path("out/program"), j.f.buildTarget())
	cmd.Dir = j.path("src")
	// Without a home it counts nothing there, behind our back.
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "GOROOT=" + j.dir, "GOCACHE=" + j.path("cache"), "GOTMPDIR=" + j.path("tmp"),
		"GOPATH=" + j.path("tmp"), "GOTOOLCHAIN=local", "GOPROXY=off", "GOENV=off", "CGO_ENABLED=0", "GO111MODULE=off",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w: %s", err, tail(out))
	}
	return "", err
}

// compiled is a sum of what was built.
func compiled(j *job) ([]string, error) {
	_, sum, err := contentSum(j.path("out/program"), make([]byte, blockSize))
	return []string{fmt.Sprintf("program %016x", sum)}, err
}

// inside runs a program of the tree, with the tree as its root.
func inside(j *job, argv ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: argv[0], Args: argv, Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: j.dir}
	return cmd
}

func execStorm(j *job) (string, error) {
	n := j.f.count(1_000)
	for range n {
		if err := inside(j, "/bin/true").Run(); err != nil {
			return "", fmt.Errorf("/bin/true: %w", err)
		}
	}
	return fmt.Sprintf("%d times", n), nil
}

// needDpkg is for a rootfs that is not Debian's.
func needDpkg(j *job) error {
	if !exists(j.path("usr/bin/dpkg")) {
		return absentError{errors.New("the rootfs has no dpkg")}
	}
	return nil
}

// verify returns what dpkg has to say, which is about what was left out.
func verify(j *job) (string, error) {
	out, err := inside(j, "/usr/bin/dpkg", "--verify").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil // something differs from its package, as it may
	}
	if err != nil {
		err = fmt.Errorf("dpkg --verify: %w: %s", err, tail(out))
	}
	return fmt.Sprintf("%d bytes, sum %016x", len(out), maphash.Bytes(seed, out)), err
}
