package sandbox

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// outside is a directory of the machine that nothing of a container may reach.
func outside(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sandbox-outside-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	write(t, dir+"/secret", "secret", 0o644)
	return dir
}

// unchanged fails if anything but the secret is in the directory.
func unchanged(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "secret" {
		t.Errorf("outside: %v, %v", entries, err)
	}
	if b, _ := os.ReadFile(dir + "/secret"); string(b) != "secret" {
		t.Errorf("outside: the file has %q", b)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func TestLinkInPlaceOfMountTarget(t *testing.T) {
	needRoot(t)
	out := outside(t)
	for _, target := range []string{out, "../../../../../../.." + out, "/proc/1/root" + out, "/proc/self/cwd" + out} {
		root := busybox(t)
		link(t, target, root+"/mnt")
		source := t.TempDir()
		write(t, source+"/file", "bound", 0o644)
		if err := os.Chmod(source, 0o755); err != nil {
			t.Fatal(err)
		}
		s := aSpec(root)
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/mnt", Type: "bind", Source: source, Options: []string{"rbind"}},
			specs.Mount{Destination: "/mnt/below", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/mnt/new/dir", Type: "tmpfs", Source: "tmpfs"})
		s.Process.Args = []string{"cat", "/mnt/file"}
		res, err := tryRun(t, Options{Spec: s})
		// A link of procfs is refused; any other leads somewhere in the container.
		if err == nil && res.out != "bound" || err != nil && !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v, %v", target, err, res)
		}
		unchanged(t, out)
	}
}

func TestDotDotInMountTarget(t *testing.T) {
	needRoot(t)
	out := outside(t)
	s := aSpec(busybox(t))
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/../../../../.." + out + "/x", Type: "tmpfs", Source: "tmpfs"})
	if got := sh(t, s, "grep -c ' "+out+"/x tmpfs' /proc/mounts; ls "+out); got != "1\nx\n" {
		t.Errorf("in the container: %q", got)
	}
	unchanged(t, out)
	for _, bad := range []string{"", "/", "/..", "/a/.."} {
		s.Mounts[len(s.Mounts)-1].Destination = bad
		if _, err := Create(Options{Self: static, Spec: s}); err == nil || !strings.Contains(err.Error(), "below /") {
			t.Errorf("target %q: %v", bad, err)
		}
	}
}

func TestMaskedPathIsLink(t *testing.T) {
	needRoot(t)
	out := outside(t)
	root := busybox(t)
	link(t, "../../../.."+out+"/secret", root+"/masked")
	link(t, "/etc", root+"/maskedDir")
	write(t, root+"/plain", "text", 0o644)
	link(t, "plain", root+"/other")
	s := aSpec(root)
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/masked", "/maskedDir", "/other", "/not/there", "/plain/not/there")
	s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/masked", "/bin")
	if got := sh(t, s, "cat /masked 2>/dev/null; ls /etc; cat /plain; touch /bin/new 2>/dev/null || echo refused"); got != "refused\n" {
		t.Errorf("seen through masks: %q", got)
	}
	unchanged(t, out)
	if b, err := os.ReadFile(root + "/plain"); err != nil || string(b) != "text" {
		t.Errorf("the masked file itself: %q, %v", b, err)
	}
}

// A /dev of the image's own, with something else for null: it is not what masks.
func TestMaskIsNotTheContainersNull(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	dev := t.TempDir()
	write(t, dev+"/null", "not null", 0o644)
	if err := os.Chmod(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, root+"/secret", "secret", 0o644)
	s := aSpec(root)
	s.Mounts = []specs.Mount{s.Mounts[0], {Destination: "/dev", Type: "bind", Source: dev, Options: []string{"bind"}}}
	s.Linux.MaskedPaths = []string{"/secret"}
	if got := sh(t, s, "cat /secret; stat -c %t:%T /secret"); got != "1:3\n" {
		t.Errorf("masked file: %q", got)
	}
}

func TestLeakedDirectoryAsCwd(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	// What a careless caller leaves open, below and above the descriptors that the container's process begins with.
	for range 40 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	// Every number, beyond the last of these too: one that is free is taken by the look at /proc/self/fd itself.
	for fd := range 60 {
		for _, proc := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/proc/1/fd/"} {
			s := aSpec(root, "sh", "-c", "ls; ls ../../../../..")
			s.Process.Cwd = fmt.Sprint(proc, fd)
			res, err := tryRun(t, Options{Spec: s})
			if err == nil {
				t.Errorf("%s: the command ran: %v", s.Process.Cwd, res)
			}
		}
	}
}

func TestOnlyThreeDescriptors(t *testing.T) {
	needRoot(t)
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	root := busybox(t)
	for _, init := range []bool{false, true} {
		s := aSpec(root, "sh", "-c", "echo /proc/self/fd/*; for f in /proc/1/fd/*; do readlink $f; done")
		res, err := tryRun(t, Options{Spec: s, Init: init})
		if err != nil {
			t.Fatal(err)
		}
		// 3 is the directory that the shell reads. The reaper has those of the Go runtime: a poller, the pipe that
		// wakes it, and the limits of the container's own cgroup.
		for line := range strings.Lines(res.out) {
			own := strings.HasPrefix(line, "pipe:") || strings.HasPrefix(line, "/dev/null") || strings.HasPrefix(line, "anon_inode:") ||
				fields(line) == "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3" ||
				init && strings.HasPrefix(line, "/sys/fs/cgroup/")
			if !own {
				t.Errorf("reaper %v: %q", init, line)
			}
		}
	}
}

func TestOwnExecutableCannotBeWritten(t *testing.T) {
	needRoot(t)
	idle := t.TempDir() + "/program" // one that runs is ETXTBSY anyway
	write(t, idle, "#!/bin/sh\n", 0o755)
	clone := func() (int, error) { return cloneReadonly(idle) }
	for name, open := range map[string]func() (int, error){"mount": clone, "memory": func() (int, error) { return copySealed(idle) }} {
		fd, err := open()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
			w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0)
			if err == nil {
				_, err = unix.Write(w, []byte("x"))
				_ = unix.Close(w)
			}
			if err != unix.EROFS && err != unix.EPERM {
				t.Errorf("%s: write through the descriptor: %v", name, err)
			}
		}
		_ = unix.Close(fd)
	}
}

func hash(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// A container with all capabilities attacks each of our processes that comes into it (CVE-2019-5736).
func TestContainerAttacksOurExecutable(t *testing.T) {
	needRoot(t)
	before := hash(t, roleBinary())
	root := busybox(t)
	attack := `while :; do for p in /proc/[0-9]*; do
		case $(readlink $p/exe) in /bin/busybox|"") continue;; esac
		( : >>$p/exe && echo 'echo owned' >$p/exe ) 2>>/tmp/refused && echo written >>/tmp/written
	done; done`
	s := aSpec(root, "sh", "-c", attack)
	all := ownCapNames(t)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	c, err := Create(Options{Self: static, Spec: s, Init: true}) // PID 1 is ours, for as long as the container lives
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		p, err := c.Exec(&specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Capabilities: s.Process.Capabilities}, [3]*os.File{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || st != 0 {
			t.Fatal(st, err)
		}
	}
	refused := filepath.Join(root, "tmp/refused")
	waitFor(t, "an attack", func() bool { st, err := os.Stat(refused); return err == nil && st.Size() > 0 })
	c.Delete()
	if b, err := os.ReadFile(root + "/tmp/written"); err == nil {
		t.Errorf("%s", b)
	}
	if after := hash(t, roleBinary()); after != before {
		t.Fatal("the executable was overwritten")
	}
}

// ownCapNames are all capabilities that this process can give.
func ownCapNames(t *testing.T) []string {
	t.Helper()
	have, err := ownPermitted()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, n := range capNumbers() {
		if have&(1<<n) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// The source is opened before anyone is told that there is a container, and never looked up again.
func TestBindSourceSwapped(t *testing.T) {
	needRoot(t)
	out := outside(t)
	dir := t.TempDir()
	source := dir + "/source"
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, source+"/file", "mine", 0o644)
	s := aSpec(busybox(t), "sh", "-c", "cat /mnt/file; cat /mnt/secret")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: source, Options: []string{"rbind"}})
	res, err := tryRun(t, Options{Spec: s, Joined: func(int) error {
		return errors.Join(os.Rename(source, dir+"/moved"), os.Symlink(out, source))
	}})
	if err != nil || res.out != "mine" {
		t.Errorf("%v, %v", err, res)
	}
	unchanged(t, out)
}

func TestOldRootIsGone(t *testing.T) {
	needRoot(t)
	for _, refuse := range []bool{false, true} {
		t.Run(fmt.Sprint("pivot_root refused: ", refuse), func(t *testing.T) {
			if refuse {
				t.Setenv(envRefusePivot, "1")
			}
			out := outside(t)
			root := busybox(t)
			// A second chroot without chdir is how a process leaves the first.
			script := `mkdir /tmp/jail; chroot /tmp/jail /bin/true 2>/dev/null; cd /; ls -d ../../.././` + out + ` 2>/dev/null && echo found
				cat /proc/self/mountinfo | wc -l; ls / | sort | head -1; cat /proc/1/root` + out + `/secret 2>/dev/null; true`
			got := sh(t, aSpec(root), script)
			if strings.Contains(got, "found") || strings.Contains(got, "secret") || !strings.Contains(got, "\nbin\n") {
				t.Errorf("%s", got)
			}
			unchanged(t, out)
		})
	}
}

// A process of ours in the container has all capabilities until it is the command: not even who may trace others in
// there may trace it, from its first instruction on.
func TestOurProcessesCannotBeTraced(t *testing.T) {
	needRoot(t)
	if static != "" {
		t.Skip("needs a static test binary: run the tests without the race detector")
	}
	if m, err := ownMap("/proc/self/uid_map"); err != nil || !maps(m, 1) {
		t.Skip("needs a range of ids")
	}
	if b, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err == nil && string(b) == "1\n" {
		t.Skip("needs fs.suid_dumpable to be other than 1")
	}
	t.Setenv(envTellDumpable, "1")
	errs, text := output(t)
	c, err := Create(Options{Self: static, Spec: aSpec(busybox(t), "sleep", "1000"), Stdio: [3]*os.File{nil, nil, errs}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := c.Exec(&specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}, [3]*os.File{nil, nil, errs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := p.Wait(); st != 0 || err != nil {
		t.Error(st, err)
	}
	c.Delete()
	if got := text(); got != "lamina-init dumpable 0 <nil>\nlamina-exec dumpable 0 <nil>\n" && got != "lamina-init dumpable 2 <nil>\nlamina-exec dumpable 2 <nil>\n" {
		t.Errorf("%q", got)
	}
}
