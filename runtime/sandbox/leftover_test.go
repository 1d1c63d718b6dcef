package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

func descriptors(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, n := range names {
		if target, err := os.Readlink(n); err == nil {
			open[filepath.Base(n)] = target
		}
	}
	return open
}

// threads is the number of this process's threads.
func threads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Containers that run, that fail at every stage, and that are never started leave no descriptor, mount or process.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	bad := func(change func(*specs.Spec)) *specs.Spec {
		s := aSpec(root, "true")
		change(s)
		return s
	}
	all := []*specs.Spec{
		aSpec(root, "true"),
		aSpec(root, "nothing"),
		bad(func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs"}) }),
		bad(func(s *specs.Spec) { s.Mounts = append(s.Mounts, bindMount("/x", "/no/such", "bind")) }),
		bad(func(s *specs.Spec) { s.Process.Cwd = "/etc/passwd" }),
		bad(func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 2 }),
		bad(func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.no.such": "1"} }),
		bad(func(s *specs.Spec) { s.Process.Terminal = true }),
	}
	once := func() {
		for _, s := range all {
			_, _ = tryRun(t, Options{Spec: s})
		}
		c, err := Create(Options{Self: static, Spec: aSpec(root, "true")})
		if err != nil {
			t.Fatal(err)
		}
		c.Delete()
		c.Delete()
	}
	once()
	before, threadsBefore := descriptors(t), threads(t)
	for range 3 {
		once()
	}
	// What waits for a container's end is closed when that is known, a moment later.
	waitFor(t, fmt.Sprintf("no descriptors but %v", before), func() bool { return len(descriptors(t)) <= len(before) })
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), root) {
		t.Errorf("%v; mounted on the rootfs:\n%s", err, mounts)
	}
	waitFor(t, "threads of containers end", func() bool { return threads(t) <= threadsBefore+8 }) // some are the Go runtime's; were they kept, there would be 27
	children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if len(children) > 0 {
		t.Errorf("children: %s", children)
	}
}

func TestManyAtOnce(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := aSpec(root, "sh", "-c", fmt.Sprintf("echo $$; exit %d", i))
			res, err := tryRun(t, Options{Spec: s, Init: i%4 == 0})
			if err != nil || res.status.ExitStatus() != i {
				t.Errorf("container %d: %v, %v", i, err, res)
			}
		}()
	}
	wg.Wait()
}

// envHolder has the test binary hold a container, and be killed.
const (
	envHolder     = "SANDBOX_TEST_HOLDER"      // what the container is to be when that happens
	envHolderRoot = "SANDBOX_TEST_HOLDER_ROOT" // its rootfs, which the holder cannot remove any more
)

func TestContainerEndsWithItsParent(t *testing.T) {
	needRoot(t)
	if root := os.Getenv(envHolderRoot); root != "" {
		s := aSpec(root, "sleep", "1000")
		m, _ := ownMap("/proc/self/uid_map")
		if maps(m, 1000) {
			s.Process.User.UID = 1000 // a change of ids clears the signal
		}
		c, err := Create(Options{Self: static, Spec: s})
		if err != nil {
			t.Fatal(err)
		}
		if os.Getenv(envHolder) == "started" {
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Println("pid", c.Pid())
		select {}
	}
	root := busybox(t)
	for _, state := range []string{"created", "started"} {
		cmd := exec.Command(selfPath(), "-test.run=^TestContainerEndsWithItsParent$")
		cmd.Env = append(os.Environ(), envHolder+"="+state, envHolderRoot+"="+root, envStatic+"="+static)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid ")))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		waitFor(t, state+" container ends", func() bool {
			stat := sys.ProcStat(pid) // whose init may take its time to reap
			return stat == nil || sys.Exiting(stat)
		})
	}
}

// Joined is called when the cgroup can be changed and the namespace is not made yet: the container sees its cgroup
// as the root.
func TestCgroupNamespace(t *testing.T) {
	needRoot(t)
	var dir string
	for _, base := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		d := fmt.Sprintf("%s/sandbox-test-%d", base, os.Getpid())
		var st unix.Statfs_t
		if unix.Statfs(base, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC && os.Mkdir(d, 0o755) == nil {
			dir = d
			break
		}
	}
	if dir == "" {
		if initNamespace(false) {
			t.Skip("needs a version 2 hierarchy of cgroups")
		}
		return // an ordinary user has no cgroup to make here; the root of the machine tests it
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	o := Options{Spec: aSpec(busybox(t), "sh", "-c", "grep ^0: /proc/self/cgroup; find /sys/fs/cgroup -name sandbox-test-* | wc -l; ls -d /sys/fs/cgroup/unified/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | wc -l")}
	join := func(pid int) error { return os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0o644) }
	o.Joined = join
	res, err := tryRun(t, o)
	if err != nil || res.out != "0::/\n0\n1\n" {
		t.Errorf("%v, %v", err, res)
	}
	// Without a namespace the mount shows nothing but the own cgroup either.
	without(o.Spec, specs.CgroupNamespace)
	o.Spec.Process.Args = []string{"sh", "-c", "find /sys/fs/cgroup -name sandbox-test-* | wc -l; grep -c . /sys/fs/cgroup/unified/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null"}
	if res, err = tryRun(t, o); err != nil || !strings.HasPrefix(res.out, "0\n") || strings.TrimSpace(res.out) == "0" {
		t.Errorf("%v, %v", err, res)
	}
}
