package unionfs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/whiteout"
	"golang.org/x/sys/unix"
)

// openFile is the descriptor through which a node's data is read and written. All who have the file open share it:
// the kernel sends offsets with every request.
type openFile struct {
	fd    cachedFd
	flags int  // O_RDWR, O_RDONLY or O_WRONLY
	lower bool // it is open on the lower object: of no use after copy-up

	// appends says that it is open with O_APPEND, as the file's own flags demand (FS_APPEND_FL).
	appends bool
}

// Open tells the kernel that files need no opening, for the life of the mount: it then keeps their pages, and IO
// comes by nodeid. ENOSYS is meant (FUSE_NO_OPEN_SUPPORT). With passthrough each file is opened.
func (fs *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !fs.passes() {
		return fuse.ENOSYS
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("open", unix.ESTALE)
	}
	if fs.upper == nil && in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	fs.opened(n, in.Flags, out)
	return fuse.OK
}

// Flush is not needed: nothing is kept back. ENOSYS is meant.
func (fs *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Release comes for files that Open or Tmpfile has opened. Without passthrough there is nothing to release.
func (fs *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if n := fs.nodes.get(in.NodeId); n != nil && fs.cfg.Passthrough {
		fs.closed(n)
	}
}

// Access is checked by the kernel (default_permissions). ENOSYS is meant.
func (fs *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// data is an open descriptor of a node's data. The node's content stays where it is until done is called.
type data struct {
	fd      int
	appends bool // as openFile has it
	done    func()
}

// openData returns a descriptor that can do what flags (O_RDONLY or O_WRONLY) says.
//
// Preconditions: to write, the node has been copied up.
func (fs *FS) openData(n *node, flags int) (data, error) {
	if n.kind() != unix.S_IFREG {
		return data{}, unix.EINVAL
	}
	n.loc.RLock()
	fd, f, err := fs.openDataLocked(n, flags)
	if err != nil {
		n.loc.RUnlock()
		return data{}, err
	}
	return data{fd, f.appends, func() {
		fs.fds.release(&f.fd)
		n.loc.RUnlock()
	}}, nil
}

// openDataLocked is openData with n.loc held shared.
func (fs *FS) openDataLocked(n *node, flags int) (int, *openFile, error) {
	f := n.file.Load()
	if f != nil && f.lower == !n.up && (f.flags == unix.O_RDWR || f.flags == flags) {
		if fd, ok := fs.fds.acquire(&f.fd); ok {
			return fd, f, nil
		}
	} else {
		f = nil
	}
	fd, got, err := fs.openNode(n, flags)
	if err != nil {
		return -1, nil, err
	}
	if f == nil || f.flags != got&unix.O_ACCMODE {
		f = fs.replaceFile(n, &openFile{flags: got & unix.O_ACCMODE, lower: !n.up, appends: got&unix.O_APPEND != 0})
	}
	return fs.fds.install(&f.fd, fd), f, nil
}

// replaceFile makes f the node's descriptor. The one it had is closed as soon as nobody uses it: it is in the
// table's ring then, and no longer in anybody's reach.
func (fs *FS) replaceFile(n *node, f *openFile) *openFile {
	if old := n.file.Swap(f); old != nil {
		fs.fds.forget(&old.fd)
	}
	return f
}

// openNode opens the object that holds the node's data, for both reading and writing where that is allowed.
func (fs *FS) openNode(n *node, flags int) (fd, got int, err error) {
	at, l, release, err := fs.locateLocked(n)
	if err != nil {
		return -1, 0, err
	}
	defer release()
	if !n.up {
		// Whatever was put in its place does not make us wait, as a fifo would.
		fd, err = sys.OpenNoAtime(at, unix.O_RDONLY|unix.O_NONBLOCK)
		if err == unix.EWOULDBLOCK {
			fd, err = sys.OpenNoAtime(at, unix.O_RDONLY) // somebody has a lease on it (fcntl(2))
		}
		if err != nil {
			return -1, 0, err
		}
		fd, err = fs.metacopyOf(n, fd, at)
		return fd, unix.O_RDONLY, err
	}
	extra := 0
	if fs.cfg.NoAtime {
		extra = unix.O_NOATIME
	}
	for _, got = range []int{unix.O_RDWR, flags} {
		fd, err = sys.Open(at, got|extra, 0)
		if err != unix.EACCES && err != unix.EPERM && err != unix.ETXTBSY {
			break
		}
	}
	if err == unix.EPERM && flags == unix.O_WRONLY {
		got |= unix.O_APPEND
		fd, err = sys.Open(at, got|extra, 0)
	}
	if err == unix.EACCES {
		fd, err = openDenied(at, flags)
		got = flags
	}
	if err != nil {
		return -1, 0, err
	}
	if n.isPlain() {
		return fd, got, nil
	}
	return fd, got, fs.checkData(fd, l)
}

// openDenied opens a file of our own whose mode does not let us, as an unprivileged server meets it: the kernel has
// let the caller open it before its mode was changed, or created it with such a mode.
func openDenied(at sys.At, flags int) (int, error) {
	st, err := sys.Stat(at)
	if err != nil {
		return -1, err
	}
	if err := sys.Chmod(at, st.Mode|0o600); err != nil {
		return -1, unix.EACCES
	}
	fd, err := sys.Open(at, flags, 0)
	if errBack := sys.Chmod(at, st.Mode); err == nil && errBack != nil {
		sys.Close(fd)
		return -1, errBack
	}
	return fd, err
}

// checkData refuses a file of the upper whose data is in another layer (metacopy): what it holds itself is a hole, and
// we do not write such.
func (fs *FS) checkData(fd int, l *layer) error {
	names, err := sys.XattrNames(sys.Fd(fd))
	if err == nil && whiteout.IsMetacopy(names) {
		sys.Close(fd)
		return fmt.Errorf("layer %s: a file made with metacopy=on can be read in a lower only: %w", l.path, unix.EIO)
	}
	return nil
}

// Read reads from a file.
func (fs *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return nil, fs.status("read", unix.ESTALE)
	}
	result, status := fs.read(n, in, buf)
	if in.Offset == 0 && status == fuse.OK {
		fs.wasRead(n)
	}
	return result, status
}

func (fs *FS) read(n *node, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d, err := fs.openData(n, unix.O_RDONLY)
	if err != nil {
		return nil, fs.status("read", err)
	}
	defer d.done()
	if in.Flags&unix.O_NOATIME != 0 && n.up && !fs.cfg.NoAtime {
		return fs.readNoAtime(n, int64(in.Offset), buf)
	}
	got, size := 0, fs.sizeOf(n)
	for got < len(buf) && int64(in.Offset)+int64(got) != size {
		k, err := unix.Pread(d.fd, buf[got:], int64(in.Offset)+int64(got))
		if err == unix.EINTR {
			continue
		}
		if err == unix.ESPIPE {
			err = unix.EIO // somebody has put a fifo in the place of a lower file
		}
		if err != nil {
			return nil, fs.status("read", err)
		}
		if k == 0 {
			break
		}
		got += k
	}
	if n.up && !fs.cfg.NoAtime {
		n.changed() // the access time
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// sizeOf returns the size of a file that cannot get another one, in bytes; -1 where it could, or is not known without
// asking. Precondition: n.loc is held.
func (fs *FS) sizeOf(n *node) int64 {
	var a fuse.Attr
	if n.up || !fs.attrs.get(n, &a) {
		return -1
	}
	return int64(a.Size)
}

// readNoAtime reads for somebody who opened the file with O_NOATIME. Precondition: n.loc is held shared.
func (fs *FS) readNoAtime(n *node, off int64, buf []byte) (fuse.ReadResult, fuse.Status) {
	at, _, release, err := fs.locateLocked(n)
	if err != nil {
		return nil, fs.status("read", err)
	}
	defer release()
	fd, err := sys.OpenNoAtime(at, unix.O_RDONLY)
	if err != nil {
		return nil, fs.status("read", err)
	}
	defer sys.Close(fd)
	got, err := unix.Pread(fd, buf, off)
	for err == unix.EINTR {
		got, err = unix.Pread(fd, buf, off)
	}
	if err != nil {
		return nil, fs.status("read", err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// Write writes to a file, copying it up first.
func (fs *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, buf []byte) (uint32, fuse.Status) {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return 0, fs.status("write", unix.ESTALE)
	}
	d, err := fs.openForWrite(n)
	if err != nil {
		return 0, fs.status("write", err)
	}
	defer d.done()
	defer n.changed()
	if d.appends && in.Flags&unix.O_APPEND == 0 {
		return 0, fuse.EPERM // an append-only file
	}
	put := 0
	for put < len(buf) {
		k, err := unix.Pwrite(d.fd, buf[put:], int64(in.Offset)+int64(put))
		if err == unix.EINTR {
			continue
		}
		if err != nil && put == 0 {
			return 0, fs.status("write", err)
		}
		if err != nil {
			break // what was written counts; the next request meets the error again
		}
		put += k
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := fs.killSetID(n, d.fd); err != nil {
			return 0, fs.status("write", err)
		}
	}
	return uint32(put), fuse.OK
}

// Writev is not offered: requests come in one piece.
func (fs *FS) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// openForWrite copies the node up and returns a descriptor to write to.
func (fs *FS) openForWrite(n *node) (data, error) {
	if n.kind() != unix.S_IFREG {
		return data{}, unix.EINVAL
	}
	if err := fs.copyUp(n, wholeFile); err != nil {
		return data{}, err
	}
	return fs.openData(n, unix.O_WRONLY)
}

// killSetID clears what a write by somebody without CAP_FSETID takes away: set-user-ID, and set-group-ID where it
// means that (FUSE_HANDLE_KILLPRIV_V2 leaves it to the server).
func (fs *FS) killSetID(n *node, fd int) error { return fs.killSetIDAt(n, sys.Fd(fd)) }

func (fs *FS) killSetIDAt(n *node, at sys.At) error {
	if o, ok := fs.readOverride(at); ok {
		defer fs.overrides.lock(n)()
		if mode := withoutSetID(o.Mode); mode != o.Mode {
			o.Mode = mode
			err := fs.writeOverride(at, o)
			n.changed()
			fs.stale(n)
			return err
		}
		return nil
	}
	st, err := sys.Stat(at)
	if err != nil {
		return err
	}
	if mode := withoutSetID(st.Mode); mode != st.Mode {
		err := sys.Chmod(at, mode)
		n.changed()
		fs.stale(n) // the kernel does not expect a write to change the mode
		return err
	}
	return nil
}

// killSetIDFor is killSetID for requests that do not say whether the caller has CAP_FSETID: root is taken to.
func (fs *FS) killSetIDFor(n *node, fd int, uid uint32) error {
	if uid == 0 {
		return nil
	}
	return fs.killSetID(n, fd)
}

func withoutSetID(mode uint32) uint32 {
	mode &^= unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode
}

// Fsync makes a file's data, and unless datasync its attributes, safe. What was not copied up is safe already.
func (fs *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("fsync", unix.ESTALE)
	}
	if fs.cfg.Volatile || n.kind() != unix.S_IFREG || !n.isUp() {
		return fuse.OK
	}
	d, err := fs.openData(n, unix.O_RDONLY)
	if err != nil {
		return fs.status("fsync", err)
	}
	defer d.done()
	if in.FsyncFlags&1 != 0 { // FUSE_FSYNC_FDATASYNC
		return fs.status("fdatasync", unix.Fdatasync(d.fd))
	}
	return fs.status("fsync", unix.Fsync(d.fd))
}

// FsyncDir makes the names in a directory safe.
func (fs *FS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil || !n.isDir() {
		return fs.status("fsyncdir", unix.ENOTDIR)
	}
	if fs.cfg.Volatile {
		return fuse.OK
	}
	list, err := fs.reopenUpper(n)
	if err != nil || list < 0 {
		return fs.status("fsyncdir", err)
	}
	defer sys.Close(list)
	return fs.status("fsyncdir", unix.Fsync(list))
}

// Fallocate does what the upper's filesystem can, all modes of fallocate(2).
func (fs *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("fallocate", unix.ESTALE)
	}
	d, err := fs.openForWrite(n)
	if err != nil {
		return fs.status("fallocate", err)
	}
	defer d.done()
	defer n.changed()
	if err = sys.Fallocate(d.fd, in.Mode, int64(in.Offset), int64(in.Length)); err == nil {
		err = fs.killSetIDFor(n, d.fd, in.Uid)
	}
	return fs.status("fallocate", err)
}

// Lseek finds data and holes; other positions are the kernel's business.
//
// What was written through a mapping may be known to the kernel only, which asks all the same (fuse_lseek in
// fs/fuse/file.c). So it is made to let go of the file's pages first, and thereby to write those: a request that somebody
// else answers meanwhile. Where nobody else does, and with a writeback cache, which has more to write than mappings,
// ENOSYS makes it answer by itself: all is data.
func (fs *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if fs.cfg.WritebackCache || fs.cfg.SingleThreaded {
		return fuse.ENOSYS
	}
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return fs.status("lseek", unix.ESTALE)
	}
	if fs.upper != nil {
		_ = fs.kernel.InvalInode(n.id, 0, 0) // ENOENT: nobody has it mapped
	}
	d, err := fs.openData(n, unix.O_RDONLY)
	if err != nil {
		return fs.status("lseek", err)
	}
	defer d.done()
	// The descriptor's own position is moved, and used by nobody.
	off, err := unix.Seek(d.fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return fs.status("lseek", err)
}

// CopyFileRange copies within the mount; where the layers share a filesystem that can, without copying.
func (fs *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, dst := fs.nodes.get(in.NodeId), fs.nodes.get(in.NodeIdOut)
	if src == nil || dst == nil {
		return 0, fs.status("copy_file_range", unix.ESTALE)
	}
	if err := fs.copyUp(dst, wholeFile); err != nil {
		return 0, fs.status("copy_file_range", err)
	}
	from, err := fs.openPair(src, dst)
	if err != nil {
		return 0, fs.status("copy_file_range", err)
	}
	defer from.done()
	defer dst.changed()
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	size := int(min(in.Len, 1<<30))
	n, err := unix.CopyFileRange(from.in, &offIn, from.out, &offOut, size, 0)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = unix.EOPNOTSUPP // the kernel copies through its cache then
	}
	if err == nil {
		err = fs.killSetIDFor(dst, from.out, in.Uid)
	}
	if err != nil {
		return 0, fs.status("copy_file_range", err)
	}
	return uint32(n), fuse.OK
}

// pair is two open files of which one is copied to the other.
type pair struct {
	in, out int
	done    func()
}

// openPair opens src to read and dst, which has been copied up, to write. The content of both stays in place until
// done; the locks are taken in the order of all lockNodes.
func (fs *FS) openPair(src, dst *node) (pair, error) {
	if src.kind() != unix.S_IFREG || dst.kind() != unix.S_IFREG {
		return pair{}, unix.EINVAL
	}
	sorted := sortedNodes([]*node{src, dst})
	for _, n := range sorted {
		n.loc.RLock()
	}
	unlock := func() {
		for _, n := range sorted {
			n.loc.RUnlock()
		}
	}
	in, fin, err := fs.openDataLocked(src, unix.O_RDONLY)
	if err != nil {
		unlock()
		return pair{}, err
	}
	out, fout, err := fs.openDataLocked(dst, unix.O_WRONLY)
	if err != nil {
		fs.fds.release(&fin.fd)
		unlock()
		return pair{}, err
	}
	return pair{in, out, func() {
		fs.fds.release(&fin.fd)
		fs.fds.release(&fout.fd)
		unlock()
	}}, nil
}
