package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/fs.h that x/sys does not name: _IOR and _IOW of 'X', 31 and 32, with struct fsxattr of 28 bytes.
const (
	FSIocFSGetXattr = 0x801c581f
	FSIocFSSetXattr = 0x401c5820
)

// Ioctl makes an ioctl(2) whose argument is a buffer that the kernel reads or fills.
func Ioctl(fd int, req uint, arg []byte) error {
	_, err := IoctlValue(fd, req, arg)
	return err
}

// IoctlValue is Ioctl for a request whose result is a number.
func IoctlValue(fd int, req uint, arg []byte) (value int, err error) {
	err = retry(func() error {
		v, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&arg[0])))
		if e != 0 {
			return e
		}
		value = int(v)
		return nil
	})
	return value, err
}

// OpenPeer opens the other side of a terminal whose master is at hand, whatever is at /dev/pts/N (ioctl_tty(2),
// TIOCGPTPEER).
func OpenPeer(master, flags int) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, uintptr(flags|unix.O_CLOEXEC))
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}
