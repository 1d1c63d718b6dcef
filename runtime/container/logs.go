package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// LogsOptions are those of docker logs.
type LogsOptions struct {
	Stdout, Stderr io.Writer // nil leaves the stream out; with a terminal all is on Stdout
	Follow         bool      // go on until the container has ended
	Tail           int       // the last n lines; negative is all
	Since, Until   time.Time // zero is no bound
	Timestamps     bool      // RFC 3339 with nanoseconds before each line
	Details        bool      // extra attributes of each line
}

// logTime is how Docker prints the time of a line: nanoseconds, all nine digits.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

// Logs writes what the container wrote.
//
// Errors: ErrInvalid for a container whose log driver is none.
func (c *Container) Logs(ctx context.Context, o LogsOptions) error {
	conf, err := logOptions(c.r.HostConfig.LogConfig)
	if err != nil {
		return err
	}
	if conf.none {
		return fail(ErrInvalid, "configured logging driver does not support reading")
	}
	p := &logPrinter{o: o, begun: map[string]bool{}}
	tail, pos, err := c.readLogs(o, conf, p)
	if err != nil {
		return err
	}
	for _, e := range tail {
		if err := p.print(e); err != nil {
			return err
		}
	}
	if !o.Follow {
		return nil
	}
	return c.followLogs(ctx, p, pos)
}

// logPosition is how far a log was read: the file, and the offset in bytes.
type logPosition struct {
	f   *os.File
	off int64
}

// readLogs reads what is there, the oldest file first. Without a tail it prints as it reads. pos is open where the
// caller follows.
func (c *Container) readLogs(o LogsOptions, conf logConfig, p *logPrinter) (tail []logEntry, pos *logPosition, err error) {
	pos = &logPosition{}
	last := lastLines{n: o.Tail}
	for i := conf.maxFiles - 1; i >= 0; i-- {
		f, err := os.Open(rotated(c.logPath(), i))
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		off, err := readLog(f, 0, func(e logEntry) error {
			switch {
			case !p.wants(e):
				return nil
			case o.Tail < 0:
				return p.print(e)
			}
			last.add(e)
			return nil
		})
		if err != nil {
			_ = f.Close() // read-only
			return nil, nil, err
		}
		if i == 0 && o.Follow {
			pos.f, pos.off = f, off
		} else {
			_ = f.Close() // read-only
		}
	}
	return last.entries(), pos, nil
}

// lastLines are the last n lines of those added; the parts of a long line count as one.
type lastLines struct {
	n     int
	list  []logEntry
	first int // the entries before it are dropped
	whole int // entries from first on that end a line
}

func (l *lastLines) add(e logEntry) {
	if l.n == 0 {
		return
	}
	l.list = append(l.list, e)
	lines := l.whole + 1
	if e.endsLine() {
		l.whole++
	}
	if lines <= l.n {
		return
	}
	for !l.list[l.first].endsLine() {
		l.first++
	}
	l.first++
	l.whole--
	if l.first > len(l.list)/2 { // as many are moved as were added since the last time
		l.list, l.first = slices.Delete(l.list, 0, l.first), 0
	}
}

func (l *lastLines) entries() []logEntry { return l.list[l.first:] }

// endsLine tells whether the entry is not the beginning of a longer line.
func (e *logEntry) endsLine() bool { return strings.HasSuffix(e.Log, "\n") }

// readLog reads whole lines of a log from off on and returns where it stopped. A line that is just being written is
// left for later.
func readLog(f *os.File, off int64, fn func(logEntry) error) (int64, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return off, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return off, nil
		}
		if err != nil {
			return off, err
		}
		off += int64(len(line))
		var e logEntry
		if json.Unmarshal(bytes.TrimRight(line, "\n"), &e) != nil {
			continue // what a crash of the machine left
		}
		if err := fn(e); err != nil {
			return off, err
		}
	}
}

// errLogEnd is returned when all was read that can be wanted.
var errLogEnd = errors.New("end of log")

// followLogs prints what comes, until the container has ended.
func (c *Container) followLogs(ctx context.Context, p *logPrinter, pos *logPosition) error {
	defer func() {
		if pos.f != nil {
			_ = pos.f.Close() // read-only
		}
	}()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.Add(c.dir()); err != nil {
		return err
	}
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(ended)
		_, _ = c.waitExit(ctx, false) // whatever it says, nothing more comes
	}()
	for last := false; ; {
		err := c.readMore(p, pos)
		if errors.Is(err, errLogEnd) {
			return nil
		}
		if err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			last = true
		case <-w.Events:
		case err := <-w.Errors:
			return err
		}
	}
}

// readMore prints what has come, across rotations: a file that was renamed is read to its end first.
func (c *Container) readMore(p *logPrinter, pos *logPosition) error {
	show := func(e logEntry) error {
		if !p.o.Until.IsZero() && e.Time.After(p.o.Until) {
			return errLogEnd
		}
		if !p.wants(e) {
			return nil
		}
		return p.print(e)
	}
	for {
		var err error
		if pos.f != nil {
			if pos.off, err = readLog(pos.f, pos.off, show); err != nil {
				return err
			}
		}
		next, err := os.Open(c.logPath())
		if missing(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if pos.f != nil {
			was, err1 := pos.f.Stat()
			is, err2 := next.Stat()
			if err1 != nil || err2 != nil || os.SameFile(was, is) {
				_ = next.Close() // read-only
				return errors.Join(err1, err2)
			}
			// Lines may have come between the read and the rename.
			if pos.off, err = readLog(pos.f, pos.off, show); err != nil {
				_ = next.Close() // read-only
				return err
			}
			_ = pos.f.Close() // read-only
		}
		pos.f, pos.off = next, 0
	}
}

// logPrinter writes lines to who wants them.
type logPrinter struct {
	o     LogsOptions
	begun map[string]bool // streams in the middle of a long line
}

// wants tells whether an entry is in the interval.
func (p *logPrinter) wants(e logEntry) bool {
	return (p.o.Since.IsZero() || !e.Time.Before(p.o.Since)) && (p.o.Until.IsZero() || !e.Time.After(p.o.Until))
}

func (p *logPrinter) print(e logEntry) error {
	w := p.o.Stdout
	if e.Stream == "stderr" {
		w = p.o.Stderr
	}
	if w == nil {
		return nil
	}
	text := e.Log
	if !p.begun[e.Stream] {
		if p.o.Details {
			text = " " + text // there are no attributes
		}
		if p.o.Timestamps {
			text = e.Time.UTC().Format(logTime) + " " + text
		}
	}
	p.begun[e.Stream] = !e.endsLine()
	_, err := io.WriteString(w, text)
	return err
}
