package unionfs

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// BenchmarkRequests is what requests cost without the kernel's part and the transport's.
func BenchmarkRequests(b *testing.B) {
	f := newCalls(b, 1)
	file := f.file(0)
	header := func(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id} }
	entry, attr := new(fuse.EntryOut), new(fuse.AttrOut)
	up, low, ofFile := header(f.upper), header(f.lower), header(file)
	getattr, getdir := fuse.GetAttrIn{InHeader: ofFile}, fuse.GetAttrIn{InHeader: up}
	data := make([]byte, 4096)
	read := fuse.ReadIn{InHeader: header(f.lookup(f.lower, "read0")), Size: 4096}
	dirents, list := make([]byte, 32<<10), fuse.ReadIn{InHeader: low, Size: 32 << 10, Flags: unix.O_NOATIME}
	for _, bb := range []struct {
		name string
		run  func(i int) fuse.Status
	}{
		{"lookup", func(int) fuse.Status { return f.Lookup(nil, &up, "file0", entry) }},
		{"lookup-missing", func(int) fuse.Status { return f.Lookup(nil, &low, "missing", entry) }},
		{"getattr", func(int) fuse.Status { return f.GetAttr(nil, &getattr, attr) }},
		{"getattr-stale", func(int) fuse.Status { f.nodes.get(f.upper).changed(); return f.GetAttr(nil, &getdir, attr) }},
		{"getxattr", func(int) fuse.Status {
			_, _ = f.GetXAttr(nil, &ofFile, "security.capability", nil)
			return fuse.OK
		}},
		{"setattr", func(int) fuse.Status { return f.set(file, fuse.FATTR_ATIME|fuse.FATTR_MTIME) }},
		{"write", func(int) fuse.Status {
			_, s := f.Write(nil, &fuse.WriteIn{InHeader: ofFile}, data)
			return s
		}},
		{"read", func(int) fuse.Status {
			_, s := f.Read(nil, &read, data)
			return s
		}},
		{"readdirplus", func(int) fuse.Status {
			return f.ReadDirPlus(nil, &list, fuse.NewDirEntryList(dirents, 0))
		}},
		{"mknod-forget-unlink", func(i int) fuse.Status {
			name := fmt.Sprint("new", i)
			if s := f.Mknod(nil, &fuse.MknodIn{InHeader: up, Mode: unix.S_IFREG | 0o644}, name, entry); s != fuse.OK {
				return s
			}
			f.refresh(f.upper)
			s := f.Unlink(nil, &up, name)
			f.Forget(entry.NodeId, 1)
			f.refresh(f.upper)
			return s
		}},
		{"rename", func(i int) fuse.Status {
			names := [2]string{"file0", "file1"}
			in := fuse.RenameIn{InHeader: up, Newdir: f.upper}
			return f.Rename(nil, &in, names[i%2], names[1-i%2])
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if s := bb.run(i); s != fuse.OK {
					b.Fatal(s)
				}
			}
		})
	}
}
