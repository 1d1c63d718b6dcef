package seccomp

import (
	"fmt"
	"os"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Unconfined is the name of no profile at all.
const Unconfined = "unconfined"

// Profile is what `--security-opt seccomp=` names: Docker's default profile for "" and "builtin", nil for
// "unconfined", and else a file with a profile as Docker has them. Which of its rules hold depends on the
// architecture, the kernel, and the bounding capabilities in s.
func Profile(name string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if s.Process == nil || s.Process.Capabilities == nil {
		with := *s // rules that a capability switches on look at them
		with.Process = &specs.Process{Capabilities: &specs.LinuxCapabilities{}}
		s = &with
	}
	switch name {
	case "", "builtin":
		return seccomp.GetDefaultProfile(s)
	case Unconfined:
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	p, err := seccomp.LoadProfile(string(b), s)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", name, err)
	}
	return p, nil
}
