package transport

import (
	"bytes"
	"encoding/binary"
	"log"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// fakeKernel is the other end of a descriptor that a carrier takes for /dev/fuse. It asks what a kernel would not.
type fakeKernel struct {
	t    *testing.T
	fd   int
	s    *Server
	m    *Mount
	log  *logged
	gone chan struct{}
	buf  []byte
}

// newFakeKernel serves fs, after INIT. initAnswer is the answer to that.
func newFakeKernel(t *testing.T, o Options, fs fuse.RawFileSystem) (k *fakeKernel, initAnswer []byte) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	k = &fakeKernel{t: t, fd: pair[0], log: &logged{}, gone: make(chan struct{})}
	k.m = &Mount{Fd: pair[1], opts: o}
	if w, ok := fs.(*waitfs); ok {
		w.notifier = k.m.Notifier()
	}
	k.send(initMessage(allOffered))
	if k.s, err = k.m.Serve(fs, log.New(k.log, "", 0), false, func() { close(k.gone) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k, k.receive()
}

func (k *fakeKernel) close() {
	if k.fd < 0 {
		return
	}
	_ = unix.Close(k.fd)
	k.fd = -1
	select {
	case <-k.s.Done():
	case <-time.After(limit):
		k.t.Error("it still serves after the end of the connection")
	}
}

func (k *fakeKernel) send(request []byte) {
	k.t.Helper()
	if _, err := unix.Write(k.fd, request); err != nil {
		k.t.Fatal(err)
	}
}

// receive waits for an answer.
func (k *fakeKernel) receive() []byte {
	k.t.Helper()
	p := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, int(limit.Milliseconds()))
	for err == unix.EINTR {
		n, err = unix.Poll(p, int(limit.Milliseconds()))
	}
	if n != 1 || err != nil {
		k.t.Fatalf("no answer: %d, %v\n%s", n, err, k.log)
	}
	if k.buf == nil {
		k.buf = make([]byte, 2<<20)
	}
	if n, err = unix.Read(k.fd, k.buf); err != nil {
		k.t.Fatal(err)
	}
	return bytes.Clone(k.buf[:n])
}

// expect waits for the answer to request unique, and wants that status.
func (k *fakeKernel) expect(unique uint64, status fuse.Status) []byte {
	k.t.Helper()
	b := k.receive()
	h := *sys.View[fuse.OutHeader](b)
	if h.Unique != unique || h.Status != -int32(status) || int(h.Length) != len(b) {
		k.t.Fatalf("answer %+v of %d bytes, want status %v to request %d", h, len(b), status, unique)
	}
	return b
}

// request is a request with a number.
func request(unique uint64, code uint32, in []byte, name string) []byte {
	p := header(code, 2, in, append([]byte(name), 0))
	sys.View[fuse.InHeader](p).Unique = unique
	return p
}

func lookup(unique uint64, name string) []byte { return request(unique, codeLookup, nil, name) }

func interrupt(unique uint64) []byte {
	return request(unique|1, codeInterrupt, binary.NativeEndian.AppendUint64(nil, unique), "")
}

// waitfs has names that wait: "slow" for release, "patient" for an interrupt, "blocking" as slow but says so; a SETLKW
// waits for an interrupt.
type waitfs struct {
	fuse.RawFileSystem
	release  chan struct{}
	began    chan string // the names that are waited for
	notifier *Notifier
	ended    chan struct{}
}

func newWaitfs() *waitfs {
	return &waitfs{RawFileSystem: fuse.NewDefaultRawFileSystem(), release: make(chan struct{}),
		began: make(chan string, 10000), ended: make(chan struct{})}
}

func (f *waitfs) Lookup(cancel <-chan struct{}, _ *fuse.InHeader, name string, _ *fuse.EntryOut) fuse.Status {
	switch name {
	case "slow":
		f.began <- name
		<-f.release
	case "blocking":
		f.notifier.Blocking()
		f.began <- name
		<-f.release
	case "patient":
		f.began <- name
		<-cancel
		return fuse.EINTR
	case "panic":
		panic("as asked")
	}
	return fuse.OK
}

func (f *waitfs) SetLkw(cancel <-chan struct{}, _ *fuse.LkIn) fuse.Status {
	f.began <- "lock"
	<-cancel
	return fuse.EINTR
}

func (f *waitfs) OnUnmount() { close(f.ended) }

// eachCarrier runs a test with a fake kernel on every carrier that reads a descriptor.
func eachCarrier(t *testing.T, f func(t *testing.T, k *fakeKernel, fs *waitfs)) {
	eachTransport(t, func(t *testing.T, o Options) {
		fs := newWaitfs()
		k, _ := newFakeKernel(t, o, fs)
		f(t, k, fs)
		k.close()
		select {
		case <-fs.ended:
		default:
			t.Error("the filesystem was not told of the end")
		}
		<-k.gone
	})
}

// What is agreed on with the kernel does not depend on who reads.
func TestSameInit(t *testing.T) {
	for name, o := range map[string]Options{"default": {}, "tuned": {Writeback: true, NoACL: true, MaxWrite: 65536}} {
		t.Run(name, func(t *testing.T) {
			var want []byte
			for _, o.Transport = range []string{Gofuse, Loop} {
				k, got := newFakeKernel(t, o, newWaitfs())
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s answers\n%x, the first\n%x", o.Transport, got, want)
				}
				if i := k.s.Info(); i.Transport != o.Transport || i.Minor != 45 || i.Offered != allOffered {
					t.Errorf("info %+v", i)
				}
				if n := k.m.Notifier(); !n.Offers(fuse.CAP_SETXATTR_EXT|fuse.CAP_DONT_MASK) || n.Offers(fuse.CAP_DONT_MASK|1<<63) {
					t.Error("what is offered is not what INIT said")
				}
			}
		})
	}
}

// go-fuse's own server answers the same, and then waits for requests.
func TestInitOfAnotherAge(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	k := &fakeKernel{t: t, fd: pair[0], log: &logged{}}
	old := initMessage(0)
	binary.NativeEndian.PutUint32(old[headerSize:], 6)
	k.send(old)
	m := &Mount{Fd: pair[1], opts: Options{Transport: Loop}}
	_, err = m.Serve(newWaitfs(), log.New(k.log, "", 0), false, func() {})
	if err == nil || !strings.HasPrefix(err.Error(), "fuse: INIT") {
		t.Errorf("protocol 6: %v", err)
	}
	k.expect(4, fuse.EIO)
	if n, err := unix.Read(pair[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the descriptor is still open: %d, %v", n, err)
	}
}

// A kernel that asks for what is unknown, or nonsense, is answered and served on.
func TestOddRequests(t *testing.T) {
	eachCarrier(t, func(t *testing.T, k *fakeKernel, fs *waitfs) {
		k.send(request(2, 99, nil, ""))
		k.expect(2, fuse.ENOSYS)
		k.send(request(4, 4000000000, nil, ""))
		k.expect(4, fuse.ENOSYS)
		k.send(header(codeSetAttr, 2)) // without what to set; number 4
		k.expect(4, fuse.EIO)
		k.send(request(8, codeRename2, make([]byte, 16), "one name"))
		k.expect(8, fuse.EIO)
		k.send(lookup(10, "panic"))
		k.expect(10, fuse.EIO)
		k.send(lookup(12, "x"))
		k.expect(12, fuse.OK)
		if !strings.Contains(k.log.String(), "panic in LOOKUP: as asked") {
			t.Errorf("log: %s", k.log)
		}
	})
}

// A message that is shorter than a header has no number to answer to.
func TestShorterThanAHeader(t *testing.T) {
	fs := newWaitfs()
	k, _ := newFakeKernel(t, Options{Transport: Loop}, fs)
	for n := 1; n < headerSize; n++ {
		k.send(make([]byte, n))
	}
	k.send(lookup(2, "x"))
	k.expect(2, fuse.OK)
}

// A descriptor that was passed to us may not block.
func TestNonblockingDevice(t *testing.T) {
	fs := newWaitfs()
	k, _ := newFakeKernel(t, Options{Transport: Loop}, fs)
	if err := unix.SetNonblock(k.m.Fd, true); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(100) {
		k.send(lookup(2*i+2, "x"))
		k.expect(2*i+2, fuse.OK)
	}
}

// However many requests wait, the next is answered; whether they said that they would wait or not.
func TestWaitingRequestsHoldUpNobody(t *testing.T) {
	for _, name := range []string{"slow", "blocking"} {
		t.Run(name, func(t *testing.T) {
			eachCarrier(t, func(t *testing.T, k *fakeKernel, fs *waitfs) {
				const many = 60
				for i := range uint64(many) {
					k.send(lookup(4*i+4, name))
					<-fs.began
					k.send(lookup(4*i+2, "x"))
					k.expect(4*i+2, fuse.OK)
				}
				close(fs.release)
				left := map[uint64]bool{}
				for range many {
					left[sys.View[fuse.OutHeader](k.receive()).Unique] = true
				}
				if len(left) != many {
					t.Errorf("%d answers, want %d", len(left), many)
				}
			})
		})
	}
}

// A request that waits is told that nobody waits for it any more; the one beside it is not.
func TestInterrupt(t *testing.T) {
	eachCarrier(t, func(t *testing.T, k *fakeKernel, fs *waitfs) {
		k.send(lookup(2, "patient"))
		<-fs.began
		k.send(lookup(4, "patient"))
		<-fs.began
		k.send(interrupt(4))
		k.expect(4, fuse.EINTR)
		k.send(request(6, codeSetLkw, make([]byte, inSizes[codeSetLkw]-headerSize), ""))
		<-fs.began
		k.send(interrupt(6))
		k.expect(6, fuse.EINTR)
		k.send(interrupt(100)) // of which nobody knows
		k.expect(101, fuse.EAGAIN)
		k.send(interrupt(2))
		k.expect(2, fuse.EINTR)
		for i := range uint64(100) { // the channel that was closed is not handed to others
			k.send(lookup(200+4*i, "patient"))
			<-fs.began
			k.send(lookup(202+4*i, "x"))
			k.expect(202+4*i, fuse.OK)
			k.send(interrupt(200 + 4*i))
			k.expect(200+4*i, fuse.EINTR)
		}
	})
}

// When the connection ends, what waits for an interrupt gets one. (go-fuse's own server takes this for an error.)
func TestEndInterrupts(t *testing.T) {
	fs := newWaitfs()
	k, _ := newFakeKernel(t, Options{Transport: Loop}, fs)
	for i := range uint64(20) {
		if i%2 == 0 {
			k.send(lookup(2*i+2, "patient"))
		} else {
			k.send(request(2*i+2, codeSetLkw, make([]byte, inSizes[codeSetLkw]-headerSize), ""))
		}
		<-fs.began
	}
	k.close()
	<-fs.ended
}

// What the filesystem tells arrives as the kernel reads it.
func TestNotifications(t *testing.T) {
	eachCarrier(t, func(t *testing.T, k *fakeKernel, fs *waitfs) {
		n := k.m.Notifier()
		tests := []struct {
			name string
			send func() fuse.Status
			code int32
			want []byte
		}{
			{"inode", func() fuse.Status { return n.InvalInode(7, -1, 9) }, 2,
				bytesOf(fuse.NotifyInvalInodeOut{Ino: 7, Off: -1, Length: 9})},
			{"entry", func() fuse.Status { return n.InvalEntry(7, "abc") }, 3,
				append(bytesOf(fuse.NotifyInvalEntryOut{Parent: 7, NameLen: 3}), "abc\x00"...)},
			{"store", func() fuse.Status { return n.Store(7, 5, []byte("abc")) }, 4,
				append(bytesOf(fuse.NotifyStoreOut{Nodeid: 7, Offset: 5, Size: 3}), "abc"...)},
			{"delete", func() fuse.Status { return n.Delete(7, 8, "abc") }, 6,
				append(bytesOf(fuse.NotifyInvalDeleteOut{Parent: 7, Child: 8, NameLen: 3}), "abc\x00"...)},
		}
		for _, tt := range tests {
			if status := tt.send(); status != fuse.OK {
				t.Errorf("%s: %v", tt.name, status)
			}
			b := k.receive()
			h := *sys.View[fuse.OutHeader](b)
			if h.Status != tt.code && h.Status != -tt.code || h.Unique != 0 || int(h.Length) != len(b) {
				t.Errorf("%s: header %+v of %d bytes", tt.name, h, len(b))
			}
			if !bytes.Equal(b[outHeaderSize:], tt.want) {
				t.Errorf("%s: %x, want %x", tt.name, b[outHeaderSize:], tt.want)
			}
		}
		k.close()
		if status := n.InvalInode(7, 0, 0); status == fuse.OK {
			t.Error("a notification after the end was sent")
		}
	})
}

// With one request at a time, the others wait for the one that waits.
func TestSingleThreaded(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.SingleThreaded = true
		fs := newWaitfs()
		k, _ := newFakeKernel(t, o, fs)
		k.send(lookup(2, "slow"))
		<-fs.began
		k.send(lookup(4, "blocking"))
		k.send(lookup(6, "slow"))
		fs.release <- struct{}{}
		k.expect(2, fuse.OK)
		first := <-fs.began
		select {
		case second := <-fs.began:
			t.Errorf("%s and %s at the same time", first, second)
		default:
		}
		close(fs.release)
		got := []uint64{sys.View[fuse.OutHeader](k.receive()).Unique, sys.View[fuse.OutHeader](k.receive()).Unique}
		slices.Sort(got)
		if !slices.Equal(got, []uint64{4, 6}) {
			t.Errorf("answers to %v", got)
		}
	})
}
