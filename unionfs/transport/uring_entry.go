package transport

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uring"
)

// A ringEntry is where the kernel puts one request of a queue, and we the answer.
//
//	0         headers: struct fuse_uring_req_header
//	            0    in_out: struct fuse_in_header 40, or struct fuse_out_header
//	            128  op_in: the structure of the opcode
//	            256  struct fuse_uring_ent_in_out
//	512       struct iovec [2]: headers and payload, when it is registered
//	pageSize  payload: what follows the structures; all of an answer but its header
//
// The header is copied to just before op_in: in a message of /dev/fuse the two lie behind each other.
type ringEntry struct {
	q       *ringQueue
	headers []byte
	iovecs  []byte
	payload []byte // and some room more
	size    int    // of the payload as it is registered
	refused int    // how often an answer was not taken

	command uring.Command // the last one for this entry
}

const (
	opInOffset   = 128
	entOffset    = 256
	iovecsOffset = 512

	headersSize = entOffset + 32
	opInSize    = 128
)

// include/uapi/linux/fuse.h, enum fuse_uring_cmd.
const (
	ringCmdRegister       = 1
	ringCmdCommitAndFetch = 2
)

// entInOut is struct fuse_uring_ent_in_out.
type entInOut struct {
	Flags, CommitID      uint64
	PayloadSize, Padding uint32
	_                    uint64
}

// ringCmd is struct fuse_uring_cmd_req.
type ringCmd struct {
	Flags, CommitID uint64
	QID             uint16
	_               [6]byte
}

type iovec struct{ Base, Len uint64 }

// entrySize is how much memory an entry takes.
func entrySize(payload int) int { return pageSize + payload + pageSize }

// place gives the entry its memory, which lies outside of Go's heap.
func (e *ringEntry) place(mem []byte, payload int) {
	e.headers = mem[:headersSize]
	e.iovecs = mem[iovecsOffset:]
	e.payload = mem[pageSize:entrySize(payload):entrySize(payload)]
	e.size = payload
}

// registration is the command by which the kernel gets the entry.
func (e *ringEntry) registration(fd, i int) *uring.Command {
	*sys.View[[2]iovec](e.iovecs) = [2]iovec{
		{sys.Address(e.headers), headersSize}, {sys.Address(e.payload), uint64(e.size)},
	}
	e.command = uring.Command{Fd: fd, Op: ringCmdRegister, Addr: sys.Address(e.iovecs), Len: 2, UserData: uint64(i)}
	*sys.View[ringCmd](e.command.Cmd[:]) = ringCmd{QID: uint16(e.q.cpu)}
	return &e.command
}

// request is the request that the kernel has put here, as worker.handle wants it.
func (e *ringEntry) request() (in, data []byte) {
	size := inSize(sys.View[fuse.InHeader](e.headers).Opcode)
	in = e.headers[opInOffset-headerSize : opInOffset-headerSize+size : opInOffset+opInSize]
	copy(in[:headerSize], e.headers)
	n := min(int(sys.View[entInOut](e.headers[entOffset:]).PayloadSize), e.size)
	return in, e.payload[:n:n]
}

// commit is the command that tells the kernel of the answer, n bytes of payload, and asks for the next request.
func (e *ringEntry) commit(fd, i int, unique uint64, n int, status fuse.Status) *uring.Command {
	*sys.View[fuse.OutHeader](e.headers) = fuse.OutHeader{
		Length: uint32(outHeaderSize + n), Status: -int32(status), Unique: unique,
	}
	ent := sys.View[entInOut](e.headers[entOffset:])
	ent.PayloadSize = uint32(n)
	e.command = uring.Command{Fd: fd, Op: ringCmdCommitAndFetch, UserData: uint64(i)}
	*sys.View[ringCmd](e.command.Cmd[:]) = ringCmd{CommitID: ent.CommitID, QID: uint16(e.q.cpu)}
	return &e.command
}
