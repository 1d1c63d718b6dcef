// Package packet is how a process and one that it starts talk: through a pair of sockets that keep the bounds of messages
// (SOCK_SEQPACKET, unix(7)), so that a message is whole or not there, and each learns that the other is gone.
package packet

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Pair makes the two ends. They block, and are closed on exec.
func Pair() (ours, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	return p[0], p[1], nil
}

// Send sends a message, which is not empty, and a descriptor with it if fd is not negative.
//
// Errors: those of sendmsg(2), and Gone of them where nobody is at the other end.
func Send(sock int, msg []byte, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		if err := unix.Sendmsg(sock, msg, rights, nil, unix.MSG_NOSIGNAL); err != unix.EINTR {
			return err
		}
	}
}

// Gone reports whether an error of Send says that the other end is closed. What it had to say before can still be received.
func Gone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// Receive receives a message of n bytes into buf, and a descriptor: -1 where none was sent. Any UNIX socket will do where a
// message is all that is sent.
//
// Errors: io.EOF when the other end is closed and all it has sent is received; EMSGSIZE for a message longer than buf; those
// of recvmsg(2).
func Receive(sock int, buf []byte) (n, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var oobn, flags int
	for again := true; again; {
		n, oobn, flags, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		// Who closes its end with a message of ours unread leaves us ECONNRESET (net/unix/af_unix.c, unix_release_sock), and that
		// is told, once, before the messages which are there for us (net/core/datagram.c, __skb_try_recv_datagram).
		again = err == unix.EINTR || err == unix.ECONNRESET
	}
	if err != nil {
		return 0, -1, err
	}
	if n == 0 {
		return 0, -1, io.EOF
	}
	if fd, err = descriptor(oob[:oobn]); err == nil && flags&unix.MSG_TRUNC != 0 {
		if fd >= 0 {
			_ = unix.Close(fd) // the error at hand says more
		}
		return 0, -1, unix.EMSGSIZE
	}
	return n, fd, err
}

// descriptor is the one that came beside a message, or -1.
func descriptor(oob []byte) (int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return -1, err
	}
	return fds[0], nil
}

// A Conn is an end that keeps no thread while it waits, if it was made by New.
type Conn struct{ f *os.File }

// New takes over the end sock.
func New(sock int) (Conn, error) {
	if err := unix.SetNonblock(sock, true); err != nil {
		_ = unix.Close(sock) // the error at hand says more
		return Conn{}, fmt.Errorf("fcntl: %w", err)
	}
	return Conn{os.NewFile(uintptr(sock), "socket")}, nil
}

// Inherited takes over an end that the process was started with, as it is.
func Inherited(sock int) Conn { return Conn{os.NewFile(uintptr(sock), "socket")} }

// Close closes the end: the other one learns of it.
func (c Conn) Close() { _ = c.f.Close() } // all that was sent is sent

// Send is Send on the connection.
func (c Conn) Send(msg []byte, fd int) error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(s uintptr) bool {
		sent = Send(int(s), msg, fd)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

// Receive is Receive on the connection.
func (c Conn) Receive(buf []byte) (n, fd int, err error) {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var received error
	err = raw.Read(func(s uintptr) bool {
		n, fd, received = Receive(int(s), buf)
		return received != unix.EAGAIN
	})
	if err != nil {
		return 0, -1, err
	}
	return n, fd, received
}
