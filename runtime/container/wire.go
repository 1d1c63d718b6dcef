package container

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
)

// A message between a command and a monitor is a length (32 bits, big endian, in bytes), and JSON of that length.
// Descriptors come with the length. The first message of a connection is a request; replies follow. After a request
// that attaches, the command may send further requests on the connection: detach, resize, signal.

// maxMessage bounds a message, in bytes: a command line may be 2 MiB.
const maxMessage = 16 << 20

// The operations.
const (
	opStart    = "start" // the first message to a monitor, on the socket it is started with
	opAttach   = "attach"
	opExec     = "exec"
	opDetach   = "detach" // on the connection of a start or attach
	opResize   = "resize"
	opSignal   = "signal" // to the container's PID 1, or the exec's process
	opStop     = "stop"
	opPause    = "pause"
	opUnpause  = "unpause"
	opHold     = "hold" // paused until the client says anything more, or goes
	opWait     = "wait"
	opUpdate   = "update"
	opStats    = "stats"
	opTop      = "top"
	opExport   = "export"
	opStatPath = "stat-path"
	opGet      = "get" // a tar of a path
	opPut      = "put" // a tar to a path
)

// request is what a command wants.
type request struct {
	Op string

	// Streams names the descriptors that come with the request: "stdin", "stdout", "stderr" of who attaches, "data" for a
	// tar; with the start of a container with --rm its "lock", held: the monitor removes it where it cannot be started, before it
	// says so.
	Streams []string `json:",omitempty"`

	Foreground bool                   `json:",omitempty"` // start: end with who asks
	Console    [2]uint                `json:",omitempty"` // start, resize: height and width in characters
	Signal     int                    `json:",omitempty"` // signal, stop
	Timeout    int                    `json:",omitempty"` // stop: seconds until SIGKILL, -1 never
	Keep       bool                   `json:",omitempty"` // stop: a container with --rm stays, to be started again
	Next       bool                   `json:",omitempty"` // wait: for the next exit, also one before a restart
	Exec       *api.ExecCreateRequest `json:",omitempty"`
	Update     *api.UpdateConfig      `json:",omitempty"`
	PsArgs     []string               `json:",omitempty"`
	Path       rawName                `json:",omitempty"` // get, put, stat-path: in the container, absolute
	Copy       *copyRequest           `json:",omitempty"`
}

// stream is the name of the descriptor i, empty where it has none.
func (r *request) stream(i int) string {
	if i < len(r.Streams) {
		return r.Streams[i]
	}
	return ""
}

// take takes a descriptor out of those that came with the request; nil where there is none of that name.
func (r *request) take(name string, files []*os.File) (taken *os.File, left []*os.File) {
	i := slices.Index(r.Streams, name)
	if i < 0 || i >= len(files) {
		return nil, files
	}
	taken = files[i]
	r.Streams = slices.Delete(r.Streams, i, i+1)
	return taken, slices.Delete(files, i, i+1)
}

// Events of a reply.
const (
	eventDone    = "done"    // the request is fulfilled
	eventStarted = "started" // the command runs
	eventExited  = "exited"  // it has ended, with ExitCode
)

// reply is what the monitor says.
type reply struct {
	Event    string          `json:",omitempty"`
	Error    *wireError      `json:",omitempty"`
	Pid      int             `json:",omitempty"`
	ExitCode int             `json:",omitempty"`
	Result   json.RawMessage `json:",omitempty"`
}

// wireError is an error on its way.
type wireError struct {
	Kind string // "not running", "conflict", "invalid", "exit"
	Code int    `json:",omitempty"`
	Text string
}

func packError(err error) *wireError {
	var e *ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return &wireError{"exit", e.Code, err.Error()}
	case errors.Is(err, ErrNotRunning):
		return &wireError{Kind: "not running", Text: err.Error()}
	case errors.Is(err, ErrConflict):
		return &wireError{Kind: "conflict", Text: err.Error()}
	case errors.Is(err, ErrInvalid):
		return &wireError{Kind: "invalid", Text: err.Error()}
	case errors.Is(err, os.ErrNotExist):
		return &wireError{Kind: "not exist", Text: err.Error()}
	}
	return &wireError{Text: err.Error()}
}

func (w *wireError) unpack() error {
	if w == nil {
		return nil
	}
	switch w.Kind {
	case "exit":
		return &ExitError{w.Code, errors.New(w.Text)}
	case "not running":
		return fail(ErrNotRunning, "%s", w.Text)
	case "conflict":
		return fail(ErrConflict, "%s", w.Text)
	case "invalid":
		return fail(ErrInvalid, "%s", w.Text)
	case "not exist":
		return fail(os.ErrNotExist, "%s", w.Text)
	}
	return errors.New(w.Text)
}

// conn is a connection between a command and a monitor.
type conn struct {
	c       *net.UnixConn
	writeMu sync.Mutex
}

func (c *conn) Close() error { return c.c.Close() }

// send writes a message and passes descriptors, which stay open here.
func (c *conn) send(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes, at most %d", len(b), maxMessage)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			if fds[i], err = sys.Descriptor(f); err != nil {
				return err
			}
		}
		rights = unix.UnixRights(fds...)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	if _, _, err := c.c.WriteMsgUnix(head, rights, nil); err != nil {
		return err
	}
	_, err = c.c.Write(b)
	return err
}

// receive reads a message, and the descriptors that come with it. Errors: io.EOF when the other end is gone.
func (c *conn) receive(v any) (files []*os.File, err error) {
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := c.c.ReadMsgUnix(head, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	files, err = received(oob[:oobn])
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	if err != nil {
		return files, err
	}
	if _, err := io.ReadFull(c.c, head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxMessage {
		return files, fmt.Errorf("message of %d bytes, at most %d", size, maxMessage)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(c.c, b); err != nil {
		return files, err
	}
	return files, json.Unmarshal(b, v)
}

// received takes the descriptors out of control messages.
func received(oob []byte) (files []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing buffered
		}
	}
}

// socketPair is two connected sockets: ours as a connection, theirs to be inherited.
func socketPair() (ours *conn, theirs *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(p[1]), "socket")
	ours, err = connOf(os.NewFile(uintptr(p[0]), "socket"))
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// connOf makes a connection of a socket, which it takes over.
func connOf(f *os.File) (*conn, error) {
	defer f.Close() // FileConn has made a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s: not a unix socket", f.Name())
	}
	return &conn{c: u}, nil
}

// socketName is the monitor's socket in the run directory.
func socketName(id string) string { return id[:shortLength] + ".sock" }

func (c *Container) socket() string { return filepath.Join(c.s.o.RunDir, socketName(c.r.ID)) }

// atDir calls fn with a path of the socket that fits a socket's address (108 bytes), wherever the run directory is.
func (c *Container) atDir(fn func(path string) error) error {
	dir, err := os.Open(c.s.o.RunDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return fn("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketName(c.r.ID))
}

// listen makes the monitor's socket. Preconditions: monitor.lock is held, so that one that is there is nobody's.
func (c *Container) listen() (l *net.UnixListener, err error) {
	err = c.atDir(func(path string) error {
		if err := os.Remove(path); err != nil && !missing(err) {
			return err
		}
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // by that name it could be another's
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", c.socket(), err)
	}
	return l, nil
}

// errNoMonitor is returned when nobody listens, or when the monitor ends before it answers.
var errNoMonitor = errors.New("no monitor")

// dial connects to the container's monitor. Errors: errNoMonitor.
func (c *Container) dial() (*conn, error) {
	var u *net.UnixConn
	err := c.atDir(func(path string) (err error) {
		u, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if missing(err) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, errNoMonitor
	}
	if err != nil {
		return nil, err
	}
	return &conn{c: u}, nil
}

// ask sends a request and waits for the reply. A monitor that has ended takes none, and may have said why.
//
// Errors: that of the reply; errNoMonitor.
func (c *conn) ask(req request, files ...*os.File) (r reply, got []*os.File, err error) {
	sent := gone(c.send(req, files...))
	if sent != nil && sent != errNoMonitor {
		return r, nil, sent
	}
	if got, err = c.receive(&r); err != nil {
		return r, nil, gone(err)
	}
	if r.Error != nil {
		sent = r.Error.unpack()
	}
	if sent != nil {
		closeAll(got)
		return r, nil, sent
	}
	return r, got, nil
}

// gone turns the end of a connection into errNoMonitor.
func gone(err error) error {
	if errors.Is(err, io.EOF) || packet.Gone(err) {
		return errNoMonitor
	}
	return err
}
