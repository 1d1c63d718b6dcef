package figures

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxAnswer bounds what a server can make us hold, in bytes. One with every opcode, errno and bucket takes a tenth of it at most.
const maxAnswer = 4 << 20

// errTooLong is returned for a server that does not come to an end.
var errTooLong = errors.New("the answer is too long")

// Get asks the mount whose socket is at path. Errors: those of connect(2), deadline exceeded.
func Get(ctx context.Context, path string, timed bool) (*Mount, error) {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	// The path may be longer than an address.
	c, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return NewClient(c).Get(ctx, timed)
}

// Client is the other end of Serve. It may be used by several goroutines.
type Client struct {
	mu   sync.Mutex
	c    net.Conn
	r    *bufio.Reader
	part []byte // of a line
	owed int    // answers to who did not wait for them
	err  error  // the server is gone, or tells nonsense
}

// maxOwed bounds what a server that hangs is asked.
const maxOwed = 16

var errHangs = fmt.Errorf("it has left %d questions unanswered: %w", maxOwed, os.ErrDeadlineExceeded)

// NewClient returns a client. The connection remains the caller's.
func NewClient(c net.Conn) *Client {
	return &Client{c: c, r: bufio.NewReader(c)}
}

// Get asks for the figures. A server that did not answer in time may be asked again.
func (c *Client) Get(ctx context.Context, timed bool) (*Mount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	m, err := c.getLocked(ctx, timed)
	if err != nil {
		err = fmt.Errorf("figures: %w", err)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.err = err
	}
	return m, err
}

func (c *Client) getLocked(ctx context.Context, timed bool) (*Mount, error) {
	deadline, _ := ctx.Deadline() // the zero time is none
	if err := c.c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(ended); _ = c.c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			<-ended // the next question's deadline is another one
		}
	}()
	if c.owed < maxOwed {
		ask := askCounts
		if timed {
			ask = askTimes
		}
		if _, err := c.c.Write([]byte{ask}); err != nil {
			return nil, err
		}
		c.owed++
	}
	for {
		if err := c.lineLocked(); err != nil {
			if c.owed == maxOwed && errors.Is(err, os.ErrDeadlineExceeded) {
				err = errHangs
			}
			return nil, err
		}
		text := c.part
		c.part = nil
		if c.owed--; c.owed > 0 {
			continue
		}
		m := &Mount{}
		return m, json.Unmarshal(text, m)
	}
}

// lineLocked completes part.
func (c *Client) lineLocked() error {
	for {
		part, err := c.r.ReadSlice('\n')
		c.part = append(c.part, part...)
		switch {
		case err == nil:
			return nil
		case len(c.part) > maxAnswer:
			return errTooLong
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return err
		}
	}
}
