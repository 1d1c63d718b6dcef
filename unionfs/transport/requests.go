package transport

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// requests stands between the loop and the filesystem, and counts what passes (count.go).
type requests struct {
	fuse.RawFileSystem
	counts

	guard *guard // nil where everybody may in whom the kernel lets in
	gone  func() // that the mount is gone; again it does nothing
}

var _ fuse.RawFileSystem = (*requests)(nil)

// OnUnmount is called when the last request is answered.
func (r *requests) OnUnmount() {
	r.gone()
	r.RawFileSystem.OnUnmount()
}

func (r *requests) Forget(nodeid, nlookup uint64) {
	s := r.begin(opForget)
	r.RawFileSystem.Forget(nodeid, nlookup)
	r.end(s, fuse.OK)
}

func (r *requests) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	s := r.begin(opRelease)
	r.RawFileSystem.Release(cancel, in)
	r.end(s, fuse.OK)
}

func (r *requests) ReleaseDir(in *fuse.ReleaseIn) {
	s := r.begin(opReleaseDir)
	r.RawFileSystem.ReleaseDir(in)
	r.end(s, fuse.OK)
}

// Writev and Write are one request: the loop asks for the first, and for the second where it is not implemented. As the
// union does not, the time that the first takes is not measured.
func (r *requests) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	n, status := r.RawFileSystem.Writev(cancel, in, data)
	if status == fuse.ENOSYS {
		return n, status
	}
	if status == fuse.OK {
		r.written.Add(uint64(n))
	}
	return n, r.end(r.begin(opWrite), status)
}

func (r *requests) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	s := r.begin(opWrite)
	n, status := r.RawFileSystem.Write(cancel, in, data)
	if status == fuse.OK {
		r.written.Add(uint64(n))
	}
	return n, r.end(s, status)
}

func (r *requests) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s := r.begin(opLookup)
	return r.end(s, r.RawFileSystem.Lookup(cancel, header, name, out))
}

func (r *requests) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s := r.begin(opGetAttr)
	if r.guard == nil {
		return r.end(s, r.RawFileSystem.GetAttr(cancel, in, out))
	}
	if !r.guard.admits(&in.InHeader) {
		return r.end(s, fuse.EACCES)
	}
	status := r.RawFileSystem.GetAttr(cancel, in, out)
	r.guard.expire(in.NodeId, out)
	return r.end(s, status)
}

func (r *requests) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s := r.begin(opSetAttr)
	if r.guard == nil {
		return r.end(s, r.RawFileSystem.SetAttr(cancel, in, out))
	}
	if !r.guard.admits(&in.InHeader) {
		return r.end(s, fuse.EACCES)
	}
	status := r.RawFileSystem.SetAttr(cancel, in, out)
	r.guard.expire(in.NodeId, out)
	return r.end(s, status)
}

func (r *requests) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	s := r.begin(opMknod)
	return r.end(s, r.RawFileSystem.Mknod(cancel, in, name, out))
}

func (r *requests) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s := r.begin(opMkdir)
	return r.end(s, r.RawFileSystem.Mkdir(cancel, in, name, out))
}

func (r *requests) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	s := r.begin(opUnlink)
	return r.end(s, r.RawFileSystem.Unlink(cancel, header, name))
}

func (r *requests) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	s := r.begin(opRmdir)
	return r.end(s, r.RawFileSystem.Rmdir(cancel, header, name))
}

func (r *requests) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	s := r.begin(opRename)
	return r.end(s, r.RawFileSystem.Rename(cancel, in, oldName, newName))
}

func (r *requests) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	s := r.begin(opLink)
	return r.end(s, r.RawFileSystem.Link(cancel, in, name, out))
}

func (r *requests) Symlink(cancel <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	s := r.begin(opSymlink)
	return r.end(s, r.RawFileSystem.Symlink(cancel, header, target, name, out))
}

func (r *requests) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	s := r.begin(opReadlink)
	target, status := r.RawFileSystem.Readlink(cancel, header)
	return target, r.end(s, status)
}

func (r *requests) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	s := r.begin(opAccess)
	return r.end(s, r.RawFileSystem.Access(cancel, in))
}

func (r *requests) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	s := r.begin(opGetXAttr)
	n, status := r.RawFileSystem.GetXAttr(cancel, header, attr, dest)
	return n, r.end(s, status)
}

func (r *requests) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	s := r.begin(opListXAttr)
	n, status := r.RawFileSystem.ListXAttr(cancel, header, dest)
	return n, r.end(s, status)
}

func (r *requests) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	s := r.begin(opSetXAttr)
	return r.end(s, r.RawFileSystem.SetXAttr(cancel, in, attr, data))
}

func (r *requests) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	s := r.begin(opRemoveXAttr)
	return r.end(s, r.RawFileSystem.RemoveXAttr(cancel, header, attr))
}

func (r *requests) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s := r.begin(opCreate)
	return r.end(s, r.RawFileSystem.Create(cancel, in, name, out))
}

func (r *requests) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	s := r.begin(opTmpfile)
	return r.end(s, r.RawFileSystem.Tmpfile(cancel, in, out))
}

func (r *requests) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s := r.begin(opOpen)
	return r.end(s, r.RawFileSystem.Open(cancel, in, out))
}

func (r *requests) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	s := r.begin(opRead)
	result, status := r.RawFileSystem.Read(cancel, in, buf)
	if status == fuse.OK && result != nil {
		r.read.Add(uint64(result.Size()))
	}
	return result, r.end(s, status)
}

func (r *requests) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	s := r.begin(opLseek)
	return r.end(s, r.RawFileSystem.Lseek(cancel, in, out))
}

func (r *requests) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	s := r.begin(opGetLk)
	return r.end(s, r.RawFileSystem.GetLk(cancel, in, out))
}

func (r *requests) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	s := r.begin(opSetLk)
	return r.end(s, r.RawFileSystem.SetLk(cancel, in))
}

func (r *requests) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	s := r.begin(opSetLkw)
	return r.end(s, r.RawFileSystem.SetLkw(cancel, in))
}

func (r *requests) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	s := r.begin(opCopyFileRange)
	n, status := r.RawFileSystem.CopyFileRange(cancel, in)
	return n, r.end(s, status)
}

func (r *requests) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	s := r.begin(opIoctl)
	return r.end(s, r.RawFileSystem.Ioctl(cancel, in, inbuf, out, outbuf))
}

func (r *requests) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	s := r.begin(opFlush)
	return r.end(s, r.RawFileSystem.Flush(cancel, in))
}

func (r *requests) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s := r.begin(opFsync)
	return r.end(s, r.RawFileSystem.Fsync(cancel, in))
}

func (r *requests) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	s := r.begin(opFallocate)
	return r.end(s, r.RawFileSystem.Fallocate(cancel, in))
}

func (r *requests) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s := r.begin(opOpenDir)
	return r.end(s, r.RawFileSystem.OpenDir(cancel, in, out))
}

func (r *requests) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s := r.begin(opReadDir)
	return r.end(s, r.RawFileSystem.ReadDir(cancel, in, out))
}

func (r *requests) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s := r.begin(opReadDirPlus)
	return r.end(s, r.RawFileSystem.ReadDirPlus(cancel, in, out))
}

func (r *requests) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s := r.begin(opFsyncDir)
	return r.end(s, r.RawFileSystem.FsyncDir(cancel, in))
}

func (r *requests) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s := r.begin(opStatFs)
	return r.end(s, r.RawFileSystem.StatFs(cancel, header, out))
}

func (r *requests) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	s := r.begin(opStatx)
	if r.guard == nil {
		return r.end(s, r.RawFileSystem.Statx(cancel, in, out))
	}
	if !r.guard.admits(&in.InHeader) {
		return r.end(s, fuse.EACCES)
	}
	status := r.RawFileSystem.Statx(cancel, in, out)
	r.guard.expire(in.NodeId, out)
	return r.end(s, status)
}
