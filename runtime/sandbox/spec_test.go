package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/seccomp"
)

func bindMount(target, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}
}

// sourceTree is a directory with a tmpfs mounted below it, both with a file.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := outside(t)
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir+"/sub", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir+"/sub", unix.MNT_DETACH) })
	write(t, dir+"/sub/file", "deep", 0o644)
	return dir
}

func TestBinds(t *testing.T) {
	needRoot(t)
	src := sourceTree(t)
	root := busybox(t)
	for _, old := range []bool{false, true} {
		if old {
			t.Setenv(envRefuseSetattr, "1")
		}
		tests := []struct {
			name, script, want string
			mounts             []specs.Mount
		}{
			{"directory", "cat /mnt/secret; ls /mnt/sub; touch /mnt/new && rm /mnt/new && echo written", "secretwritten\n", []specs.Mount{bindMount("/mnt", src, "bind")}},
			{"recursive", "cat /mnt/secret /mnt/sub/file", "secretdeep", []specs.Mount{bindMount("/mnt", src, "rbind")}},
			{"file", "cat /etc/passwd", "secret", []specs.Mount{bindMount("/etc/passwd", src+"/secret", "bind", "ro")}},
			{"file on nothing", "cat /new/deep/file", "secret", []specs.Mount{bindMount("/new/deep/file", src+"/secret", "bind")}},
			{"read-only", "touch /mnt/new 2>/dev/null || echo refused", "refused\n", []specs.Mount{bindMount("/mnt", src, "bind", "ro")}},
			{"noexec", "grep -o 'mnt [^ ]*noexec' /proc/self/mountinfo | wc -l", "1\n", []specs.Mount{bindMount("/mnt", src, "bind", "noexec")}},
			{"read-only, not below", "touch /mnt/new 2>/dev/null || echo refused; touch /mnt/sub/new && rm /mnt/sub/new", "refused\n", []specs.Mount{bindMount("/mnt", src, "rbind", "ro", "ro-non-recursive")}},
		}
		if !old {
			tests = append(tests, struct {
				name, script, want string
				mounts             []specs.Mount
			}{"read-only, all below", "touch /mnt/sub/new 2>/dev/null || echo refused", "refused\n", []specs.Mount{bindMount("/mnt", src, "rbind", "ro")}})
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, old kernel %v", tt.name, old), func(t *testing.T) {
				s := aSpec(root)
				s.Mounts = append(s.Mounts, tt.mounts...)
				if got := sh(t, s, tt.script); got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
			})
		}
	}
}

func TestPropagation(t *testing.T) {
	needRoot(t)
	src := outside(t)
	if err := unix.Mount(src, src, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(src, unix.MNT_DETACH) })
	if err := unix.Mount("", src, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	root := busybox(t)
	for option, want := range map[string]string{"rshared": "shared:", "rslave": "master:", "rprivate": "", "slave": "master:", "": ""} {
		s := aSpec(root)
		s.Mounts = append(s.Mounts, bindMount("/mnt", src, "rbind", option))
		got := sh(t, s, `grep ' /mnt ' /proc/self/mountinfo | awk '{print $7}'`)
		if want == "" && strings.Contains(got, ":") || !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", option, got, want)
		}
	}
	// The container's own mounts are seen by nobody, its rootfs is as it is asked to be.
	for option, want := range map[string]string{"": "", "shared": "shared:", "rslave": "", "private": ""} {
		s := aSpec(root)
		s.Linux.RootfsPropagation = option
		got := sh(t, s, `grep ' / / ' /proc/self/mountinfo | awk '{print $7}'; awk '$5 == "/" {print $7}' /proc/self/mountinfo`)
		if want != "" && !strings.Contains(got, want) || want == "" && strings.Contains(got, ":") {
			t.Errorf("rootfs %q: %q", option, got)
		}
	}
}

func TestMountErrorsNameTheMount(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	file := root + "/etc/passwd"
	tests := []struct {
		m     specs.Mount
		says  []string
		errno unix.Errno
	}{
		{specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=large", "ro"}}, []string{"mount", "tmpfs tmpfs on /mnt (size=large,ro)", "size"}, unix.EINVAL},
		{specs.Mount{Destination: "/mnt", Type: "nosuchfs", Source: "none"}, []string{"nosuchfs none on /mnt"}, unix.ENODEV},
		{bindMount("/mnt", root+"/not/there", "rbind"), []string{"bind " + root + "/not/there on /mnt (rbind)"}, unix.ENOENT},
		{bindMount("/bin", file, "bind"), []string{"on /bin", "is a directory"}, unix.EISDIR},
		{bindMount("/etc/passwd", root+"/etc", "bind"), []string{"on /etc/passwd", "not a directory"}, unix.ENOTDIR},
		{bindMount("/etc/passwd/below", root+"/etc", "bind"), []string{"on /etc/passwd/below"}, unix.ENOTDIR},
		{bindMount("/mnt", "relative", "bind"), []string{"absolute"}, 0},
		{bindMount("/mnt", root, "bind", "size=1"), []string{"no option", "size=1"}, 0},
	}
	for _, tt := range tests {
		s := aSpec(root, "true")
		s.Mounts = append(s.Mounts, tt.m)
		_, err := tryRun(t, Options{Spec: s})
		if err == nil {
			t.Errorf("%v: no error", tt.m)
			continue
		}
		for _, say := range tt.says {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%v, want %q in it", err, say)
			}
		}
		if tt.errno != 0 && !errors.Is(err, tt.errno) {
			t.Errorf("%v, want %v", err, tt.errno)
		}
	}
}

func TestTmpfsAndDev(t *testing.T) {
	s := aSpec(busybox(t))
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run/x", Type: "tmpfs", Source: "mine", Options: []string{"size=64k", "mode=1711", "noexec", "nosuid", "nodev", "noatime"}})
	got := sh(t, s, `awk '$2 == "/run/x" {print $1, $3, $4}' /proc/mounts; stat -c %a /run/x /dev/shm; df -k /run/x | awk 'END {print $2}'
		for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done; for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done
		head -c 4 /dev/zero | wc -c; echo x 2>/dev/null >/dev/full || echo full; touch /dev/mqueue/q /dev/shm/s && echo made`)
	want := `mine tmpfs rw,nosuid,nodev,noexec,noatime,size=64k,mode=1711`
	if !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q first", got, want)
	}
	rest := got[strings.Index(got, "\n")+1:]
	if rest != "1711\n1777\n64\n/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\n"+
		"/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n4\nfull\nmade\n" {
		t.Errorf("%s", rest)
	}
}

func TestReadonlyRootfs(t *testing.T) {
	s := aSpec(busybox(t))
	s.Root.Readonly = true
	if got := sh(t, s, `touch /new 2>/dev/null || echo refused; touch /dev/shm/new && echo made`); got != "refused\nmade\n" {
		t.Errorf("%q", got)
	}
}

func TestMasks(t *testing.T) {
	s := aSpec(busybox(t))
	got := sh(t, s, `cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x 2>/dev/null || echo refused
		echo 1 2>/dev/null >/proc/sys/kernel/pid_max || echo refused; touch /sys/x 2>/dev/null || echo refused; mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused`)
	if got != "0\n0\nrefused\nrefused\nrefused\nrefused\n" {
		t.Errorf("%q", got)
	}
}

func TestNamesSysctlsAndLimits(t *testing.T) {
	s := aSpec(busybox(t))
	s.Domainname = "example.org"
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80", "kernel/msgmax": "9000"}
	domain := "example.org"
	if initNamespace(false) { // the kernel gives this one to no user namespace
		domain = "other.org"
		s.Linux.Sysctl["kernel.domainname"] = domain
	}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}, {Type: "RLIMIT_NPROC", Soft: 50, Hard: 60}}
	adj := 500
	s.Process.OOMScoreAdj = &adj
	umask := uint32(0o77)
	s.Process.User.Umask = &umask
	got := sh(t, s, `hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax
		ulimit -Sn; ulimit -Hn; ulimit -c; grep processes /proc/self/limits | awk '{print $3, $4}'; cat /proc/self/oom_score_adj; umask`)
	if got != "box\n"+domain+"\n80\n9000\n100\n200\n0\n50 60\n500\n0077\n" {
		t.Errorf("%q", got)
	}
}

// Without a limit in the specification the container has that of the process, not what the Go runtime made of it.
func TestInheritedNofile(t *testing.T) {
	needRoot(t)
	if os.Getenv("SANDBOX_TEST_NOFILE") != "" {
		fmt.Print(sh(t, aSpec(busybox(t)), "ulimit -Sn"))
		return
	}
	out, err := exec.Command("/bin/sh", "-c", `ulimit -S -n 234; SANDBOX_TEST_NOFILE=1 exec "$0" -test.run='^TestInheritedNofile$'`, selfPath()).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "234\n") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestRefusedSpecs(t *testing.T) {
	root := busybox(t)
	for says, change := range map[string]func(*specs.Spec){
		"the whole machine": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.pid_max": "5"} },
		"needs a network namespace": func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.x": "5"}
			without(s, specs.NetworkNamespace)
		},
		"needs a UTS namespace":      func(s *specs.Spec) { without(s, specs.UTSNamespace) },
		"a mount namespace":          func(s *specs.Spec) { without(s, specs.MountNamespace) },
		"process.args is empty":      func(s *specs.Spec) { s.Process.Args = nil },
		"not an absolute path":       func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		`unknown capability "CHOWN"`: func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CHOWN"} },
		`unknown limit "RLIMIT_X"`:   func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"above the hard one":         func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}} },
		"hooks":                      func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"SELinux":                    func(s *specs.Spec) { s.Process.SelinuxLabel = "x" },
		"must map user 0":            func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 5, Size: 1}} },
		"listed twice":               func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"namespace \"time\"": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		},
		"rootfs":                      func(s *specs.Spec) { s.Root.Path = "/no/such/rootfs" },
		"rootfs propagation \"loud\"": func(s *specs.Spec) { s.Linux.RootfsPropagation = "loud" },
		"seccomp profile":             func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "x"} },
	} {
		s := aSpec(root, "true")
		change(s)
		if _, err := Create(Options{Self: static, Spec: s}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func without(s *specs.Spec, kind specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func TestNamespacesOfOthers(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	first := aSpec(root, "sleep", "1000")
	c, err := Create(Options{Self: static, Spec: first})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kinds := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid"}
	s := aSpec(root)
	s.Hostname = ""
	var script string
	for i, n := range s.Linux.Namespaces {
		if file, ok := kinds[n.Type]; ok {
			s.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), file)
			script += "readlink /proc/self/ns/" + file + ";"
		}
	}
	got := strings.Fields(sh(t, s, script+"cat /proc/1/cmdline"))
	i := 0
	for _, n := range s.Linux.Namespaces {
		if _, ok := kinds[n.Type]; !ok {
			continue
		}
		if want, _ := os.Readlink(n.Path); got[i] != want || want == "" {
			t.Errorf("%s: %s, want %s", n.Type, got[i], want)
		}
		i++
	}
	if !strings.Contains(got[i], "sleep") {
		t.Errorf("PID 1 is %q", got[i])
	}
}

func TestHostNamespaces(t *testing.T) {
	needRoot(t)
	s := aSpec(busybox(t))
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.CgroupNamespace} {
		without(s, kind)
	}
	s.Hostname = ""
	want := ""
	for _, n := range []string{"net", "ipc", "uts", "pid", "cgroup"} {
		l, _ := os.Readlink("/proc/self/ns/" + n)
		want += l + "\n"
	}
	if got := sh(t, s, `for n in net ipc uts pid cgroup; do readlink /proc/self/ns/$n; done; ls -d /sys/class/net/lo`); got != want+"/sys/class/net/lo\n" {
		t.Errorf("%q, want %q", got, want)
	}
}

// status are the lines of /proc/self/status that say what a process may.
const statusScript = `grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups)' /proc/self/status`

func TestCredentials(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	m, err := ownMap("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if !maps(m, 1000) {
		t.Skip("needs a range of ids")
	}
	s := aSpec(root)
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1002, 1003}}
	s.Process.NoNewPrivileges = true
	got := sh(t, s, statusScript)
	for _, want := range []string{"Uid: 1000 1000 1000 1000", "Gid: 1001 1001 1001 1001", "Groups: 1002 1003", "CapInh: 0000000000000000",
		"CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 00000000a80425fb", "CapAmb: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 0"} {
		if !strings.Contains(fields(got), want) {
			t.Errorf("user 1000: no %q in\n%s", want, got)
		}
	}
	net := []string{"CAP_NET_RAW", "CAP_KILL"}
	s.Process.Capabilities.Inheritable, s.Process.Capabilities.Ambient = net, net
	if got := sh(t, s, statusScript); !strings.Contains(fields(got), "CapEff: 0000000000002020 CapBnd: 00000000a80425fb CapAmb: 0000000000002020") {
		t.Errorf("ambient capabilities: %s", got)
	}
	s = aSpec(root)
	if got := sh(t, s, statusScript); !strings.Contains(fields(got), "CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb CapAmb: 0000000000000000 NoNewPrivs: 0") {
		t.Errorf("root: %s", got)
	}
	s.Process.Capabilities = nil
	if got := sh(t, s, statusScript); !strings.Contains(fields(got), "CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000") {
		t.Errorf("no capabilities: %s", got)
	}
}

func TestUnmappedUser(t *testing.T) {
	needRoot(t)
	s := nested(t, aSpec(busybox(t), "true"))
	s.Process.User.UID = 5000000
	_, err := tryRun(t, Options{Spec: s})
	if err == nil || !strings.Contains(err.Error(), "user 5000000") || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("%v", err)
	}
}

func TestSeccomp(t *testing.T) {
	needRoot(t)
	root := busybox(t)
	for _, nnp := range []bool{false, true} {
		for _, init := range []bool{false, true} {
			s := aSpec(root, "sh", "-c", statusScript+`; unshare -U true 2>/dev/null || echo refused`)
			s.Process.NoNewPrivileges = nnp
			p, err := seccomp.Profile("", s)
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Seccomp = p
			res, err := tryRun(t, Options{Spec: s, Init: init})
			if err != nil {
				t.Fatal(err)
			}
			if got := fields(res.out); !strings.Contains(got, "Seccomp: 2") || !strings.HasSuffix(got, "refused") || !strings.Contains(got, "CapEff: 00000000a80425fb") {
				t.Errorf("no_new_privs %v, init %v: %v", nnp, init, res)
			}
		}
	}
	s := aSpec(root, "sh", "-c", "mkdir /tmp/x; echo $?")
	one := uint(unix.EXDEV)
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &one}}}
	if res := run(t, s); !strings.Contains(res.err, "cross-device") && !strings.Contains(res.err, "Invalid cross-device") {
		t.Errorf("%v", res)
	}
	// A user who keeps CAP_SYS_ADMIN from nobody: the filter is loaded before it goes.
	if m, err := ownMap("/proc/self/uid_map"); err == nil && maps(m, 1000) {
		s.Process.User = specs.User{UID: 1000, GID: 1000}
		s.Process.Args = []string{"sh", "-c", statusScript}
		if res := run(t, s); !strings.Contains(fields(res.out), "Seccomp: 2") || !strings.Contains(fields(res.out), "CapPrm: 0000000000000000") {
			t.Errorf("user 1000: %v", res)
		}
	}
}

// Programs of the two other architectures of x86-64 are under the same filter.
func TestSeccomp32Bit(t *testing.T) {
	needRoot(t)
	src := filepath.Join(t.TempDir(), "main.go")
	write(t, src, `package main
import ("fmt"; "syscall")
func main() { fmt.Println(syscall.Unshare(syscall.CLONE_NEWUSER), syscall.Mkdir("/tmp/made", 0o755)) }`, 0o644)
	root := busybox(t)
	build := exec.Command("go", "build", "-o", root+"/bin/prog32", src)
	build.Env = append(os.Environ(), "GOARCH=386", "CGO_ENABLED=0", "GOFLAGS=", "GO111MODULE=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs a Go tool chain that builds for 386: %v\n%s", err, out)
	}
	s := aSpec(root, "prog32")
	p, err := seccomp.Profile("", s)
	if err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = p
	if res := run(t, s); res.out != "operation not permitted <nil>\n" {
		t.Errorf("%v", res)
	}
}

func TestStdioBelongsToTheUser(t *testing.T) {
	needRoot(t)
	m, err := ownMap("/proc/self/uid_map")
	if err != nil || !maps(m, 1000) {
		t.Skip("needs a range of ids")
	}
	s := aSpec(busybox(t))
	s.Process.User.UID = 1000
	if got := sh(t, s, "echo one >/dev/stdout; echo two >/proc/self/fd/1"); got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
}

func TestCwd(t *testing.T) {
	root := busybox(t)
	s := aSpec(root)
	s.Process.Cwd = "/new/dir"
	if got := sh(t, s, "pwd; stat -c %a ."); got != "/new/dir\n755\n" {
		t.Errorf("%q", got)
	}
	write(t, root+"/tmp/tool", "#!/bin/sh\necho relative\n", 0o755)
	s.Process.Cwd, s.Process.Args = "/tmp", []string{"./tool"}
	if res := run(t, s); res.out != "relative\n" {
		t.Errorf("%v", res)
	}
	s.Process.Args, s.Process.Env = []string{"tool"}, []string{"PATH=/nowhere::/bin"}
	if res := run(t, s); res.out != "relative\n" {
		t.Errorf("an empty element of PATH is the working directory: %v", res)
	}
	s.Process.Cwd = "/etc/passwd"
	if _, err := tryRun(t, Options{Spec: s}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("%v, want ENOTDIR", err)
	}
}
