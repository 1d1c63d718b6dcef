package figures

import (
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"
)

// What a client sends.
const (
	askCounts byte = 'c'
	askTimes  byte = 't'
)

// patience is how long a client of ServeAll may take to ask or to listen. Others wait as long.
const patience = time.Second

// Snapshot tells the figures as they are. timed says that requests are to be timed from now on.
type Snapshot func(timed bool) *Mount

// ServeAll answers those who connect to the listening socket, one request each, until it is shut down. The descriptor
// remains the caller's.
func ServeAll(listener int, snapshot Snapshot) {
	limit := unix.NsecToTimeval(int64(patience))
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			// They wait in the backlog until there is room again.
			_, _ = unix.Poll(nil, int(patience/time.Millisecond))
			continue
		default:
			return
		}
		if unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit) == nil &&
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit) == nil {
			_ = answer(fd, snapshot) // a client that has gone misses nothing
		}
		_ = unix.Close(fd)
	}
}

// Serve answers the requests of one client until it goes.
func Serve(fd int, snapshot Snapshot) {
	for answer(fd, snapshot) == nil {
	}
}

// answer answers one request.
func answer(fd int, snapshot Snapshot) error {
	var ask [1]byte
	for {
		n, err := unix.Read(fd, ask[:])
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = unix.EPIPE
		}
		if err != nil {
			return err
		}
		break
	}
	text, err := json.Marshal(snapshot(ask[0] == askTimes))
	if err != nil {
		return err // a number that is none
	}
	return send(fd, append(text, '\n'))
}

// send writes all of text. A client that is gone is an error, not a signal.
func send(fd int, text []byte) error {
	for len(text) > 0 {
		n, err := unix.SendmsgN(fd, text, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}
