package transport

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// memfs is a filesystem of one directory with the file "hello", which says hello. "panic" panics when it is looked
// up, and "slow" is found only when somebody closes release.
type memfs struct {
	fuse.RawFileSystem

	release chan struct{}

	mu   sync.Mutex
	asks map[uint32]bool // the uids that a request came from
	gone bool            // OnUnmount was called
}

const (
	helloID   = 2
	helloText = "hello\n"
)

func newMemfs() *memfs {
	return &memfs{RawFileSystem: fuse.NewDefaultRawFileSystem(), release: make(chan struct{}), asks: map[uint32]bool{}}
}

func (m *memfs) attr(id uint64, a *fuse.Attr) {
	a.Ino = id
	a.Nlink = 1
	a.Mode = fuse.S_IFREG | 0o644
	if id == fuse.FUSE_ROOT_ID {
		a.Mode = fuse.S_IFDIR | 0o755
	} else {
		a.Size = uint64(len(helloText))
	}
}

const ever = 1 << 30 // seconds

func (m *memfs) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch name {
	case "panic":
		panic("as asked")
	case "slow":
		<-m.release
	case "hello":
	default:
		return fuse.ENOENT
	}
	out.NodeId, out.EntryValid, out.AttrValid = helloID, ever, ever
	m.attr(helloID, &out.Attr)
	return fuse.OK
}

func (m *memfs) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	m.mu.Lock()
	m.asks[in.Uid] = true
	m.mu.Unlock()
	out.AttrValid = ever
	m.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (m *memfs) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	return fuse.ReadResultData([]byte(helloText)[min(in.Offset, uint64(len(helloText))):]), fuse.OK
}

func (m *memfs) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize = 4096
	return fuse.OK
}

func (m *memfs) OnUnmount() {
	m.mu.Lock()
	m.gone = true
	m.mu.Unlock()
}
