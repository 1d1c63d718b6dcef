package container

import (
	"errors"
	"os"
)

// A tail is read twice: to learn where its lines begin, and from there to be printed. What is kept between the two is places
// and no contents: a line may be as long as all the memory that there is.

// printTail prints the last lines of the files, as many as are asked for. end is how far the newest file was read.
func (p *logPrinter) printTail(files []*os.File) (end int64, err error) {
	marks := newLineMarks(p.o.Tail)
	ends := make([]int64, len(files))
	for i, f := range files {
		ends[i], err = readLog(f, 0, func(e logEntry, at int64) error {
			if p.wants(e) {
				marks.add(i, at, e.endsLine())
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		end = ends[i]
	}
	m, skip, ok := marks.begin()
	if !ok {
		return end, nil
	}
	inLine := false
	for i := m.file; i < len(files); i++ {
		_, err = readLog(files[i], m.off, func(e logEntry, at int64) error {
			if at >= ends[i] {
				return errLogEnd // it has come since
			}
			if !p.wants(e) {
				return nil
			}
			if !inLine {
				skip--
			}
			inLine = !e.endsLine()
			if skip >= 0 {
				return nil
			}
			return p.print(e)
		})
		if err != nil && !errors.Is(err, errLogEnd) {
			return end, err
		}
		m.off = 0
	}
	return end, nil
}

// lineMarks are where some of the lines begin that may be among the last n. The parts of a long line count as one.
type lineMarks struct {
	n      int
	every  int // the lines from one mark to the next
	lines  int // those added, with one that has not ended
	inLine bool
	list   []lineMark
}

type lineMark struct {
	line int // its number, from 0
	file int
	off  int64
}

// maxMarks is about how many are kept, however many lines are asked for: to skip some lines costs less.
const maxMarks = 4096

func newLineMarks(n int) *lineMarks { return &lineMarks{n: n, every: max(1, n/maxMarks)} }

// add adds an entry, which ends its line or is a part of it.
func (l *lineMarks) add(file int, off int64, ends bool) {
	if !l.inLine {
		if l.lines%l.every == 0 {
			l.list = append(l.list, lineMark{l.lines, file, off})
		}
		l.lines++
		for len(l.list) > 1 && l.list[1].line <= l.lines-l.n {
			l.list = l.list[1:]
		}
	}
	l.inLine = !ends
}

// begin is where to read from, and how many lines to skip there. Without any line that is wanted ok is false.
func (l *lineMarks) begin() (m lineMark, skip int, ok bool) {
	if l.n == 0 || len(l.list) == 0 {
		return m, 0, false
	}
	m = l.list[0]
	return m, max(0, l.lines-l.n) - m.line, true
}
