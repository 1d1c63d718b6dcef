package sandbox

import (
	"encoding/json"
	"fmt"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
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

// A conn is one end of the socket.
type conn struct{ packet.Conn }

// socketpair makes the two ends. The child's is blocking; the parent's is waited for without a thread.
func socketpair() (parent conn, child int, err error) {
	ours, child, err := packet.Pair()
	if err != nil {
		return conn{}, -1, err
	}
	parent.Conn, err = packet.New(ours)
	if err != nil {
		sys.Close(child)
	}
	return parent, child, err
}

// send sends a message, with a descriptor if fd is not negative.
func (c conn) send(m message, fd int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.Send(b, fd)
}

// receive waits for a message; fd is -1 without a descriptor. The end of the other side is io.EOF.
func (c conn) receive() (m message, fd int, err error) {
	b := make([]byte, 64<<10)
	n, fd, err := c.Receive(b)
	if err != nil {
		return m, -1, err
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		sys.Close(fd)
		return m, -1, err
	}
	return m, fd, nil
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
