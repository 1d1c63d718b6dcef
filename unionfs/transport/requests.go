package transport

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The requests that are counted. FORGET counts nodes: a BATCH_FORGET is several. RENAME is RENAME2 too. What the loop
// answers by itself (INTERRUPT, BATCH_FORGET as such) is not seen here.
const (
	opInit = iota
	opForget
	opRelease
	opReleaseDir
	opWrite
	opLookup
	opGetAttr
	opSetAttr
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opSymlink
	opReadlink
	opAccess
	opGetXAttr
	opListXAttr
	opSetXAttr
	opRemoveXAttr
	opCreate
	opTmpfile
	opOpen
	opRead
	opLseek
	opGetLk
	opSetLk
	opSetLkw
	opCopyFileRange
	opIoctl
	opFlush
	opFsync
	opFallocate
	opOpenDir
	opReadDir
	opReadDirPlus
	opFsyncDir
	opStatFs
	opStatx
	opCount
)

var opNames = [opCount]string{
	opInit:          "INIT",
	opForget:        "FORGET",
	opRelease:       "RELEASE",
	opReleaseDir:    "RELEASEDIR",
	opWrite:         "WRITE",
	opLookup:        "LOOKUP",
	opGetAttr:       "GETATTR",
	opSetAttr:       "SETATTR",
	opMknod:         "MKNOD",
	opMkdir:         "MKDIR",
	opUnlink:        "UNLINK",
	opRmdir:         "RMDIR",
	opRename:        "RENAME",
	opLink:          "LINK",
	opSymlink:       "SYMLINK",
	opReadlink:      "READLINK",
	opAccess:        "ACCESS",
	opGetXAttr:      "GETXATTR",
	opListXAttr:     "LISTXATTR",
	opSetXAttr:      "SETXATTR",
	opRemoveXAttr:   "REMOVEXATTR",
	opCreate:        "CREATE",
	opTmpfile:       "TMPFILE",
	opOpen:          "OPEN",
	opRead:          "READ",
	opLseek:         "LSEEK",
	opGetLk:         "GETLK",
	opSetLk:         "SETLK",
	opSetLkw:        "SETLKW",
	opCopyFileRange: "COPYFILERANGE",
	opIoctl:         "IOCTL",
	opFlush:         "FLUSH",
	opFsync:         "FSYNC",
	opFallocate:     "FALLOCATE",
	opOpenDir:       "OPENDIR",
	opReadDir:       "READDIR",
	opReadDirPlus:   "READDIRPLUS",
	opFsyncDir:      "FSYNCDIR",
	opStatFs:        "STATFS",
	opStatx:         "STATX",
}

// requests stands between the loop and the filesystem and counts what passes, by opcode.
type requests struct {
	fuse.RawFileSystem

	guard *guard // nil where everybody may in whom the kernel lets in
	gone  func() // that the mount is gone; again it does nothing
	n     [opCount]atomic.Uint64
}

var _ fuse.RawFileSystem = (*requests)(nil)

// OnUnmount is called when the last request is answered.
func (r *requests) OnUnmount() {
	r.gone()
	r.RawFileSystem.OnUnmount()
}

func (r *requests) write(w io.Writer) error {
	for op := range r.n {
		if n := r.n[op].Load(); n > 0 {
			if _, err := fmt.Fprintf(w, "%s %d\n", opNames[op], n); err != nil {
				return err
			}
		}
	}
	return nil
}

// total is how many requests came.
func (r *requests) total() uint64 {
	var sum uint64
	for op := range r.n {
		sum += r.n[op].Load()
	}
	return sum
}

func (r *requests) Forget(nodeid, nlookup uint64) {
	r.n[opForget].Add(1)
	r.RawFileSystem.Forget(nodeid, nlookup)
}

func (r *requests) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	r.n[opRelease].Add(1)
	r.RawFileSystem.Release(cancel, in)
}

func (r *requests) ReleaseDir(in *fuse.ReleaseIn) {
	r.n[opReleaseDir].Add(1)
	r.RawFileSystem.ReleaseDir(in)
}

// Writev and Write are one request: the loop asks for the first, and for the second where it is not implemented.
func (r *requests) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	n, status := r.RawFileSystem.Writev(cancel, in, data)
	if status != fuse.ENOSYS {
		r.n[opWrite].Add(1)
	}
	return n, status
}

func (r *requests) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	r.n[opWrite].Add(1)
	return r.RawFileSystem.Write(cancel, in, data)
}

func (r *requests) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r.n[opLookup].Add(1)
	return r.RawFileSystem.Lookup(cancel, header, name, out)
}

func (r *requests) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.n[opGetAttr].Add(1)
	if r.guard != nil {
		if !r.guard.admits(&in.InHeader) {
			return fuse.EACCES
		}
		status := r.RawFileSystem.GetAttr(cancel, in, out)
		r.guard.expire(in.NodeId, out)
		return status
	}
	return r.RawFileSystem.GetAttr(cancel, in, out)
}

func (r *requests) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	r.n[opSetAttr].Add(1)
	if r.guard != nil {
		if !r.guard.admits(&in.InHeader) {
			return fuse.EACCES
		}
		status := r.RawFileSystem.SetAttr(cancel, in, out)
		r.guard.expire(in.NodeId, out)
		return status
	}
	return r.RawFileSystem.SetAttr(cancel, in, out)
}

func (r *requests) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	r.n[opMknod].Add(1)
	return r.RawFileSystem.Mknod(cancel, in, name, out)
}

func (r *requests) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	r.n[opMkdir].Add(1)
	return r.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (r *requests) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r.n[opUnlink].Add(1)
	return r.RawFileSystem.Unlink(cancel, header, name)
}

func (r *requests) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r.n[opRmdir].Add(1)
	return r.RawFileSystem.Rmdir(cancel, header, name)
}

func (r *requests) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r.n[opRename].Add(1)
	return r.RawFileSystem.Rename(cancel, in, oldName, newName)
}

func (r *requests) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r.n[opLink].Add(1)
	return r.RawFileSystem.Link(cancel, in, name, out)
}

func (r *requests) Symlink(cancel <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	r.n[opSymlink].Add(1)
	return r.RawFileSystem.Symlink(cancel, header, target, name, out)
}

func (r *requests) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	r.n[opReadlink].Add(1)
	return r.RawFileSystem.Readlink(cancel, header)
}

func (r *requests) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	r.n[opAccess].Add(1)
	return r.RawFileSystem.Access(cancel, in)
}

func (r *requests) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	r.n[opGetXAttr].Add(1)
	return r.RawFileSystem.GetXAttr(cancel, header, attr, dest)
}

func (r *requests) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r.n[opListXAttr].Add(1)
	return r.RawFileSystem.ListXAttr(cancel, header, dest)
}

func (r *requests) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	r.n[opSetXAttr].Add(1)
	return r.RawFileSystem.SetXAttr(cancel, in, attr, data)
}

func (r *requests) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	r.n[opRemoveXAttr].Add(1)
	return r.RawFileSystem.RemoveXAttr(cancel, header, attr)
}

func (r *requests) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r.n[opCreate].Add(1)
	return r.RawFileSystem.Create(cancel, in, name, out)
}

func (r *requests) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	r.n[opTmpfile].Add(1)
	return r.RawFileSystem.Tmpfile(cancel, in, out)
}

func (r *requests) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.n[opOpen].Add(1)
	return r.RawFileSystem.Open(cancel, in, out)
}

func (r *requests) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r.n[opRead].Add(1)
	return r.RawFileSystem.Read(cancel, in, buf)
}

func (r *requests) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	r.n[opLseek].Add(1)
	return r.RawFileSystem.Lseek(cancel, in, out)
}

func (r *requests) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	r.n[opGetLk].Add(1)
	return r.RawFileSystem.GetLk(cancel, in, out)
}

func (r *requests) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r.n[opSetLk].Add(1)
	return r.RawFileSystem.SetLk(cancel, in)
}

func (r *requests) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r.n[opSetLkw].Add(1)
	return r.RawFileSystem.SetLkw(cancel, in)
}

func (r *requests) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	r.n[opCopyFileRange].Add(1)
	return r.RawFileSystem.CopyFileRange(cancel, in)
}

func (r *requests) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	r.n[opIoctl].Add(1)
	return r.RawFileSystem.Ioctl(cancel, in, inbuf, out, outbuf)
}

func (r *requests) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	r.n[opFlush].Add(1)
	return r.RawFileSystem.Flush(cancel, in)
}

func (r *requests) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r.n[opFsync].Add(1)
	return r.RawFileSystem.Fsync(cancel, in)
}

func (r *requests) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r.n[opFallocate].Add(1)
	return r.RawFileSystem.Fallocate(cancel, in)
}

func (r *requests) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.n[opOpenDir].Add(1)
	return r.RawFileSystem.OpenDir(cancel, in, out)
}

func (r *requests) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.n[opReadDir].Add(1)
	return r.RawFileSystem.ReadDir(cancel, in, out)
}

func (r *requests) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.n[opReadDirPlus].Add(1)
	return r.RawFileSystem.ReadDirPlus(cancel, in, out)
}

func (r *requests) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r.n[opFsyncDir].Add(1)
	return r.RawFileSystem.FsyncDir(cancel, in)
}

func (r *requests) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r.n[opStatFs].Add(1)
	return r.RawFileSystem.StatFs(cancel, header, out)
}

func (r *requests) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	r.n[opStatx].Add(1)
	if r.guard != nil {
		if !r.guard.admits(&in.InHeader) {
			return fuse.EACCES
		}
		status := r.RawFileSystem.Statx(cancel, in, out)
		r.guard.expire(in.NodeId, out)
		return status
	}
	return r.RawFileSystem.Statx(cancel, in, out)
}
