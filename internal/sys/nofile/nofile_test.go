// The test stands outside of the package, for what it imports would be imported by the package.
package nofile_test

import (
	"os"
	"os/exec"
	goruntime "runtime"
	"testing"

	"github.com/laminafs/lamina/internal/sys/nofile"
)

// A shell sets a soft limit below the hard one and runs this test again: what was read is the shell's limit, not the
// one that package syscall has made of it.
func TestLimitIsReadBeforeItIsRaised(t *testing.T) {
	if goruntime.GOARCH != "amd64" && goruntime.GOARCH != "arm64" {
		t.Skip("no system call in assembly for this architecture")
	}
	if os.Getenv("NOFILE_TEST") != "" {
		r, set := nofile.ForChildren()
		if !set || r.Cur != 123 || r.Max <= 123 {
			t.Fatalf("limit for children %+v, %v; want a soft limit of 123", r, set)
		}
		return
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 123; exec "$0" -test.run=TestLimitIsReadBeforeItIsRaised`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOFILE_TEST=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
