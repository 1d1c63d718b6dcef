package transport

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// notify writes a notification: struct fuse_out_header with the code for an error, and what belongs to it.
func (l *loop) notify(code int32, parts ...[]byte) fuse.Status {
	l.sending.RLock()
	defer l.sending.RUnlock()
	if l.closed {
		return fuse.Status(unix.ENOTCONN)
	}
	size := outHeaderSize
	for _, p := range parts {
		size += len(p)
	}
	h := make([]byte, outHeaderSize)
	*sys.View[fuse.OutHeader](h) = fuse.OutHeader{Length: uint32(size), Status: code}
	_, err := unix.Writev(l.fd, append([][]byte{h}, parts...))
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, unix.EINVAL):
		return fuse.ENOSYS // it does not know this notification
	}
	return fuse.ToStatus(err)
}

// The codes of include/uapi/linux/fuse.h, enum fuse_notify_code.
const (
	notifyInvalInode = 2
	notifyInvalEntry = 3
	notifyStore      = 4
	notifyRetrieve   = 5
	notifyDelete     = 6
)

func bytesOf[T any](v T) []byte {
	p := make([]byte, sys.SizeOf[T]())
	*sys.View[T](p) = v
	return p
}

// invalInode waits for pages that are being read where off is not negative: somebody has to answer these READs.
func (l *loop) invalInode(nodeid uint64, off, length int64) fuse.Status {
	if off >= 0 {
		l.blocking()
	}
	return l.notify(notifyInvalInode, bytesOf(fuse.NotifyInvalInodeOut{Ino: nodeid, Off: off, Length: length}))
}

// invalEntry waits for the directory's lock in the kernel, whose holder may wait for an answer.
func (l *loop) invalEntry(parent uint64, name string) fuse.Status {
	l.blocking()
	in := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	return l.notify(notifyInvalEntry, bytesOf(in), append([]byte(name), 0))
}

// delete waits as invalEntry does.
func (l *loop) delete(parent, child uint64, name string) fuse.Status {
	l.blocking()
	in := fuse.NotifyInvalDeleteOut{Parent: parent, Child: child, NameLen: uint32(len(name))}
	return l.notify(notifyDelete, bytesOf(in), append([]byte(name), 0))
}

// store waits for pages that are being read. Nobody is put on duty for that: what is stored is sent from beside the
// requests, so all readers go on, and within a request the watchdog finds the reader.
func (l *loop) store(nodeid uint64, off int64, data []byte) fuse.Status {
	in := fuse.NotifyStoreOut{Nodeid: nodeid, Offset: uint64(off), Size: uint32(len(data))}
	return l.notify(notifyStore, bytesOf(in), data)
}
