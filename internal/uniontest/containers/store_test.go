package containers

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/leak"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// A system is what makes one tree of the layers of a store.
type system string

const (
	laminafs system = "laminafs"
	fuseOvl  system = "fuse-overlayfs"
	kernel   system = "overlay"                    // the kernel's, mounted by podman itself
	laminaOv system = "laminafs, whiteout=overlay" // for a store that the kernel's is to use, too
	vfs      system = "vfs"                        // a copy of a copy for each layer
)

// fstype is what findmnt(8) calls a mount of sys. The driver vfs mounts nothing.
var fstype = map[system]string{
	laminafs: "fuse.laminafs", laminaOv: "fuse.laminafs", fuseOvl: "fuse.fuse-overlayfs", kernel: "overlay",
}

// TestMain lets more tests run at once than there are processors: podman sleeps most of the time, to the end of the
// second after each layer.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "4") // is a number
	}
	os.Exit(leak.Run(m.Run))
}

// identities are who runs containers. For podman an ordinary user is root of a user namespace that it makes.
var identities = []uniontest.Identity{uniontest.User, uniontest.Root}

// long asks for the other format of whiteouts, too.
var long = os.Getenv("LAMINA_LONG") != ""

// each runs test for each identity and format.
func each(t *testing.T, test func(t *testing.T, who uniontest.Identity, sys system)) {
	systems := []system{laminafs}
	if long {
		systems = append(systems, laminaOv)
	}
	for _, who := range identities {
		for _, sys := range systems {
			t.Run(fmt.Sprintf("%s as %s", sys, who), func(t *testing.T) {
				t.Parallel()
				test(t, who, sys)
			})
		}
	}
}

// need skips the test where containers cannot be run at all.
func need(t *testing.T) {
	t.Helper()
	for _, p := range []string{"podman", "buildah", "runc", "fuse-overlayfs", "busybox", "findmnt", "getfattr", "getfacl"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
	uniontest.NeedFuse(t)
}

// A store is a place for images and containers with all of podman's state beside it, so that nothing of it is shared
// with the machine's own podman, or left there, except for root's list of known blobs in /var/lib/containers/cache, whose
// place cannot be chosen.
type store struct {
	t   *testing.T
	h   *uniontest.Helper
	who uniontest.Identity
	dir string
	env []string

	cgroup string // of root's containers; an ordinary user has none here
}

// newStore makes an empty store. When the test ends, nothing of it may be mounted or run.
func newStore(t *testing.T, who uniontest.Identity, sys system) *store {
	t.Helper()
	need(t)
	uniontest.Binary(t)
	s := &store{t: t, who: who, h: uniontest.As(t, who)}
	uid, gid := 0, 0
	if who == uniontest.User {
		uid, gid = uniontest.NeedUser(t)
	}
	var err error
	// A short name: below a path some ten bytes longer podman 4.3 leaves fuse-overlayfs mounted for an ordinary user.
	if s.dir, err = os.MkdirTemp("", "s"); err != nil {
		t.Fatal(err)
	}
	s.cgroup = "/" + filepath.Base(s.dir)
	t.Cleanup(s.close)
	for _, dir := range []string{"", "run", "tmp", "files", ".config", ".config/containers"} {
		path := filepath.Join(s.dir, dir)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	s.env = []string{
		"HOME=" + s.dir, "XDG_RUNTIME_DIR=" + s.dir + "/run", "TMPDIR=" + s.dir + "/tmp", "XDG_CONFIG_HOME=", "XDG_DATA_HOME=",
		"CONTAINERS_STORAGE_CONF=" + s.dir + "/storage.conf", "CONTAINERS_CONF=" + s.dir + "/containers.conf",
		"BUILDAH_ISOLATION=chroot", "LC_ALL=C.UTF-8", "TZ=UTC",
	}
	s.write(".config/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	// By default podman raises limits, which root may not do everywhere, and keeps its locks in /dev/shm.
	s.write("containers.conf", fmt.Sprintf(`
[containers]
cgroups = "no-conmon"
default_ulimits = [%s, %s]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
tmp_dir = "%s/libpod"
`, limit("nofile", unix.RLIMIT_NOFILE), limit("nproc", unix.RLIMIT_NPROC), s.dir))
	s.use(sys)
	return s
}

// limit writes a limit as containers.conf has it. It has to be one that both podman and a build within it may set: at
// most the one that this process has.
func limit(name string, resource int) string {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil || l.Max > 4096 {
		l.Max = 4096
	}
	return strconv.Quote(fmt.Sprintf("%s=%d:%[2]d", name, l.Max))
}

// use makes sys show the store from now on. Nothing may be mounted.
func (s *store) use(sys system) {
	s.t.Helper()
	conf := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", s.dir+"/graph", s.dir+"/runroot")
	options := "[storage.options.overlay]\n"
	switch sys {
	case laminafs:
		conf += options + fmt.Sprintf("mount_program = %q\n", uniontest.Binary(s.t))
	case laminaOv:
		conf += options + fmt.Sprintf("mount_program = %q\nmountopt = \"whiteout=overlay\"\n", uniontest.Binary(s.t))
	case fuseOvl:
		path, _ := exec.LookPath("fuse-overlayfs") // need has found it
		conf += options + fmt.Sprintf("mount_program = %q\n", path)
	case kernel:
		// While this is there podman looks for fuse-overlayfs.
		_ = os.Remove(s.dir + "/graph/overlay/.has-mount-program")
	case vfs:
		conf = strings.Replace(conf, `"overlay"`, `"vfs"`, 1)
	}
	s.write("storage.conf", conf)
}

// write writes a file beside the layers, which everyone may read, and read reads one.
func (s *store) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// try runs a program in the store's environment.
func (s *store) try(argv ...string) (uniontest.Result, error) {
	argv = append([]string{"timeout", "-k", "10", "600"}, argv...)
	return s.h.Exec(uniontest.Command{Argv: argv, Dir: s.dir, Env: s.env})
}

// run is try for what has to succeed. It returns what the program prints.
func (s *store) run(argv ...string) string {
	s.t.Helper()
	r, err := s.try(argv...)
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Code != 0 {
		s.t.Fatalf("%q: status %d\n%s%s", argv, r.Code, shell.Tail(r.Stdout), shell.Tail(r.Stderr))
	}
	return r.Stdout
}

// podman runs podman, which begins its containers with no network and, for root, in a cgroup of the test's own.
func (s *store) podman(args ...string) string {
	s.t.Helper()
	switch args[0] {
	case "run", "create":
		more := []string{args[0], "--network=none"}
		if s.who == uniontest.Root {
			more = append(more, "--cgroup-parent="+s.cgroup)
		}
		args = append(more, args[1:]...)
	case "build":
		args = append([]string{"build", "--network=host", "--isolation=chroot", "--quiet"}, args[1:]...)
	}
	return s.run(append([]string{"podman"}, args...)...)
}

// as runs a bash script where the mounts of the store are seen and all of its owners are whom they are in a container.
func (s *store) as(script string, args ...string) string {
	s.t.Helper()
	argv := append([]string{"bash", "-eEuo", "pipefail", "-c", script, "sh"}, args...)
	if s.who == uniontest.User {
		argv = append([]string{"podman", "unshare"}, argv...)
	}
	return s.run(argv...)
}

// inTree begins a script in the root of a tree that podman mounts, and sees that it is of the type that is meant.
const inTree = `
verb=$1; name=$2; want=$3
dir=$(podman $verb mount "$name")
trap 'cd /; podman $verb umount "$name" >/dev/null' EXIT
cd "$dir"
got=$(findmnt -n -o FSTYPE --target .)
[ -z "$want" ] || [ "$got" = "$want" ] || { echo "$name is shown by $got, not by $want" >&2; exit 1; }
`

// container and image list the tree of a container or, without an upper, of an image.
func (s *store) container(name string, sys system) string {
	s.t.Helper()
	return s.as(inTree+shell.Manifest, "container", name, fstype[sys])
}

func (s *store) image(name string, sys system) string {
	s.t.Helper()
	return s.as(inTree+shell.Manifest, "image", name, fstype[sys])
}

// times are the modification times in what shell.Manifest prints.
var times = regexp.MustCompile(`(?m)^([^\t\n]*\t\S \d+ \d+:\d+) \d+\.\d+`)

// timeless leaves the times out of a listing, so that it can be compared with what was made at another time.
func timeless(list string) string { return times.ReplaceAllString(list, "$1") }

// counts are the link counts of files in what shell.Manifest prints.
var counts = regexp.MustCompile(`(?m)^([^\t\n]*\t[^d] \d+ \d+:\d+ [0-9.]+) \d+`)

// countless leaves the link counts out of a listing: after a change to one of the names of a lower file fuse-overlayfs
// shows as many links as that one has by itself, and goes on showing the others with all.
func countless(list string) string { return counts.ReplaceAllString(list, "$1") }

// shows wants lines that begin with these in a listing without times: two systems may be wrong in the same way.
func shows(t *testing.T, list string, lines ...string) {
	t.Helper()
	list = "\n" + timeless(list)
	wrong := false
	for _, line := range lines {
		line, absent := strings.CutPrefix(line, "!")
		if strings.Contains(list, "\n"+line) == !absent {
			continue
		}
		wrong = true
		if absent {
			t.Errorf("a line begins with %q", line)
		} else {
			t.Errorf("no line begins with %q", line)
		}
	}
	if wrong {
		tree, _, _ := strings.Cut(list, "\n# file:")
		t.Logf("of%s", tree)
	}
}

// servers lists the processes that serve a mount of the store, by pid.
func (s *store) servers() []int {
	return s.processes("laminafs", "fuse-overlayfs")
}

// processes lists those whose arguments name the store, all or those of some programs. One that has ended and is not
// waited for has no arguments.
func (s *store) processes(programs ...string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(b, []byte(s.dir+"/")) {
			continue
		}
		argv0, _, _ := bytes.Cut(b, []byte{0})
		for _, p := range programs {
			if filepath.Base(string(argv0)) == p {
				pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// mounts lists what is mounted in the store by a driver, in whichever mount namespace.
func (s *store) mounts() []string {
	seen := map[string]bool{}
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, f := range files {
		ns, err := os.Readlink(filepath.Dir(f) + "/ns/mnt")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		b, err := os.ReadFile(f)
		if err != nil {
			continue // has ended
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, s.dir+"/") && (strings.Contains(line, " - fuse") || strings.Contains(line, " - overlay ")) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

// calm waits until so many servers, and mounts, are left, and nothing of podman is at work, and fails the test where it
// does not come to that: podman returns before all that it has started has ended.
func (s *store) calm(want int) {
	s.t.Helper()
	var servers []int
	var mounts []string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		servers, mounts = s.servers(), s.mounts()
		if len(servers) == want && len(mounts) >= want && (want > 0 || len(mounts) == 0) && len(s.processes("podman")) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("%d servers are left, and not %d; mounted are\n%s", len(servers), want, strings.Join(mounts, "\n"))
}

// patience is how long podman may take to clean up after a container that has ended.
const patience = 3 * time.Minute

// reset removes all that podman has. What it does by itself after a container has ended, and what it writes to its database and its
// events meanwhile, may be in the way: then it is asked again.
func (s *store) reset() {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		r, err := s.try("podman", "system", "reset", "--force")
		switch {
		case err == nil && r.Code == 0:
			return
		case err != nil || time.Now().After(end):
			s.t.Errorf("podman system reset: %v, status %d\n%s%s", err, r.Code, r.Stdout, r.Stderr)
			return
		}
	}
}

// close removes the store by podman's own means, and by force what is left of it then, which is an error.
func (s *store) close() {
	s.t.Helper()
	// podman cleans up behind the back of who ran a container, and would go on with that in what is being removed.
	for end := time.Now().Add(patience); len(s.processes("podman")) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	s.reset()
	s.calm(0)
	if s.who == uniontest.User {
		// Ends the process that keeps the user namespace.
		if r, err := s.try("podman", "system", "migrate"); err != nil || r.Code != 0 {
			s.t.Errorf("podman system migrate: %v, status %d\n%s%s", err, r.Code, r.Stdout, r.Stderr)
		}
	}
	for _, pid := range s.processes("laminafs", "fuse-overlayfs", "conmon", "podman") {
		s.t.Errorf("process %d is left behind", pid)
		_ = unix.Kill(pid, unix.SIGKILL) // has ended by itself, perhaps
	}
	if s.who == uniontest.Root {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*" + s.cgroup)
		for _, dir := range append(dirs, "/sys/fs/cgroup"+s.cgroup) {
			_ = os.Remove(dir) // there is one for each controller, or one for all
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		argv := []string{"unshare", "--map-root-user", "--map-auto", "--", "rm", "-rf", s.dir}
		if r, err := s.h.Exec(uniontest.Command{Argv: argv}); err != nil || r.Code != 0 {
			s.t.Errorf("remove the store: %v %s", err, r.Stderr)
		}
	}
}
