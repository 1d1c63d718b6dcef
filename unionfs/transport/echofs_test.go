package transport

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// echofs answers every request with what follows from the request alone, by chance as it looks, and writes down how it
// was called. Two of them that are asked the same answer the same.
type echofs struct {
	fuse.RawFileSystem
	calls []string
}

func newEchofs() *echofs { return &echofs{RawFileSystem: fuse.NewDefaultRawFileSystem()} }

// called writes a call down. The answer is to be made from rng.
func (e *echofs) called(method string, args ...any) (rng *rand.Rand, status fuse.Status) {
	call := fmt.Sprintf("%s %+v", method, args)
	e.calls = append(e.calls, call)
	h := fnv.New64a()
	h.Write([]byte(call))
	rng = rand.New(rand.NewPCG(h.Sum64(), 0))
	if rng.IntN(4) == 0 {
		return rng, []fuse.Status{fuse.ENOENT, fuse.EINTR, fuse.ERANGE, fuse.ENOSYS, fuse.EIO}[rng.IntN(5)]
	}
	return rng, fuse.OK
}

// fill makes up an answer.
func fill(rng *rand.Rand, out any) {
	b := make([]byte, binary.Size(out))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, out); err != nil {
		panic(err)
	}
}

// answer is called for a request whose answer is a structure.
func (e *echofs) answer(out any, method string, args ...any) fuse.Status {
	rng, status := e.called(method, args...)
	fill(rng, out)
	return status
}

func (e *echofs) status(method string, args ...any) fuse.Status {
	_, status := e.called(method, args...)
	return status
}

func (e *echofs) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return e.answer(out, "Lookup", *h, name)
}

func (e *echofs) Forget(nodeid, n uint64) { e.called("Forget", nodeid, n) }

func (e *echofs) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return e.answer(out, "GetAttr", *in)
}

func (e *echofs) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return e.answer(out, "SetAttr", *in)
}

func (e *echofs) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return e.answer(out, "Mknod", *in, name)
}

func (e *echofs) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return e.answer(out, "Mkdir", *in, name)
}

func (e *echofs) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return e.status("Unlink", *h, name)
}

func (e *echofs) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return e.status("Rmdir", *h, name)
}

func (e *echofs) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return e.status("Rename", *in, from, to)
}

func (e *echofs) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return e.answer(out, "Link", *in, name)
}

func (e *echofs) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return e.answer(out, "Symlink", *h, target, name)
}

func (e *echofs) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	rng, status := e.called("Readlink", *h)
	return make([]byte, rng.IntN(4096)), status
}

func (e *echofs) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	return e.status("Access", *in)
}

// xattr answers with a size, and with a value where there is room.
func (e *echofs) xattr(dest []byte, method string, args ...any) (uint32, fuse.Status) {
	rng, status := e.called(method, append(args, len(dest))...)
	n := rng.IntN(len(dest) + 1)
	for i := range dest[:n] {
		dest[i] = byte(rng.Uint32())
	}
	return uint32(n), status
}

func (e *echofs) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	return e.xattr(dest, "GetXAttr", *h, attr)
}

func (e *echofs) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	return e.xattr(dest, "ListXAttr", *h)
}

func (e *echofs) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return e.status("SetXAttr", *in, attr, data)
}

func (e *echofs) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	return e.status("RemoveXAttr", *h, attr)
}

func (e *echofs) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return e.answer(out, "Create", *in, name)
}

func (e *echofs) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return e.answer(out, "Tmpfile", *in)
}

func (e *echofs) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return e.answer(out, "Open", *in)
}

// Read answers in each of the ways that there are.
func (e *echofs) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	rng, status := e.called("Read", *in, len(buf))
	b := buf[:rng.IntN(len(buf)+1)]
	if rng.IntN(2) == 0 {
		b = make([]byte, len(b))
	}
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	if rng.IntN(3) == 0 {
		return fuse.ReadResultVector([][]byte{b[:len(b)/2], b[len(b)/2:]}), status
	}
	return fuse.ReadResultData(b), status
}

func (e *echofs) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	rng, status := e.called("Write", *in, data)
	return rng.Uint32(), status
}

func (e *echofs) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	return e.answer(out, "Lseek", *in)
}

func (e *echofs) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	return e.answer(out, "GetLk", *in)
}

func (e *echofs) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return e.status("SetLk", *in) }

func (e *echofs) SetLkw(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return e.status("SetLkw", *in)
}

func (e *echofs) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { e.called("Release", *in) }

func (e *echofs) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	rng, status := e.called("CopyFileRange", *in)
	return rng.Uint32(), status
}

func (e *echofs) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	rng, status := e.called("Ioctl", *in, inbuf, len(outbuf))
	fill(rng, out)
	clear(outbuf)
	return status
}

func (e *echofs) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return e.status("Flush", *in)
}

func (e *echofs) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return e.status("Fsync", *in)
}

func (e *echofs) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return e.status("Fallocate", *in)
}

func (e *echofs) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return e.answer(out, "OpenDir", *in)
}

func entry(rng *rand.Rand) fuse.DirEntry {
	name := make([]byte, 1+rng.IntN(255))
	for i := range name {
		name[i] = byte('a' + rng.IntN(26))
	}
	return fuse.DirEntry{Name: string(name), Mode: rng.Uint32(), Ino: rng.Uint64(), Off: rng.Uint64()}
}

func (e *echofs) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	rng, status := e.called("ReadDir", *in)
	for range rng.IntN(100) {
		if !out.AddDirEntry(entry(rng)) {
			break
		}
	}
	return status
}

func (e *echofs) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	rng, status := e.called("ReadDirPlus", *in)
	for range rng.IntN(100) {
		o := out.AddDirLookupEntry(entry(rng))
		if o == nil {
			break
		}
		fill(rng, o)
	}
	return status
}

func (e *echofs) ReleaseDir(in *fuse.ReleaseIn) { e.called("ReleaseDir", *in) }

func (e *echofs) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return e.status("FsyncDir", *in)
}

func (e *echofs) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return e.answer(out, "StatFs", *h)
}

// Statx has fields that only go-fuse may set.
func (e *echofs) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	rng, status := e.called("Statx", *in)
	out.AttrValid, out.Size, out.Mtime.Sec, out.DevMinor = rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint32()
	return status
}
