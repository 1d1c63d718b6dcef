package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// Variables by which a test has the container's first process play a kernel that refuses something; the environment
// of that process is ours.
const (
	envRefusePivot   = "SANDBOX_TEST_NO_PIVOT"
	envRefuseSetattr = "SANDBOX_TEST_NO_SETATTR"
)

func init() {
	for _, e := range []string{envRefusePivot, envRefuseSetattr} {
		if os.Getenv(e) == "" {
			continue
		}
		switch e {
		case envRefusePivot:
			pivotRoot = func(string, string) error { return unix.EINVAL }
		case envRefuseSetattr:
			mountSetattr = func(int, uint, *unix.MountAttr) error { return unix.ENOSYS }
		}
	}
	baseEnv := childEnv
	envForChild = func() []string {
		env := append([]string(nil), baseEnv...)
		for _, e := range []string{envRefusePivot, envRefuseSetattr} {
			if v := os.Getenv(e); v != "" {
				env = append(env, e+"="+v)
			}
		}
		return env
	}
}
