package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Words that parent and child say to each other, one to a message; see the package comment for their order.
const (
	wordJoined  = "joined"
	wordReady   = "ready"
	wordRelease = "release"
)

// A message is one packet of the socket between parent and child.
type message struct {
	Word   string   `json:",omitempty"`
	Failed *failure `json:",omitempty"`
}

// A conn is one end of the socket: packets, so that a message is whole or not there.
type conn struct{ f *os.File }

// socketpair makes the two ends. The child's is blocking; the parent's is waited for without a thread.
func socketpair() (parent conn, child int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return conn{}, -1, err
	}
	return conn{os.NewFile(uintptr(fds[0]), "init")}, fds[1], nil
}

func (c conn) close() { _ = c.f.Close() }

// send sends a message, with a descriptor if fd is not negative.
func (c conn) send(m message, fd int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(s uintptr) bool {
		sendErr = unix.Sendmsg(int(s), b, rights, nil, unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN
	})
	return errors.Join(err, sendErr)
}

// receive waits for a message; fd is -1 without a descriptor. The end of the other side is io.EOF.
func (c conn) receive() (m message, fd int, err error) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	raw, err := c.f.SyscallConn()
	if err != nil {
		return m, -1, err
	}
	var n, oobn int
	var recvErr error
	err = raw.Read(func(s uintptr) bool {
		for {
			n, oobn, _, _, recvErr = unix.Recvmsg(int(s), b, oob, unix.MSG_CMSG_CLOEXEC)
			if recvErr != unix.EINTR {
				return recvErr != unix.EAGAIN
			}
		}
	})
	if err = errors.Join(err, recvErr); errors.Is(err, unix.ECONNRESET) || err == nil && n == 0 {
		return m, -1, io.EOF
	}
	if err != nil {
		return m, -1, err
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		return m, -1, err
	}
	return m, rightsFd(oob[:oobn]), nil
}

func rightsFd(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}

// expect receives the word, or the error that came in its place.
func (c conn) expect(word string) (fd int, err error) {
	m, fd, err := c.receive()
	switch {
	case err != nil:
		return -1, err
	case m.Failed != nil:
		return -1, m.Failed.error()
	case m.Word != word:
		return -1, fmt.Errorf("handshake: %q, want %q", m.Word, word)
	}
	return fd, nil
}
