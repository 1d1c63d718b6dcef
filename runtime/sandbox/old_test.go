package sandbox

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Variables by which a test has the container's first process play a kernel that refuses something; the environment
// of that process is ours.
const (
	envRefusePivot   = "SANDBOX_TEST_NO_PIVOT"
	envRefuseSetattr = "SANDBOX_TEST_NO_SETATTR"
	envTellDumpable  = "SANDBOX_TEST_TELL_DUMPABLE" // not a refusal: the process says whether it could be traced
)

var childTests = []string{envRefusePivot, envRefuseSetattr, envTellDumpable}

func init() {
	for _, e := range childTests {
		if os.Getenv(e) == "" {
			continue
		}
		switch e {
		case envRefusePivot:
			pivotRoot = func(string, string) error { return unix.EINVAL }
		case envTellDumpable:
			if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); os.Args[0] == RoleExec || os.Args[0] == RoleInit {
				fmt.Fprintln(os.Stderr, os.Args[0], "dumpable", d, err)
			}
		case envRefuseSetattr:
			mountSetattr = func(int, uint, *unix.MountAttr) error { return unix.ENOSYS }
		}
	}
	baseEnv := childEnv
	envForChild = func() []string {
		env := append([]string(nil), baseEnv...)
		for _, e := range childTests {
			if v := os.Getenv(e); v != "" {
				env = append(env, e+"="+v)
			}
		}
		return env
	}
}
