package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// maxLine is the longest line that is kept in one piece, in bytes: a longer one goes to the log in parts of that
// length, of which only the last one ends with a newline. Source: moby daemon/logger/copier.go.
const maxLine = 16 << 10

// logEntry is one line of <id>-json.log, as Docker's json-file driver writes it.
type logEntry struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// logFile is the log of one container, with rotation: FILE is the newest, FILE.1 the one before it, and so on.
type logFile struct {
	path string
	o    logConfig

	mu   sync.Mutex
	f    *os.File // nil where nothing is logged
	size int64    // bytes
}

func openLog(path string, o logConfig) (*logFile, error) {
	l := &logFile{path: path, o: o}
	if o.none {
		return l, nil
	}
	return l, l.openLocked()
}

func (l *logFile) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.f, l.size = f, fi.Size()
	return nil
}

// write adds a line. line has its newline unless it is a part of a longer one.
func (l *logFile) write(e logEntry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	if l.o.maxSize > 0 && l.size > 0 && l.size+int64(len(b)) > l.o.maxSize {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return err
}

// rotateLocked starts a new file and drops the oldest.
func (l *logFile) rotateLocked() error {
	_ = l.f.Close() // every line was written when it came
	l.f = nil
	if l.o.maxFiles == 1 {
		if err := os.Remove(l.path); err != nil && !missing(err) {
			return err
		}
		return l.openLocked()
	}
	for i := l.o.maxFiles - 1; i > 0; i-- {
		if err := os.Rename(rotated(l.path, i-1), rotated(l.path, i)); err != nil && !missing(err) {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	return l.openLocked()
}

// rotated is the name of the i-th oldest file of a log; 0 is the one that is written to.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		_ = l.f.Close() // every line was written when it came
		l.f = nil
	}
}

// lines cuts one stream into lines for a log.
type lines struct {
	log     *logFile
	stream  string
	now     func() time.Time
	buf     []byte
	partial time.Time // of the first part of the line at hand; zero at the beginning of one
}

// write takes what the container wrote.
func (w *lines) write(p []byte) error {
	w.buf = append(w.buf, p...)
	for {
		i := bytes.IndexByte(w.buf[:min(len(w.buf), maxLine)], '\n')
		if i < 0 && len(w.buf) < maxLine {
			return nil
		}
		n := i + 1
		if i < 0 {
			n = maxLine
		}
		if err := w.put(w.buf[:n], i >= 0); err != nil {
			return err
		}
		w.buf = append(w.buf[:0], w.buf[n:]...)
	}
}

// put logs a line or a part of one: all parts bear the time of the first.
func (w *lines) put(line []byte, whole bool) error {
	t := w.partial
	if t.IsZero() {
		t = w.now().UTC()
	}
	w.partial = t
	if whole {
		w.partial = time.Time{}
	}
	return w.log.write(logEntry{Log: string(line), Stream: w.stream, Time: t})
}

// end logs what the container wrote last, without a newline.
func (w *lines) end() error {
	if len(w.buf) == 0 {
		return nil
	}
	defer func() { w.buf = nil }()
	return w.put(w.buf, false)
}
