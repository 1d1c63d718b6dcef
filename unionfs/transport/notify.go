package transport

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Notifier is the way from the filesystem to the kernel: what the kernel does not know, and what it may go on without.
// It may be used from any goroutine, from within a request too, with no lock held that a request may wait for. Before
// the first request and after the last it does nothing.
//
// The zero value is ready to use.
//
// Errors: ENOENT where the kernel does not know the node; ENOTCONN without a mount.
type Notifier struct {
	carrier atomic.Pointer[carrierBox]
	device  atomic.Pointer[connection]
	sent    [noteCount]atomic.Uint64
}

// The kinds of notices that are counted.
const (
	noteInvalInode = iota
	noteInvalEntry
	noteDelete
	noteStore
	noteCount
)

// noteNames are those of linux/fuse.h, without FUSE_NOTIFY_.
var noteNames = [noteCount]string{
	noteInvalInode: "INVAL_INODE", noteInvalEntry: "INVAL_ENTRY", noteDelete: "DELETE", noteStore: "STORE",
}

// Sent tells how many notices the kernel has taken, by kind.
func (n *Notifier) Sent() map[string]uint64 {
	sent := map[string]uint64{}
	for kind, name := range noteNames {
		sent[name] = n.sent[kind].Load()
	}
	return sent
}

// told counts a notice that was taken.
func (n *Notifier) told(kind int, status fuse.Status) fuse.Status {
	if status == fuse.OK {
		n.sent[kind].Add(1)
	}
	return status
}

type carrierBox struct{ carrier }

func (n *Notifier) attach(c carrier) { n.carrier.Store(&carrierBox{c}) }

func (n *Notifier) detach() { n.carrier.Store(nil) }

// InvalInode tells that a node's attributes have changed, and length bytes of its content from off on: all that follow
// where length is 0, none where off is negative.
func (n *Notifier) InvalInode(nodeid uint64, off, length int64) fuse.Status {
	if c := n.carrier.Load(); c != nil {
		return n.told(noteInvalInode, c.invalInode(nodeid, off, length))
	}
	return fuse.Status(unix.ENOTCONN)
}

// InvalEntry tells that a name in a directory is not what it was.
func (n *Notifier) InvalEntry(parent uint64, name string) fuse.Status {
	if c := n.carrier.Load(); c != nil {
		return n.told(noteInvalEntry, c.invalEntry(parent, name))
	}
	return fuse.Status(unix.ENOTCONN)
}

// Delete tells that child, which had this name in parent, is gone.
func (n *Notifier) Delete(parent, child uint64, name string) fuse.Status {
	if c := n.carrier.Load(); c != nil {
		return n.told(noteDelete, c.delete(parent, child, name))
	}
	return fuse.Status(unix.ENOTCONN)
}

// Store puts data into the kernel's cache of a node, at off bytes. It is meant for who works beside the requests: within
// one, others may wait longer than for the rest.
func (n *Notifier) Store(nodeid uint64, off int64, data []byte) fuse.Status {
	if c := n.carrier.Load(); c != nil {
		return n.told(noteStore, c.store(nodeid, off, data))
	}
	return fuse.Status(unix.ENOTCONN)
}

// Blocking says that the request which the caller works at will take long: others need not wait for it. It is cheap
// beside what takes long, and may be said by anybody and more than once.
func (n *Notifier) Blocking() {
	if c := n.carrier.Load(); c != nil {
		c.blocking()
	}
}

// Offers tells whether the kernel has offered all of fuse.CAP_* in caps. What it offers and the server can use is agreed on.
func (n *Notifier) Offers(caps uint64) bool {
	c := n.carrier.Load()
	return c != nil && c.info().Offered&caps == caps
}

// OpenBacking registers an open regular file, which the answer to an OPEN may name then: the kernel reads and writes it by
// itself. It may be closed afterwards. CloseBacking takes the number back; who has the file open goes on.
//
// Errors: EPERM for whoever is not root of the machine, or where INIT has not agreed to it; ELOOP for a file on a stack
// of filesystems; ENOTCONN without a mount.
//
// Source: linux/Documentation/filesystems/fuse/fuse-passthrough.rst.
func (n *Notifier) OpenBacking(fd int) (id int32, err error) {
	if c := n.device.Load(); c != nil {
		return c.openBacking(fd)
	}
	return 0, unix.ENOTCONN
}

// CloseBacking is the end of what OpenBacking has begun.
func (n *Notifier) CloseBacking(id int32) {
	if c := n.device.Load(); c != nil {
		c.closeBacking(id)
	}
}
