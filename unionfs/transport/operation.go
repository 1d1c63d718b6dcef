package transport

import (
	"bytes"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

// operations are the requests that are decoded here, by opcode. Each calls the filesystem with what go-fuse would call
// it with (fuse/opcode.go), and leaves the answer in w.out and its size in w.n. That the structure is whole has been
// seen to.
//
// The others are go-fuse's: INIT, which agrees on the protocol; RENAME and SETXATTR, whose structures depend on it; and
// what is rare.
var operations = [codeCount]func(*worker) fuse.Status{
	codeLookup:      (*worker).lookup,
	codeForget:      (*worker).forget,
	codeBatchForget: (*worker).batchForget,
	codeGetAttr:     (*worker).getAttr,
	codeSetAttr:     (*worker).setAttr,
	codeStatx:       (*worker).statx,
	codeReadlink:    (*worker).readlink,
	codeSymlink:     (*worker).symlink,
	codeMknod:       (*worker).mknod,
	codeMkdir:       (*worker).mkdir,
	codeUnlink:      (*worker).unlink,
	codeRmdir:       (*worker).rmdir,
	codeRename2:     (*worker).rename,
	codeLink:        (*worker).link,
	codeCreate:      (*worker).create,
	codeOpen:        (*worker).open,
	codeRead:        (*worker).read,
	codeWrite:       (*worker).write,
	codeLseek:       (*worker).lseek,
	codeFsync:       (*worker).fsync,
	codeFlush:       (*worker).flush,
	codeRelease:     (*worker).release,
	codeFallocate:   (*worker).fallocate,
	codeAccess:      (*worker).access,
	codeGetXAttr:    (*worker).getXAttr,
	codeListXAttr:   (*worker).listXAttr,
	codeRemoveXAttr: (*worker).removeXAttr,
	codeOpenDir:     (*worker).openDir,
	codeReadDir:     (*worker).readDir,
	codeReadDirPlus: (*worker).readDirPlus,
	codeFsyncDir:    (*worker).fsyncDir,
	codeReleaseDir:  (*worker).releaseDir,
	codeStatFs:      (*worker).statFs,
}

// input is the request.
func input[T any](w *worker) *T { return sys.View[T](w.in) }

// answer is where the answer goes, all zeros.
func answer[T any](w *worker) *T {
	var zero T
	out := sys.View[T](w.out)
	*out = zero
	w.n = sys.SizeOf[T]()
	return out
}

// room is where an answer of size bytes goes that has no structure. The kernel never asks for more than fits.
func (w *worker) room(size uint32) ([]byte, bool) {
	if uint64(size) > uint64(len(w.out)) {
		w.d.log.Printf("a request wants %d bytes, and there is room for %d", size, len(w.out))
		return nil, false
	}
	return w.out[:size], true
}

// cstring is b up to its first zero byte.
func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// twoNames are the two names that the request carries.
func (w *worker) twoNames() (first, second string, ok bool) {
	i := bytes.IndexByte(w.data, 0)
	if i < 0 || bytes.IndexByte(w.data[i+1:], 0) < 0 {
		return "", "", false
	}
	return string(w.data[:i]), ownName(w.data[i+1:]), true
}

func (w *worker) lookup() fuse.Status {
	return w.d.fs.Lookup(w.cancel, input[fuse.InHeader](w), w.name(w.data), answer[fuse.EntryOut](w))
}

func (w *worker) forget() fuse.Status {
	in := input[fuse.ForgetIn](w)
	w.d.fs.Forget(in.NodeId, in.Nlookup)
	return fuse.OK
}

func (w *worker) batchForget() fuse.Status {
	in := input[batchForgetIn](w)
	size := sys.SizeOf[forgetOne]()
	if n := len(w.data) / size; n < int(in.Count) {
		w.d.log.Printf("BATCH_FORGET of %d nodes names %d", in.Count, n)
	}
	for data := w.data; len(data) >= size; data = data[size:] {
		one := sys.View[forgetOne](data)
		w.d.fs.Forget(one.NodeID, one.Nlookup)
	}
	return fuse.OK
}

func (w *worker) getAttr() fuse.Status {
	return w.d.fs.GetAttr(w.cancel, input[fuse.GetAttrIn](w), answer[fuse.AttrOut](w))
}

func (w *worker) setAttr() fuse.Status {
	return w.d.fs.SetAttr(w.cancel, input[fuse.SetAttrIn](w), answer[fuse.AttrOut](w))
}

func (w *worker) statx() fuse.Status {
	return w.d.fs.Statx(w.cancel, input[fuse.StatxIn](w), answer[fuse.StatxOut](w))
}

func (w *worker) readlink() fuse.Status {
	target, status := w.d.fs.Readlink(w.cancel, input[fuse.InHeader](w))
	if status != fuse.OK {
		return status
	}
	out, ok := w.room(uint32(len(target)))
	if !ok {
		return fuse.EIO
	}
	w.n = copy(out, target)
	return fuse.OK
}

func (w *worker) symlink() fuse.Status {
	name, target, ok := w.twoNames()
	if !ok {
		return fuse.EIO
	}
	return w.d.fs.Symlink(w.cancel, input[fuse.InHeader](w), target, name, answer[fuse.EntryOut](w))
}

func (w *worker) mknod() fuse.Status {
	return w.d.fs.Mknod(w.cancel, input[fuse.MknodIn](w), ownName(w.data), answer[fuse.EntryOut](w))
}

func (w *worker) mkdir() fuse.Status {
	return w.d.fs.Mkdir(w.cancel, input[fuse.MkdirIn](w), ownName(w.data), answer[fuse.EntryOut](w))
}

func (w *worker) unlink() fuse.Status {
	return w.d.fs.Unlink(w.cancel, input[fuse.InHeader](w), ownName(w.data))
}

func (w *worker) rmdir() fuse.Status {
	return w.d.fs.Rmdir(w.cancel, input[fuse.InHeader](w), ownName(w.data))
}

func (w *worker) rename() fuse.Status {
	from, to, ok := w.twoNames()
	if !ok {
		return fuse.EIO
	}
	return w.d.fs.Rename(w.cancel, input[fuse.RenameIn](w), from, to)
}

func (w *worker) link() fuse.Status {
	return w.d.fs.Link(w.cancel, input[fuse.LinkIn](w), ownName(w.data), answer[fuse.EntryOut](w))
}

func (w *worker) create() fuse.Status {
	return w.d.fs.Create(w.cancel, input[fuse.CreateIn](w), ownName(w.data), answer[fuse.CreateOut](w))
}

func (w *worker) open() fuse.Status {
	return w.d.fs.Open(w.cancel, input[fuse.OpenIn](w), answer[fuse.OpenOut](w))
}

// read has the filesystem read into the place of the answer. One that returns its bytes elsewhere costs a copy.
func (w *worker) read() fuse.Status {
	in := input[fuse.ReadIn](w)
	out, ok := w.room(in.Size)
	if !ok {
		return fuse.EIO
	}
	result, status := w.d.fs.Read(w.cancel, in, out)
	if status != fuse.OK || result == nil {
		return status
	}
	defer result.Done()
	b, status := result.Bytes(out)
	if status != fuse.OK {
		return status
	}
	if len(b) > 0 && len(out) > 0 && &b[0] == &out[0] {
		w.n = min(len(b), len(out))
	} else {
		w.n = copy(out, b)
	}
	return fuse.OK
}

func (w *worker) write() fuse.Status {
	in, out := input[fuse.WriteIn](w), answer[fuse.WriteOut](w)
	w.vector[0] = w.data
	n, status := w.d.fs.Writev(w.cancel, in, w.vector[:])
	if status == fuse.ENOSYS {
		n, status = w.d.fs.Write(w.cancel, in, w.data)
	}
	out.Size = n
	return status
}

func (w *worker) lseek() fuse.Status {
	return w.d.fs.Lseek(w.cancel, input[fuse.LseekIn](w), answer[fuse.LseekOut](w))
}

func (w *worker) fsync() fuse.Status { return w.d.fs.Fsync(w.cancel, input[fuse.FsyncIn](w)) }

func (w *worker) flush() fuse.Status { return w.d.fs.Flush(w.cancel, input[fuse.FlushIn](w)) }

func (w *worker) release() fuse.Status {
	w.d.fs.Release(w.cancel, input[fuse.ReleaseIn](w))
	return fuse.OK
}

func (w *worker) fallocate() fuse.Status {
	return w.d.fs.Fallocate(w.cancel, input[fuse.FallocateIn](w))
}

func (w *worker) access() fuse.Status { return w.d.fs.Access(w.cancel, input[fuse.AccessIn](w)) }

func (w *worker) getXAttr() fuse.Status {
	name := w.name(w.data)
	return w.xattr(func(dest []byte) (uint32, fuse.Status) {
		return w.d.fs.GetXAttr(w.cancel, input[fuse.InHeader](w), name, dest)
	})
}

func (w *worker) listXAttr() fuse.Status {
	return w.xattr(func(dest []byte) (uint32, fuse.Status) {
		return w.d.fs.ListXAttr(w.cancel, input[fuse.InHeader](w), dest)
	})
}

// xattr is what GETXATTR and LISTXATTR have in common: who wants 0 bytes wants to know how many there are.
func (w *worker) xattr(get func(dest []byte) (uint32, fuse.Status)) fuse.Status {
	size := input[fuse.GetXAttrIn](w).Size
	if size == 0 {
		n, status := get(nil)
		if status == fuse.OK || status == fuse.ERANGE {
			answer[fuse.GetXAttrOut](w).Size = n
			return fuse.OK
		}
		return status
	}
	out, ok := w.room(size)
	if !ok {
		return fuse.EIO
	}
	n, status := get(out)
	if status == fuse.OK && n > size {
		return fuse.EIO
	}
	w.n = int(n)
	return status
}

func (w *worker) removeXAttr() fuse.Status {
	return w.d.fs.RemoveXAttr(w.cancel, input[fuse.InHeader](w), w.name(w.data))
}

func (w *worker) openDir() fuse.Status {
	return w.d.fs.OpenDir(w.cancel, input[fuse.OpenIn](w), answer[fuse.OpenOut](w))
}

func (w *worker) readDir() fuse.Status {
	in := input[fuse.ReadIn](w)
	if !w.list(in) {
		return fuse.EIO
	}
	status := w.d.fs.ReadDir(w.cancel, in, &w.dirents)
	w.n = len(w.dirents.Bytes())
	return status
}

func (w *worker) readDirPlus() fuse.Status {
	in := input[fuse.ReadIn](w)
	if !w.list(in) {
		return fuse.EIO
	}
	status := w.d.fs.ReadDirPlus(w.cancel, in, &w.dirents)
	w.n = len(w.dirents.Bytes())
	return status
}

// list makes w.dirents an empty list in the place of the answer.
func (w *worker) list(in *fuse.ReadIn) bool {
	out, ok := w.room(in.Size)
	if ok {
		w.dirents = *fuse.NewDirEntryList(out, in.Offset)
	}
	return ok
}

func (w *worker) fsyncDir() fuse.Status { return w.d.fs.FsyncDir(w.cancel, input[fuse.FsyncIn](w)) }

func (w *worker) releaseDir() fuse.Status {
	w.d.fs.ReleaseDir(input[fuse.ReleaseIn](w))
	return fuse.OK
}

func (w *worker) statFs() fuse.Status {
	return w.d.fs.StatFs(w.cancel, input[fuse.InHeader](w), answer[fuse.StatfsOut](w))
}
