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
	return retry(func() error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&arg[0])))
		if e != 0 {
			return e
		}
		return nil
	})
}
