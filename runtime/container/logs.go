package container

import (
	"bufio"
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
	files, err := c.openLogs(conf)
	if err != nil {
		return err
	}
	p := &logPrinter{o: o, begun: map[string]bool{}}
	pos, err := p.printFiles(files)
	if err == nil && o.Follow {
		return c.followLogs(ctx, p, pos)
	}
	if pos.f != nil {
		_ = pos.f.Close() // read-only
	}
	return err
}

// logPosition is how far a log was read: the file, and the offset in bytes.
type logPosition struct {
	f   *os.File
	off int64
}

// openLogs opens the files of the log that are there, the oldest first.
func (c *Container) openLogs(conf logConfig) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	// The newest first: one that is renamed meanwhile is found twice, and none is left out.
	for i := range conf.maxFiles {
		f, err := os.Open(rotated(c.logPath(), i))
		if missing(err) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, f)
		if n := len(files); n > 1 {
			before, err1 := files[n-2].Stat()
			is, err2 := f.Stat()
			if err := errors.Join(err1, err2); err != nil {
				return files, err
			}
			if os.SameFile(before, is) {
				_ = f.Close() // read-only
				files = files[:n-1]
			}
		}
	}
	slices.Reverse(files)
	return files, nil
}

// printFiles prints what is in the files, the oldest first, and closes them, but for the newest one: pos is how far that was read.
func (p *logPrinter) printFiles(files []*os.File) (pos *logPosition, err error) {
	pos = &logPosition{}
	if n := len(files); n > 0 {
		pos.f = files[n-1]
		defer closeAll(files[:n-1])
	}
	if p.o.Tail >= 0 {
		pos.off, err = p.printTail(files)
		return pos, err
	}
	for _, f := range files {
		pos.off, err = readLog(f, 0, func(e logEntry, _ int64) error {
			if !p.wants(e) {
				return nil
			}
			return p.print(e)
		})
		if err != nil {
			return pos, err
		}
	}
	return pos, nil
}

// endsLine tells whether the entry is not the beginning of a longer line.
func (e *logEntry) endsLine() bool { return strings.HasSuffix(e.Log, "\n") }

// maxEntry bounds an entry in the log, in bytes: each byte of a part may be written as six, "\u0000".
const maxEntry = 8 * maxLine

// readLog reads whole entries of a log from off on and returns where it stopped; at is the offset of an entry. One that is just
// being written is left for later.
func readLog(f *os.File, off int64, fn func(e logEntry, at int64) error) (int64, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return off, err
	}
	r := bufio.NewReaderSize(f, maxEntry)
	at := off
	for skip := false; ; {
		line, err := r.ReadSlice('\n')
		at += int64(len(line))
		switch {
		case err == bufio.ErrBufferFull:
			skip = true // what a crash of the machine left may be of any length
			continue
		case err == io.EOF:
			return off, nil
		case err != nil:
			return off, err
		}
		begun := off
		off = at
		var e logEntry
		if skip || json.Unmarshal(line, &e) != nil {
			skip = false
			continue // the same
		}
		if err := fn(e, begun); err != nil {
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
			if !overflowed(err) {
				return err
			}
		}
	}
}

// readMore prints what has come, across rotations: a file that was renamed is read to its end first.
func (c *Container) readMore(p *logPrinter, pos *logPosition) error {
	show := func(e logEntry, _ int64) error {
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
