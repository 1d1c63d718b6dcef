package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/runtime/seccomp"
)

// BenchmarkTrue is start to exit of `true` under Docker's profile, beside runc with the same specification.
func BenchmarkTrue(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs user 0, of the machine or of a user namespace")
	}
	root := busybox(b)
	s := aSpec(root, "/bin/true")
	s.Process.NoNewPrivileges = true
	profile, err := seccomp.Profile("", s)
	if err != nil {
		b.Fatal(err)
	}
	s.Linux.Seccomp = profile
	self := static
	if path := os.Getenv("SANDBOX_BENCH_SELF"); path != "" { // of another program that has the roles
		self = path
	}
	b.Run("sandbox", func(b *testing.B) {
		for b.Loop() {
			c, err := Create(Options{Self: self, Spec: s})
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			if st, err := c.Wait(); err != nil || st != 0 {
				b.Fatal(st, err)
			}
			c.Delete()
		}
	})
	b.Run("runc", func(b *testing.B) {
		runc, err := exec.LookPath("runc")
		if err != nil {
			b.Skip("needs runc")
		}
		s.Version = "1.0.2"
		bundle := filepath.Dir(root)
		config, err := json.Marshal(s)
		if err != nil {
			b.Fatal(err)
		}
		write(b, filepath.Join(bundle, "config.json"), string(config), 0o644)
		n := 0
		for b.Loop() {
			n++
			out, err := exec.Command(runc, "run", "--bundle", bundle, fmt.Sprintf("bench-%d-%d", os.Getpid(), n)).CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, out)
			}
		}
	})
}
