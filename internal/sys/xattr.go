package sys

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System call numbers of the *xattrat family (6.13), the same on every architecture since the 5.1 unification.
const (
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
)

// xattrArgs is struct xattr_args of linux/xattr.h.
type xattrArgs struct {
	value uint64
	size  uint32
	flags uint32
}

// haveXattrat tells, by trying once, whether the kernel has getxattrat(2). Without it the object is reached
// through procfs.
var haveXattrat = sync.OnceValue(func() bool {
	_, err := getxattrat(At{Dirfd: unix.AT_FDCWD, Name: "/"}, "user.lamina.probe", nil)
	return err != unix.ENOSYS && err != unix.EPERM
})

// bytesOf is the address of b's first byte, or of something harmless where b is empty.
func bytesOf(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Pointer(&b[0])
}

func (a At) xattrFlags() int { return unix.AT_SYMLINK_NOFOLLOW | a.emptyFlag() }

func getxattrat(a At, attr string, dest []byte) (int, error) {
	path, err := unix.BytePtrFromString(a.Name)
	if err != nil {
		return 0, err
	}
	name, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, err
	}
	args := xattrArgs{value: uint64(uintptr(bytesOf(dest))), size: uint32(len(dest))}
	n, _, e := unix.Syscall6(sysGetxattrat, uintptr(a.Dirfd), uintptr(unsafe.Pointer(path)), uintptr(a.xattrFlags()),
		uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	keepAlive(dest)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func setxattrat(a At, attr string, value []byte, flags int) error {
	path, err := unix.BytePtrFromString(a.Name)
	if err != nil {
		return err
	}
	name, err := unix.BytePtrFromString(attr)
	if err != nil {
		return err
	}
	args := xattrArgs{value: uint64(uintptr(bytesOf(value))), size: uint32(len(value)), flags: uint32(flags)}
	_, _, e := unix.Syscall6(sysSetxattrat, uintptr(a.Dirfd), uintptr(unsafe.Pointer(path)), uintptr(a.xattrFlags()),
		uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	keepAlive(value)
	if e != 0 {
		return e
	}
	return nil
}

func listxattrat(a At, dest []byte) (int, error) {
	path, err := unix.BytePtrFromString(a.Name)
	if err != nil {
		return 0, err
	}
	n, _, e := unix.Syscall6(sysListxattrat, uintptr(a.Dirfd), uintptr(unsafe.Pointer(path)), uintptr(a.xattrFlags()),
		uintptr(bytesOf(dest)), uintptr(len(dest)), 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func removexattrat(a At, attr string) error {
	path, err := unix.BytePtrFromString(a.Name)
	if err != nil {
		return err
	}
	name, err := unix.BytePtrFromString(attr)
	if err != nil {
		return err
	}
	_, _, e := unix.Syscall6(sysRemovexattrat, uintptr(a.Dirfd), uintptr(unsafe.Pointer(path)), uintptr(a.xattrFlags()),
		uintptr(unsafe.Pointer(name)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// byFd reports whether a was given by an O_PATH descriptor, which the *xattrat calls refuse although they take
// AT_EMPTY_PATH (EBADF; fs/xattr.c, path_getxattrat). It is then reached through procfs.
func (a At) byFd(err error) bool { return err == unix.EBADF && a.Name == "" }

// Getxattr reads one extended attribute of the object itself into dest and returns its size; an empty dest asks
// for the size only. Errors: ENODATA where there is none, ERANGE where dest is too small, ENOTSUP.
func Getxattr(a At, attr string, dest []byte) (n int, err error) {
	err = retry(func() (err error) {
		if haveXattrat() {
			if n, err = getxattrat(a, attr, dest); !a.byFd(err) {
				return err
			}
		}
		if a.Name == "" {
			n, err = unix.Getxattr(a.proc(), attr, dest)
		} else {
			n, err = unix.Lgetxattr(a.proc(), attr, dest)
		}
		return err
	})
	return n, err
}

// Setxattr writes one extended attribute; flags are XATTR_CREATE and XATTR_REPLACE of setxattr(2).
func Setxattr(a At, attr string, value []byte, flags int) error {
	return retry(func() error {
		if haveXattrat() {
			if err := setxattrat(a, attr, value, flags); !a.byFd(err) {
				return err
			}
		}
		if a.Name == "" {
			return unix.Setxattr(a.proc(), attr, value, flags)
		}
		return unix.Lsetxattr(a.proc(), attr, value, flags)
	})
}

// Listxattr reads the NUL-terminated names of the object's extended attributes into dest.
func Listxattr(a At, dest []byte) (n int, err error) {
	err = retry(func() (err error) {
		if haveXattrat() {
			if n, err = listxattrat(a, dest); !a.byFd(err) {
				return err
			}
		}
		if a.Name == "" {
			n, err = unix.Listxattr(a.proc(), dest)
		} else {
			n, err = unix.Llistxattr(a.proc(), dest)
		}
		return err
	})
	return n, err
}

// Removexattr removes one extended attribute.
func Removexattr(a At, attr string) error {
	return retry(func() error {
		if haveXattrat() {
			if err := removexattrat(a, attr); !a.byFd(err) {
				return err
			}
		}
		if a.Name == "" {
			return unix.Removexattr(a.proc(), attr)
		}
		return unix.Lremovexattr(a.proc(), attr)
	})
}

// XattrValue returns the whole value of one extended attribute, whatever its size.
func XattrValue(a At, attr string) ([]byte, error) {
	var small [256]byte
	n, err := Getxattr(a, attr, small[:])
	for err == unix.ERANGE {
		if n, err = Getxattr(a, attr, nil); err != nil {
			return nil, err
		}
		buf := make([]byte, max(n, 1)) // an empty one would ask for the size again
		if n, err = Getxattr(a, attr, buf); err == nil {
			return buf[:n], nil
		}
	}
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), small[:n]...), nil
}

// XattrNames returns the names of all extended attributes that we may see. A filesystem without any is no error.
func XattrNames(a At) ([]string, error) {
	var small [1024]byte
	buf := small[:]
	n, err := Listxattr(a, buf)
	for err == unix.ERANGE {
		if n, err = Listxattr(a, nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+256)
		n, err = Listxattr(a, buf)
	}
	if err == unix.ENOTSUP || err == unix.ENOSYS {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return SplitXattrNames(buf[:n]), nil
}

// SplitXattrNames splits a list of NUL-terminated names as listxattr(2) returns it.
func SplitXattrNames(list []byte) []string {
	var names []string
	for start, i := 0, 0; i < len(list); i++ {
		if list[i] == 0 {
			names = append(names, string(list[start:i]))
			start = i + 1
		}
	}
	return names
}
