package sys

import "golang.org/x/sys/unix"

// Fallocate is fallocate(2). Some filesystems give up for any signal, as tmpfs does (mm/shmem.c, shmem_fallocate), and the Go
// runtime signals its threads: it is begun anew then.
func Fallocate(fd int, mode uint32, off, length int64) error {
	return retry(func() error { return unix.Fallocate(fd, mode, off, length) })
}
