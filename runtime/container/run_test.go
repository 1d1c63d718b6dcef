package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestRunPrintsAndExits(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script("echo out; echo err >&2; exit 3"), name("first"))
	if out != "out\n" || errs != "err\n" || code != 3 {
		t.Fatalf("out %q, err %q, exit %d", out, errs, code)
	}
	i := b.inspect("first")
	if i.State.Status != "exited" || i.State.ExitCode != 3 || i.State.Running || i.State.Pid != 0 {
		t.Errorf("state %+v", i.State)
	}
	if got, _, _ := b.try("logs", "first"); got != "out\n" {
		t.Errorf("logs %q", got)
	}
	b.must("start", "first")
	if got := b.must("wait", "first", "not-running"); got != "3" {
		t.Errorf("wait after a second start: %s", got)
	}
	if got, _, _ := b.try("logs", "first"); got != "out\nout\n" {
		t.Errorf("logs of two runs %q", got)
	}
}

func TestExitStatus(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct {
		cmd  []string
		code int
	}{
		{words("true"), 0},
		{words("false"), 1},
		{script("kill -TERM $$; sleep 5"), 128 + 15},
		{words("no-such-command"), 127},
		{words("/bin/noexec"), 126},
		{words("/data"), 126},
	} {
		t.Run(strings.Join(tt.cmd, " "), func(t *testing.T) {
			b := &box{t: t, root: b.root}
			_, errs, code := b.run(tt.cmd, autoRemove, func(r *runArg) {
				if tt.code == 143 { // PID 1 has no default action
					yes := true
					r.Create.HostConfig.Init = &yes
				}
			})
			if code != tt.code {
				t.Errorf("exit %d, want %d: %s", code, tt.code, errs)
			}
			if code > 125 && code < 128 && !strings.Contains(errs, tt.cmd[0]) {
				t.Errorf("the message does not name the command: %q", errs)
			}
		})
	}
	if left := b.ps(); len(left) > 0 {
		t.Errorf("--rm has left %v", left)
	}
}

func TestStdin(t *testing.T) {
	b := newBox(t)
	big := strings.Repeat("0123456789abcdef\n", 1<<16) // more than a pipe holds
	out, errs, code := b.with(big, "run", "-", newRun(words("cat"), stdin, autoRemove))
	if code != 0 || out != big {
		t.Errorf("exit %d, %d of %d bytes: %s", code, len(out), len(big), errs)
	}
	if out, _, code := b.run(words("cat"), autoRemove); out != "" || code != 0 {
		t.Errorf("without stdin: %q, exit %d", out, code)
	}
}

// TestEnvironment looks at what the command sees.
func TestEnvironment(t *testing.T) {
	b := newBox(t)
	home := "/root"
	out, errs, code := b.run(script(`env; pwd; id -u; id -g; hostname; cat /etc/hostname`), autoRemove,
		config(func(c *api.Config) { c.Env, c.Hostname, c.WorkingDir = words("A=1", "FROM_IMAGE=no"), "host1", "/tmp" }))
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"A=1", "FROM_IMAGE=no", "PATH=/bin", "HOSTNAME=host1", "HOME=" + home, "/tmp\n0\n0\nhost1\nhost1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
}

func TestUser(t *testing.T) {
	if os.Getenv(envSingle) != "" {
		b := newBox(t)
		_, errs, code := b.run(words("id"), autoRemove, config(func(c *api.Config) { c.User = "user" }))
		if code != 125 || !strings.Contains(errs, "only one ID is mapped") {
			t.Errorf("exit %d: %s", code, errs)
		}
		return
	}
	b := newBox(t)
	for user, want := range map[string]string{
		"user":      "uid=1000(user) gid=1000(user) groups=1000(user),1001(more)\n",
		"1000:more": "uid=1000(user) gid=1001(more) groups=1001(more)\n",
		"":          "uid=0(root) gid=0(root) groups=0(root)\n",
	} {
		out, errs, code := b.run(script("id; echo $HOME; echo w > /dev/stdout"), autoRemove, config(func(c *api.Config) { c.User = user }))
		if code != 0 || !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "w\n") {
			t.Errorf("user %q: exit %d, %q %s", user, code, out, errs)
		}
	}
	if _, errs, code := b.run(words("id"), autoRemove, config(func(c *api.Config) { c.User = "nobody-here" })); code != 125 || !strings.Contains(errs, "nobody-here") {
		t.Errorf("unknown user: exit %d, %s", code, errs)
	}
}

// TestUserInHugeFile: who looks users up is not held by the container's memory limit.
func TestUserInHugeFile(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	line := "root:x:0:0:root:/root:/bin/sh\n"
	for _, name := range []string{"passwd", "group"} {
		if err := errors.Join(os.RemoveAll(dir+"/etc"), os.Mkdir(dir+"/etc", 0o755),
			os.WriteFile(dir+"/etc/"+name, []byte(strings.Repeat(line, maxUsers/len(line)+1)), 0o644)); err != nil {
			t.Fatal(err)
		}
		if u, _, err := resolveUser(root, "root", words("root"), nil, nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "/etc/"+name) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

func TestTerminal(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script("tty; stty size; echo end >&2"), tty, autoRemove)
	if code != 0 || !strings.Contains(out, "/dev/pts/0") || !strings.HasSuffix(out, "end\r\n") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestReadOnlyAndTmpfs(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script(`touch /x 2>/dev/null && echo writable; touch /t/y && grep " /t " /proc/mounts; touch /dev/shm/z`), autoRemove,
		host(func(h *api.HostConfig) {
			h.ReadonlyRootfs, h.Tmpfs = true, map[string]string{"/t": "size=1m,mode=1777"}
		}))
	if code != 0 || strings.Contains(out, "writable") || !strings.Contains(out, "size=1024k") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// TestVolumes: named, anonymous and bind; filled from the image once; they outlive a container, or not.
func TestVolumes(t *testing.T) {
	b := newBox(t)
	dir := filepath.Join(t.TempDir(), "made") // -v makes it
	out, errs, code := b.run(script("cat /data/seed; echo new > /data/more; echo b > /bind/f; touch /ro/f 2>/dev/null && echo writable; echo a > /anon/f"),
		name("vol-user"), host(func(h *api.HostConfig) {
			h.Binds = words("vol:/data", dir+":/bind", dir+":/ro:ro")
		}), config(func(c *api.Config) { c.Volumes = map[string]struct{}{"/anon": {}} }))
	if code != 0 || out != "from the image\n" {
		t.Fatalf("exit %d, %q, %q", code, out, errs)
	}
	if got, err := os.ReadFile(dir + "/f"); string(got) != "b\n" {
		t.Errorf("bind: %q, %v", got, err)
	}
	mounts := map[string]api.MountPoint{}
	for _, m := range b.inspect("vol-user").Mounts {
		mounts[m.Destination] = m
	}
	anon := mounts["/anon"]
	if len(anon.Name) != 64 || !exists1(anon.Source) {
		t.Errorf("anonymous volume %+v", anon)
	}
	if out := b.must("diff", "vol-user"); strings.Contains(out, "/data/more") || strings.Contains(out, "/bind/f") {
		t.Errorf("volumes are in the layer: %s", out)
	}
	b.must("rm", "vol-user")
	if exists1(anon.Source) {
		t.Errorf("rm -v has left %s", anon.Source)
	}
	out, errs, code = b.run(words("cat", "/data/more"), autoRemove, host(func(h *api.HostConfig) { h.Binds = words("vol:/data") }))
	if code != 0 || out != "new\n" {
		t.Errorf("the volume has not outlived its container: %q %q", out, errs)
	}
}

func exists1(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// on runs on directories of the machine.
func on(dirs ...string) opt {
	return func(r *runArg) { r.Create.Config.Image, r.Create.Rootfs = "", dirs }
}

// TestRootfs runs on a directory of the machine, and on all of it.
func TestRootfs(t *testing.T) {
	b := newBox(t)
	tree := t.TempDir()
	if out, err := exec.Command("sh", "-c", "mkdir "+tree+"/bin "+tree+"/keep && cp $(command -v busybox) "+tree+"/bin/sh && chmod 755 "+tree).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, errs, code := b.run(words("/bin/sh", "-c", "echo x > /new"), on(tree), name("dir")); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if !exists1(tree+"/keep") || exists1(tree+"/new") {
		t.Error("the directory was written to")
	}
	if out := b.must("diff", "dir"); !strings.Contains(out, `"/new"`) {
		t.Errorf("diff %s", out)
	}
	out, errs, code := b.run(words("sh", "-c", "ls /usr/bin >/dev/null && rm -rf /usr/share/doc 2>/dev/null; ls /usr/share/doc 2>&1; id -u"), on("/"), name("all"))
	if !strings.Contains(out, "No such file") || !strings.HasSuffix(out, "0\n") {
		t.Errorf("exit %d, %.200q, %.200q", code, out, errs)
	}
	if !exists1("/usr/share/doc") {
		t.Fatal("the machine was written to")
	}
	if out := b.must("diff", "all"); !strings.Contains(out, `"Path":"/usr/share/doc"`) {
		t.Errorf("diff %.200s", out)
	}
}

// TestLongRootfs: the paths of the layers may be longer together than an argument of a program can be, and where they are too
// long for laminafs to be told of them that is what the error says.
func TestLongRootfs(t *testing.T) {
	b := newBox(t)
	tree := t.TempDir()
	if out, err := exec.Command("sh", "-c", "mkdir "+tree+"/bin && cp $(command -v busybox) "+tree+"/bin/sh && chmod 755 "+tree).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deep := filepath.Join(tree, strings.Repeat(strings.Repeat("y", 200)+"/", 15))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for i := range 100 {
		dirs = append(dirs, strconv.Itoa(i))
		if err := os.Mkdir(filepath.Join(deep, dirs[i]), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		dirs      []string
		out, errs string
	}{
		{append(dirs[:60:60], tree), "fits\n", ""},
		{append(dirs, tree), "", "tell laminafs the container's layers: message too long\n"},
	} {
		cmd := b.command(t.Context(), "run", "-", newRun(words("/bin/sh", "-c", "echo fits"), on(c.dirs...), autoRemove))
		cmd.Dir = deep
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if (err == nil) != (c.errs == "") || out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%d layers: %v: %q, %q; want %q, %q", len(c.dirs), err, out.String(), errs.String(), c.out, c.errs)
		}
	}
}

// TestUserNamespace runs in a user namespace of the container's own.
func TestUserNamespace(t *testing.T) {
	if os.Getenv(envSingle) != "" {
		t.Skip("needs a range of IDs")
	}
	b := newBox(t)
	hostID := uint32(200000)
	if os.Geteuid() != 0 {
		hostID = 100
	}
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostID, Size: 5000}}
	out, errs, code := b.run(script(`cat /proc/self/uid_map | tr -s " "; stat -c "%u %U" /bin/busybox /home/user; touch /mine && chown 1000 /mine && stat -c %u /mine; echo x > /v/f && stat -c %u /v/f`),
		name("userns"), func(r *runArg) { r.Create.UIDMap = m }, host(func(h *api.HostConfig) { h.Binds = words("uv:/v") }))
	want := " 0 " + strconv.Itoa(int(hostID)) + " 5000\n0 root\n1000 user\n1000\n0\n"
	if code != 0 || out != want {
		t.Errorf("exit %d, %q, want %q; %s", code, out, want, errs)
	}
	tarOut, _, _ := b.try("cpout", "userns", "/mine", "-")
	if !strings.Contains(tarOut, "0001750") { // 1000 in octal: the owner as the container sees it
		t.Errorf("owner in the tar")
	}
	if os.Geteuid() != 0 {
		out, errs, code := b.run(script("id -u; touch /tmp/x; stat -c %u /tmp/x"), autoRemove, host(func(h *api.HostConfig) { h.UsernsMode = "keep-id" }))
		uid := strconv.Itoa(os.Geteuid())
		if code != 0 || out != uid+"\n"+uid+"\n" {
			t.Errorf("keep-id: exit %d, %q, %s", code, out, errs)
		}
		out, errs, code = b.run(script("id -u; touch /tmp/x; chown 1000 /tmp/x; stat -c %u /tmp/x"), autoRemove, host(func(h *api.HostConfig) { h.UsernsMode = "private" }))
		if code != 0 || out != "0\n1000\n" {
			t.Errorf("private: exit %d, %q, %s", code, out, errs)
		}
	}
}

func TestSecurityDefaults(t *testing.T) {
	b := newBox(t)
	out, errs, code := b.run(script(`grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/kcore 2>&1 | wc -c; echo 1 > /proc/sys/kernel/hostname; mount -t tmpfs x /tmp && echo mounted`), autoRemove)
	for _, want := range []string{"CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %q", want, out)
		}
	}
	if code == 0 || strings.Contains(out, "mounted") {
		t.Errorf("exit %d: %q %q", code, out, errs)
	}
}

// TestForegroundEndsWithItsClient: a client that goes takes a foreground container with it, and not one in the background.
func TestForegroundEndsWithItsClient(t *testing.T) {
	b := newBox(t)
	cmd := b.command(t.Context(), "run", "-", newRun(words("sleep", "1000"), name("fg")))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it runs", func() bool {
		_, _, code := b.try("inspect", "fg")
		return code == 0 && b.inspect("fg").State.Running
	})
	_ = cmd.Process.Signal(unix.SIGKILL)
	_ = cmd.Wait()
	if got := b.must("wait", "fg", "not-running"); got != "137" {
		t.Errorf("exit %s", got)
	}
}

func TestSameNameTwice(t *testing.T) {
	b := newBox(t)
	b.must("create", "-", newRun(words("true"), name("one")))
	_, errs, code := b.try("create", "-", newRun(words("true"), name("one")))
	if code != 125 || !strings.Contains(errs, "already in use") {
		t.Errorf("exit %d: %s", code, errs)
	}
	b.must("rename", "one", "two")
	b.must("create", "-", newRun(words("true"), name("one")))
	if n := len(b.ps()); n != 2 {
		t.Errorf("%d containers", n)
	}
	if entries, err := os.ReadDir(filepath.Join(b.root, "containers")); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestCreateLeavesNothingWhenItFails(t *testing.T) {
	b := newBox(t)
	for what, o := range map[string]opt{
		"ipc":     host(func(h *api.HostConfig) { h.IpcMode = "container:other" }),
		"network": host(func(h *api.HostConfig) { h.NetworkMode = "container:nobody" }),
		"volumes": host(func(h *api.HostConfig) { h.VolumesFrom = words("nobody") }),
		"slave":   host(func(h *api.HostConfig) { h.Binds = words("/proc/self:/x:rslave,what") }),
		"memory":  host(func(h *api.HostConfig) { h.Memory = 1 }),
		"image":   config(func(c *api.Config) { c.Image = "none-such" }),
		"bind":    host(func(h *api.HostConfig) { h.Binds = words("/proc/none/such:/x") }),
		"mode":    host(func(h *api.HostConfig) { h.NetworkMode = "nope" }),
	} {
		_, errs, code := b.try("create", "-", newRun(words("true"), o))
		if code != 125 || errs == "" {
			t.Errorf("%s: exit %d: %s", what, code, errs)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(b.root, "containers")); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
	if entries, err := os.ReadDir(filepath.Join(b.root, "layerdb", "mounts")); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestCallersDescriptors: what a caller of a container in the background has open, a lock for example, is not held by it.
func TestCallersDescriptors(t *testing.T) {
	b := newBox(t)
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := lockPath(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{"run", "start"} {
		args := []string{"run", "-", newRun(words("sleep", "1000"), name("background"), detach)}
		if op == "start" {
			b.must("kill", "background", "KILL")
			b.must("wait", "background", "not-running")
			args = []string{"start", "background"}
		}
		cmd := b.command(t.Context(), args...)
		cmd.ExtraFiles = append(make([]*os.File, 20), lock) // above those that a monitor has
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_ = lock.Close() // nothing written
		if lock, err = lockPath(path, false); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
	_ = lock.Close() // likewise
}
