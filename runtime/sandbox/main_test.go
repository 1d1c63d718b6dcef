package sandbox

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// static is the executable that containers begin with: empty for the test binary itself, if it is static as lamina is.
// Under the race detector it is not, and testdata/child takes its place.
var static = os.Getenv(envStatic)

// envStatic hands it on to a test binary that a test starts.
const envStatic = "SANDBOX_TEST_STATIC"

func TestMain(m *testing.M) {
	Main()
	if os.Args[0] == asUser {
		os.Exit(runAsUser())
	}
	code := 1
	cleanup, err := makeStatic()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	cleanup()
	os.Exit(code)
}

func makeStatic() (cleanup func(), err error) {
	cleanup = func() {}
	self, err := elf.Open(selfPath())
	if err != nil {
		return cleanup, err
	}
	defer self.Close()
	dynamic := slices.ContainsFunc(self.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if !dynamic || static != "" {
		return cleanup, nil
	}
	dir, err := os.MkdirTemp("/tmp", "sandbox-child-")
	if err != nil {
		return cleanup, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	static = filepath.Join(dir, "child")
	build := exec.Command("go", "build", "-o", static, "./testdata/child")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return cleanup, fmt.Errorf("build the executable of containers: %w\n%s", err, out)
	}
	return cleanup, os.Chmod(dir, 0o755)
}

// roleBinary is the file that our processes in a container execute.
func roleBinary() string {
	if static != "" {
		return static
	}
	return selfPath()
}

// needRoot skips: the package's callers are root of some user namespace. TestAsOrdinaryUser runs the others in one.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs user 0, of the machine or of a user namespace")
	}
}

// busybox makes a rootfs out of a static busybox, below a directory that every user can walk.
func busybox(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (package busybox-static)")
	}
	dir, err := os.MkdirTemp("/tmp", "sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "bin/busybox"), string(b), 0o755)
	for _, applet := range []string{
		"sh", "true", "false", "cat", "ls", "echo", "sleep", "id", "mount", "umount", "hostname", "kill", "readlink", "stat",
		"test", "touch", "mkdir", "mknod", "stty", "tty", "ps", "grep", "head", "wc", "env", "pwd", "dd", "chmod", "awk", "ln", "rm",
		"chroot", "find", "unshare", "setsid", "dirname", "basename", "sort", "df", "nc",
	} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\n", 0o644)
	return root
}

func write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// dockerCaps are Docker's 14.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// aSpec is a container as Docker would describe it, with the rootfs.
func aSpec(root string, args ...string) *specs.Spec {
	return &specs.Spec{
		Root:     &specs.Root{Path: root},
		Hostname: "box",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.CgroupNamespace},
			},
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// nested has the container in a user namespace of its own, with as many ids as there are.
func nested(t *testing.T, s *specs.Spec) *specs.Spec {
	t.Helper()
	m, err := ownMap("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	last := m[len(m)-1]
	size := min(1000, last.Size)
	if size < 100 {
		t.Skip("needs a range of ids")
	}
	one := []specs.LinuxIDMapping{{ContainerID: 0, HostID: last.ContainerID + last.Size - size - 1, Size: size}}
	if last.Size == 1<<32-1 {
		one[0].HostID = 200000
	}
	s.Linux.UIDMappings, s.Linux.GIDMappings = one, one
	return s
}

// A result is what a container leaves.
type result struct {
	out, err string
	status   unix.WaitStatus
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d, signal %v\n%s%s", r.status.ExitStatus(), r.status.Signal(), r.out, r.err)
}

// output is a file that somebody writes to, and the test reads.
func output(t *testing.T) (*os.File, func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.ReadFrom(r)
	}()
	return w, func() string {
		_ = w.Close()
		<-done
		_ = r.Close()
		return b.String()
	}
}

// tryRun runs the container to its end.
func tryRun(t *testing.T, o Options) (result, error) {
	t.Helper()
	out, outText := output(t)
	errs, errText := output(t)
	o.Self, o.Stdio[1], o.Stdio[2] = static, out, errs
	var res result
	c, err := Create(o)
	if err == nil {
		defer c.Delete()
		if err = c.Start(); err == nil {
			res.status, err = c.Wait()
		}
	}
	res.out, res.err = outText(), errText()
	return res, err
}

func run(t *testing.T, s *specs.Spec) result {
	t.Helper()
	needRoot(t)
	res, err := tryRun(t, Options{Spec: s})
	if err != nil {
		t.Fatalf("%v\n%v", err, res)
	}
	return res
}

// sh runs a script in a container and returns what it writes.
func sh(t *testing.T, s *specs.Spec, script string) string {
	t.Helper()
	s.Process.Args = []string{"/bin/sh", "-c", script}
	res := run(t, s)
	if res.status.ExitStatus() != 0 {
		t.Fatalf("%s: %v", script, res)
	}
	return res.out
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

func fields(s string) string { return strings.Join(strings.Fields(s), " ") }
