package sandbox

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// procFiles are what may be covered below /proc, as lxcfs does it. Source: runc, libcontainer/rootfs_linux.go, checkProcMount.
var procFiles = []string{
	"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
	"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
}

// procRootIno is the inode number of a procfs' root (include/linux/proc_fs.h, PROC_ROOT_INO).
const procRootIno = 1

// CheckProcTarget refuses a mount that would take the place of /proc or of something in it, so that what is masked or read-only there
// would not be. target is a clean absolute path in the container, source what a bind shows, "" of any other mount. Where links
// of the rootfs lead is seen by Create only, which refuses the same.
func CheckProcTarget(target, source string) error {
	if target == "/proc" {
		if source != "" {
			if fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
				defer sys.Close(fd)
				if is, err := isProcfs(fd); err == nil && is {
					return nil
				}
			}
		}
		return notProcfs(target)
	}
	if name, below := strings.CutPrefix(target, "/proc/"); below && !slices.Contains(procFiles, name) {
		return insideProc(target)
	}
	return nil
}

func notProcfs(target string) error {
	return fmt.Errorf("%q cannot be mounted because it is not of type proc", target)
}

func insideProc(target string) error {
	return fmt.Errorf("%q cannot be mounted because it is inside /proc", target)
}

// cover attaches the detached mount fd to target, a descriptor of the object called name, unless CheckProcTarget had
// refused what name leads to.
func (in *initProcess) cover(fd, target int, name string) error {
	if onOneDevice(target, in.root.fd) {
		return attach(fd, target) // most are, and statfs(2) of a union is a request to its server
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(target, &fs); err != nil {
		return err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		if err := in.checkCover(fd, target, name); err != nil {
			return err
		}
	}
	return attach(fd, target)
}

// onOneDevice tells whether two objects are on one filesystem, without asking its server.
func onOneDevice(a, b int) bool {
	var sa, sb unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	errA, errB := unix.Statx(a, "", flags, 0, &sa), unix.Statx(b, "", flags, 0, &sb)
	return errA == nil && errB == nil && sa.Dev_major == sb.Dev_major && sa.Dev_minor == sb.Dev_minor
}

func (in *initProcess) checkCover(fd, target int, name string) error {
	root, err := isProcfs(target)
	if err != nil {
		return err
	}
	if root {
		if proc, err := isProcfs(fd); err != nil || proc {
			return err
		}
		return notProcfs(name)
	}
	for _, file := range procFiles {
		if in.same(target, path.Join("/proc", file)) {
			return nil
		}
	}
	return insideProc(name)
}

// same tells whether the descriptor's object is the one of that name.
func (in *initProcess) same(fd int, name string) bool {
	other, err := in.root.open(name, unix.O_PATH)
	if err != nil {
		return false // this kernel has none
	}
	defer sys.Close(other)
	a, errA := sys.Stat(sys.Fd(fd))
	b, errB := sys.Stat(sys.Fd(other))
	return errA == nil && errB == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// isProcfs tells whether the descriptor's object is the root of a procfs.
func isProcfs(fd int) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return false, err
	}
	st, err := sys.Stat(sys.Fd(fd))
	return st.Ino == procRootIno, err
}
