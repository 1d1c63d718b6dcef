package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/runtime/idmap"
)

// asUser is the name under which the test binary brings itself into a user namespace, and a mount namespace in that, as
// lamina does for a monitor.
const asUser = "sandbox-test-as-user"

func runAsUser() int {
	id, err := idmap.Discover()
	if err == nil {
		// By its path: what is executed through /proc could not be mounted in the new namespace.
		cmd := exec.Command(selfPath(), os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err = idmap.Start(cmd, id.UIDs, id.GIDs, unix.CLONE_NEWNS); err == nil {
			err = cmd.Wait()
		}
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// mustRun are tests that may not be skipped, whoever runs them.
var mustRun = []string{
	"TestTrue", "TestExitCodes", "TestExec/plain", "TestLinkInPlaceOfMountTarget", "TestMaskedPathIsLink", "TestBinds", "TestTmpfsAndDev",
	"TestContainerAttacksOurExecutable", "TestOldRootIsGone", "TestTerminal", "TestReaper", "TestSeccomp", "TestHostNamespaces", "TestOnLaminafs/plain", "TestNothingIsLeft", "TestContainerEndsWithItsParent",
}

// All other tests again, as a user with a range of ids, and as one without.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 || !initNamespace(false) {
		t.Skip("needs root of the machine, to become somebody else")
	}
	if static != "" {
		t.Skip("needs a static test binary: run the tests without the race detector")
	}
	u, err := user.LookupUser("lamina-test")
	if err != nil {
		t.Skip("needs the user lamina-test (scripts/setup-debian.sh makes it)")
	}
	dir, err := os.MkdirTemp("/tmp", "sandbox-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(selfPath())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sandbox.test"), string(self), 0o755)
	fs := laminafs(t)
	const noRange = 54321
	for _, uid := range []int{u.Uid, noRange} {
		t.Run(fmt.Sprint("user ", uid), func(t *testing.T) {
			cmd := &exec.Cmd{
				Path: filepath.Join(dir, "sandbox.test"), Dir: "/",
				Args:        []string{asUser, "-test.v", "-test.skip=^(TestAsOrdinaryUser|TestSeccomp32Bit|TestAgainstRunc)$"},
				Env:         []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", envLaminafs + "=" + fs},
				SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}, Setsid: true},
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v", err)
			}
			skipped := regexp.MustCompile(`(?m)^\s*--- SKIP: (\S+)`).FindAllStringSubmatch(string(out), -1)
			for _, name := range mustRun {
				if !strings.Contains(string(out), "--- PASS: "+name) {
					t.Errorf("%s has not passed", name)
				}
			}
			if uid == u.Uid && len(skipped) > 0 {
				t.Errorf("skipped with a range of ids: %v", skipped)
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}
