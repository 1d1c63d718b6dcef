package transport

import (
	"bytes"
	"encoding/binary"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
)

// header begins a request with opcode code, and says how long it is.
func header(code uint32, nodeid uint64, rest ...[]byte) []byte {
	p := make([]byte, headerSize)
	h := fuse.InHeader{Opcode: code, Unique: 4, NodeId: nodeid, Length: headerSize}
	for _, r := range rest {
		h.Length += uint32(len(r))
	}
	h.Uid, h.Gid, h.Pid = 1, 2, 3
	*sys.View[fuse.InHeader](p) = h
	return append(p, slices.Concat(rest...)...)
}

// initMessage is the INIT of a kernel that can do all, or nothing beyond the oldest protocol.
func initMessage(offered uint64) []byte {
	in := make([]byte, sys.SizeOf[fuse.InitIn]()-headerSize)
	binary.NativeEndian.PutUint32(in[0:], 7)
	binary.NativeEndian.PutUint32(in[4:], 45)
	binary.NativeEndian.PutUint32(in[8:], 1<<20)
	binary.NativeEndian.PutUint32(in[12:], uint32(offered))
	binary.NativeEndian.PutUint32(in[16:], uint32(offered>>32))
	return header(codeInit, 0, in)
}

// twins are our dispatcher and go-fuse's server, each with an echofs.
type twins struct {
	ours, theirs *echofs
	w            *worker
	msg          message
	server       *fuse.ProtocolServer
	out          []byte
}

func newTwins(t testing.TB, offered uint64) *twins {
	quiet := log.New(io.Discard, "", 0)
	log.SetOutput(io.Discard) // go-fuse tells there what it thinks of short requests
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	opts := (&Options{}).protocol(quiet, false, func(string) {})
	x := &twins{ours: newEchofs(), theirs: newEchofs()}
	x.w = newDispatcher(x.ours, opts).worker()
	x.server = fuse.NewProtocolServer(x.theirs, opts)
	var err error
	if x.msg, err = newMessage(opts.MaxWrite); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.msg.free)
	x.out = make([]byte, len(x.msg.mem)-shortAnswer+outHeaderSize)
	x.ask(t, initMessage(offered))
	return x
}

// ask asks both and compares what was called and what is answered.
func (x *twins) ask(t testing.TB, request []byte) {
	t.Helper()
	x.ours.calls, x.theirs.calls = nil, nil
	copy(x.msg.room(), request)
	in, data, answer := x.msg.split(len(request))
	n, status, reply := x.w.handle(in, data, x.msg.out(answer))
	var ours []byte
	if reply {
		ours = append(make([]byte, outHeaderSize), x.msg.out(answer)[:n]...)
		*sys.View[fuse.OutHeader](ours) = fuse.OutHeader{
			Length: uint32(len(ours)), Status: -int32(status), Unique: sys.View[fuse.InHeader](request).Unique}
	}
	theirs := x.askThem(request)
	if !slices.Equal(x.ours.calls, x.theirs.calls) {
		t.Fatalf("request %x\nours calls   %q\ngo-fuse calls %q", request, x.ours.calls, x.theirs.calls)
	}
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("request %x: %q\nours answers    %x\ngo-fuse answers %x", request, x.ours.calls, ours, theirs)
	}
}

// askThem is what go-fuse answers. A panic of its own, and a request that it finds too short, are EIO.
func (x *twins) askThem(request []byte) (answer []byte) {
	h := *sys.View[fuse.InHeader](request)
	eio := make([]byte, outHeaderSize)
	*sys.View[fuse.OutHeader](eio) = fuse.OutHeader{Length: outHeaderSize, Status: -int32(fuse.EIO), Unique: h.Unique}
	defer func() {
		if recover() != nil {
			answer = eio
		}
	}()
	clear(x.out)
	n, status := x.server.HandleRequest([][]byte{slices.Clone(request)}, [][]byte{x.out})
	if n == 0 && status != fuse.OK && answered(h.Opcode) {
		return eio
	}
	if n == 0 {
		return nil
	}
	return x.out[:n]
}

// names are n names with their zero bytes.
func names(rng *rand.Rand, n int) (p []byte) {
	for range n {
		for range 1 + rng.IntN(40) {
			p = append(p, byte('a'+rng.IntN(26)))
		}
		p = append(p, 0)
	}
	return p
}

func random(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// validRequest is a request as the kernel could send it, but that its numbers mean nothing.
func validRequest(rng *rand.Rand, code uint32) []byte {
	in := random(rng, inSize(code)-headerSize)
	var data []byte
	size := func(at int, most uint32) { // of the answer
		binary.NativeEndian.PutUint32(in[at:], rng.Uint32N(most))
	}
	switch code {
	case codeLookup, codeMknod, codeMkdir, codeUnlink, codeRmdir, codeLink, codeCreate, codeTmpfile, codeRemoveXAttr:
		data = names(rng, 1)
	case codeSymlink, codeRename, codeRename2:
		data = names(rng, 2)
	case codeSetXAttr:
		data = append(names(rng, 1), random(rng, rng.IntN(1000))...)
	case codeGetXAttr:
		data = names(rng, 1)
		size(0, 3)
		if rng.IntN(2) == 0 {
			size(0, maxXattr)
		}
	case codeListXAttr:
		size(0, 500)
	case codeRead, codeReadDir, codeReadDirPlus:
		size(16, 100000)
	case codeIoctl:
		size(28, 4096)
		data = random(rng, rng.IntN(100))
	case codeWrite:
		data = random(rng, rng.IntN(10000))
	case codeBatchForget:
		n := rng.IntN(20)
		data = random(rng, 16*n)
		binary.NativeEndian.PutUint32(in, uint32(n))
	}
	return header(code, rng.Uint64N(1000)+2, in, data)
}

const allOffered = 1<<42 - 1

// Every request reaches the filesystem as go-fuse would bring it, and is answered as go-fuse would answer it.
func TestDispatchAsGofuse(t *testing.T) {
	for _, offered := range []uint64{allOffered, 0} {
		x := newTwins(t, offered)
		rng := rand.New(rand.NewPCG(1, offered))
		for code := range uint32(110) {
			if code == codeInit {
				continue
			}
			for range 200 {
				if code < codeCount {
					x.ask(t, validRequest(rng, code))
				} else {
					x.ask(t, header(code, 1, random(rng, rng.IntN(100))))
				}
			}
		}
	}
}

// A request that is too short, or whose name does not end, is answered as go-fuse does, and is the end of nothing.
func TestDispatchShortRequests(t *testing.T) {
	x := newTwins(t, allOffered)
	rng := rand.New(rand.NewPCG(2, 0))
	for code := range uint32(codeCount) {
		if code == codeInit {
			continue
		}
		request := validRequest(rng, code)
		for n := headerSize; n < min(len(request), 300); n++ {
			x.ask(t, request[:n])
		}
	}
}

// Groups and security labels come behind the request, and are no part of its name.
func TestDispatchExtensions(t *testing.T) {
	x := newTwins(t, allOffered)
	groups := make([]byte, 16)
	binary.NativeEndian.PutUint32(groups[0:], 16)
	binary.NativeEndian.PutUint32(groups[4:], 32) // FUSE_EXT_GROUPS
	binary.NativeEndian.PutUint32(groups[8:], 1)
	rng := rand.New(rand.NewPCG(3, 0))
	for _, code := range []uint32{codeMkdir, codeMknod, codeCreate, codeSymlink, codeWrite} {
		request := append(validRequest(rng, code), groups...)
		h := sys.View[fuse.InHeader](request)
		h.TotalExtlen = uint16(len(groups) / 8)
		h.Length += uint32(len(groups))
		x.ask(t, request)
		request[len(request)-16] = 9 // a size that is none
		x.ask(t, request)
	}
}

// What comes often is handled without allocation, as far as it is ours to say.
func TestDispatchAllocatesNothing(t *testing.T) {
	opts := (&Options{}).protocol(log.New(io.Discard, "", 0), false, func(string) {})
	w := newDispatcher(stillfs{fuse.NewDefaultRawFileSystem()}, opts).worker()
	msg, err := newMessage(opts.MaxWrite)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(msg.free)
	rng := rand.New(rand.NewPCG(4, 0))
	for _, code := range []uint32{
		codeLookup, codeForget, codeBatchForget, codeGetAttr, codeSetAttr, codeRead, codeWrite, codeGetXAttr,
		codeReadDir, codeReadDirPlus, codeStatFs, codeLseek, codeFsync,
	} {
		request := validRequest(rng, code)
		got := testing.AllocsPerRun(1000, func() {
			copy(msg.room(), request)
			in, data, answer := msg.split(len(request))
			if _, status, _ := w.handle(in, data, msg.out(answer)); status != fuse.OK {
				t.Fatalf("opcode %d: %v", code, status)
			}
		})
		if got >= 1 {
			t.Errorf("opcode %d allocates %v times", code, got)
		}
	}
}

// stillfs answers everything, and allocates nothing.
type stillfs struct{ fuse.RawFileSystem }

func (stillfs) Lookup(<-chan struct{}, *fuse.InHeader, string, *fuse.EntryOut) fuse.Status {
	return fuse.OK
}
func (stillfs) Forget(uint64, uint64)                                               {}
func (stillfs) GetAttr(<-chan struct{}, *fuse.GetAttrIn, *fuse.AttrOut) fuse.Status { return fuse.OK }
func (stillfs) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status { return fuse.OK }
func (stillfs) Read(_ <-chan struct{}, _ *fuse.ReadIn, b []byte) (fuse.ReadResult, fuse.Status) {
	return stillRead{}, fuse.OK
}
func (stillfs) Write(<-chan struct{}, *fuse.WriteIn, []byte) (uint32, fuse.Status) {
	return 1, fuse.OK
}
func (stillfs) GetXAttr(<-chan struct{}, *fuse.InHeader, string, []byte) (uint32, fuse.Status) {
	return 0, fuse.OK
}
func (stillfs) ReadDir(_ <-chan struct{}, _ *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	out.AddDirEntry(fuse.DirEntry{Name: "x"})
	return fuse.OK
}
func (stillfs) ReadDirPlus(_ <-chan struct{}, _ *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	out.AddDirLookupEntry(fuse.DirEntry{Name: "x"})
	return fuse.OK
}
func (stillfs) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }
func (stillfs) Lseek(<-chan struct{}, *fuse.LseekIn, *fuse.LseekOut) fuse.Status    { return fuse.OK }
func (stillfs) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status                    { return fuse.OK }

// stillRead is the whole buffer.
type stillRead struct{}

func (stillRead) Bytes(b []byte) ([]byte, fuse.Status) { return b, fuse.OK }
func (stillRead) Size() int                            { return 0 }
func (stillRead) Done()                                {}

// FuzzDispatch asks our dispatcher and go-fuse what a kernel gone mad might ask.
func FuzzDispatch(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 0))
	for code := range uint32(codeCount) {
		if code != codeInit {
			f.Add(validRequest(rng, code))
		}
	}
	for _, unique := range []uint64{0, 1, interrupting} { // what stands for none, or for something else, as a number
		f.Add(lookup(unique, "x"))
		f.Add(interrupt(unique))
	}
	x := newTwins(f, allOffered)
	f.Fuzz(func(t *testing.T, request []byte) {
		if len(request) < headerSize || len(request) > 64<<10 {
			return
		}
		request = slices.Clone(request) // aligned
		h := sys.View[fuse.InHeader](request)
		if h.NodeId == fuse.FUSE_ROOT_ID || h.NodeId == ^uint64(0) || h.Opcode == codeInit {
			return // go-fuse has a file of its own there, and INIT comes once
		}
		if h.Opcode == codeBatchForget && bytes.Contains(request, bytes.Repeat([]byte{0xff}, 8)) {
			return // the same file
		}
		x.ask(t, request)
	})
}
