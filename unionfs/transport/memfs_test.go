package transport

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// memfs is a filesystem of one directory with the file "hello", which says hello. "panic" panics when it is looked
// up, "slow" is found only when somebody closes release, and "patient" waits until nobody waits for it. Who asks hello
// for the attribute "user.notify" has the kernel told of everything.
type memfs struct {
	fuse.RawFileSystem

	release  chan struct{}
	notifier atomic.Pointer[Notifier]
	waiting  atomic.Int32 // how many lookups of "slow" and "patient" are at work

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

func (m *memfs) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch name {
	case "panic":
		panic("as asked")
	case "slow":
		m.waiting.Add(1)
		defer m.waiting.Add(-1)
		<-m.release
	case "patient":
		m.waiting.Add(1)
		defer m.waiting.Add(-1)
		<-cancel
		return fuse.EINTR
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

func (m *memfs) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, _ []byte) (uint32, fuse.Status) {
	if attr != "user.notify" {
		return 0, fuse.ENODATA
	}
	n := m.notifier.Load()
	for _, status := range []fuse.Status{
		n.InvalInode(in.NodeId, -1, 0), n.InvalInode(in.NodeId, 0, 0),
		n.Store(in.NodeId, 0, []byte(helloText)), n.InvalEntry(fuse.FUSE_ROOT_ID, "hello"),
	} {
		if status != fuse.OK && status != fuse.ENOENT {
			return 0, status
		}
	}
	return 0, fuse.OK
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
