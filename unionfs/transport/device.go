package transport

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

const (
	pageSize = 4096

	// maxXattr is the size of the largest extended attribute, and of the largest list of their names, in bytes
	// (linux/limits.h, XATTR_SIZE_MAX).
	maxXattr = 64 << 10

	// large is from how many bytes on a request costs so much time that it is worth to wake somebody who reads the next.
	large = 64 << 10
)

// A message is where a request is read to and its answer written: one piece of memory, so that each is one system call,
// and placed so that data to write, and data read, begin on a page.
//
//	0     header      1 page                  2 pages                          room()
//	      |structure  | data of WRITE ........................................ | answer, where the request was long |
//	                                 |out hdr | answer of READ ..................................................   |
//
// It is no part of Go's heap: memory counts only once it is used, and the garbage collector does not care.
type message struct{ mem []byte }

const (
	messageStart = pageSize - 80 // sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) before the data
	shortAnswer  = 2 * pageSize
	tail         = maxXattr + pageSize
)

// newMessage has room for requests and answers of maxWrite bytes.
func newMessage(maxWrite int) (message, error) {
	in := (max(maxWrite, maxXattr+pageSize) + pageSize - 1) &^ (pageSize - 1)
	mem, err := unix.Mmap(-1, 0, pageSize+in+tail, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return message{}, fmt.Errorf("memory for a request: %w", err)
	}
	return message{mem}, nil
}

func (m message) free() { _ = unix.Munmap(m.mem) } // it was mapped

// room is where a request is read to. The kernel wants it to be large enough for the largest.
func (m message) room() []byte { return m.mem[messageStart : len(m.mem)-tail] }

// split cuts a request of n bytes, and says where its answer begins.
func (m message) split(n int) (in, data []byte, answer int) {
	request := m.mem[messageStart : messageStart+n]
	size := min(inSize(sys.View[fuse.InHeader](request).Opcode), n)
	answer = shortAnswer
	if messageStart+n > answer-outHeaderSize {
		answer = len(m.mem) - tail + outHeaderSize
	}
	return request[:size:size], request[size:], answer
}

// out is where an answer that begins there has its content.
func (m message) out(answer int) []byte { return m.mem[answer:] }

// send writes an answer of n bytes.
func (m message) send(fd, answer, n int, unique uint64, status fuse.Status) unix.Errno {
	p := m.mem[answer-outHeaderSize : answer+n]
	*sys.View[fuse.OutHeader](p) = fuse.OutHeader{Length: uint32(len(p)), Status: -int32(status), Unique: unique}
	if len(p) < large {
		return sys.WriteDevice(fd, p)
	}
	for {
		_, err := unix.Write(fd, p)
		if err == nil {
			return 0
		}
		if errno := err.(unix.Errno); errno != unix.EINTR {
			return errno
		}
	}
}

// takesLong tells whether a request is known to take long: it moves much data, waits for somebody else, or for a disk.
func takesLong(in []byte, n int) bool {
	switch sys.View[fuse.InHeader](in).Opcode {
	case codeWrite, codeSetXAttr:
		return n >= large
	case codeRead:
		return len(in) >= inSizes[codeRead] && sys.View[fuse.ReadIn](in).Size >= large
	case codeSetLkw, codeFsync, codeFsyncDir, codeFallocate, codeCopyFile:
		return true
	}
	return false
}

// waitReadable waits until fd, which does not block, has something to read.
func waitReadable(fd int) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1) // reading tells what is wrong
}
