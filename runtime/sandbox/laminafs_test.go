package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// envLaminafs tells an ordinary user's tests where the binary is: he has no place to build it.
const envLaminafs = "SANDBOX_TEST_LAMINAFS"

// laminafs builds the union's command.
func laminafs(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(envLaminafs); path != "" {
		return path
	}
	dir, err := os.MkdirTemp("/tmp", "sandbox-laminafs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "laminafs")
	build := exec.Command("go", "build", "-o", path, "github.com/laminafs/lamina/cmd/laminafs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("needs a Go tool chain: %v\n%s", err, out)
	}
	return path
}

// union mounts a union of the rootfs and an empty upper, and returns both.
func union(t *testing.T, lower, options string) (merged, upper string) {
	t.Helper()
	if _, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
	dir := filepath.Dir(lower)
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged, upper = dir+"/merged", dir+"/upper"
	cmd := exec.Command(laminafs(t), "-o", "lowerdir="+lower+",upperdir="+upper+",workdir="+dir+"/work,allow_other"+options, merged)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("laminafs: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("unmount: %v (is something of the container left?)", err)
		}
	})
	return merged, upper
}

func TestOnLaminafs(t *testing.T) {
	needRoot(t)
	for name, want := range map[string]string{"plain": "0 0", "nested": "65534 65534", "nested, mapped": "0 0"} {
		t.Run(name, func(t *testing.T) {
			s := aSpec("")
			options := ""
			if name != "plain" {
				nested(t, s)
			}
			if name == "nested, mapped" { // the union shows the image's owners as ids of the namespace
				m := s.Linux.UIDMappings[0]
				options = fmt.Sprintf(",uidmapping=0:%d:%d,gidmapping=0:%d:%d", m.HostID, m.Size, m.HostID, m.Size)
			}
			lower := busybox(t)
			merged, upper := union(t, lower, options)
			s.Root.Path = merged
			script := `stat -c '%u %g' /bin/busybox; echo changed >>/tmp/new && echo written`
			if err := os.Chmod(lower+"/tmp", 0o777); err != nil {
				t.Fatal(err)
			}
			if got := sh(t, s, script); got != want+"\nwritten\n" {
				t.Errorf("%q", got)
			}
			if b, err := os.ReadFile(upper + "/tmp/new"); err != nil || string(b) != "changed\n" {
				t.Errorf("upper: %q, %v", b, err)
			}
			if _, err := os.Stat(lower + "/tmp/new"); err == nil {
				t.Error("the lower was written to")
			}
		})
	}
}

// A mount target that the image lacks is made in the upper, and a whole container leaves nothing else there.
func TestUpperHoldsMountTargetsOnly(t *testing.T) {
	needRoot(t)
	merged, upper := union(t, busybox(t), "")
	s := aSpec(merged)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs"})
	sh(t, s, "echo x >/data/file")
	out, err := exec.Command("find", upper, "-mindepth", "1").Output()
	if err != nil || strings.TrimSpace(string(out)) != upper+"/data" {
		t.Errorf("upper has %s, %v", out, err)
	}
}
