package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress shows how far each layer is: by a bar on a terminal, elsewhere by a line whenever something else is done
// with it. It is the image package's Progress.
type progress struct {
	out  io.Writer
	bars *mpb.Progress // nil for lines

	mu   sync.Mutex
	rows map[string]*row
}

// row is what is known of one layer.
type row struct {
	p              *progress
	id             string
	bar            *mpb.Bar
	status         string
	current, total int64 // bytes; total 0: unknown, or nothing to count
}

// newProgress writes to out. Close ends it.
func newProgress(out screen) *progress {
	p := &progress{out: out, rows: map[string]*row{}}
	if term.IsTerminal(int(out.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh())
	}
	return p
}

func (p *progress) Update(id, status string, current, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[id]
	if r == nil {
		r = &row{p: p, id: id}
		p.rows[id] = r
		if p.bars != nil {
			r.bar = p.bars.MustAdd(1, mpb.BarFillerFunc(r.fill), mpb.PrependDecorators(decor.Any(r.head)))
		}
	}
	if p.bars == nil && status != r.status {
		fmt.Fprintln(p.out, r.line(status))
	}
	r.status, r.current, r.total = status, current, total
}

// line is "id: status"; messages that are about no layer have no id.
func (r *row) line(status string) string {
	if r.id == "" {
		return status
	}
	return r.id + ": " + status
}

func (r *row) head(decor.Statistics) string {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return r.line(r.status) + " "
}

// fill draws "[====>    ]  12MB/34MB", as Docker does; nothing where there is nothing to count.
func (r *row) fill(w io.Writer, s decor.Statistics) error {
	r.p.mu.Lock()
	current, total := r.current, r.total
	r.p.mu.Unlock()
	_, err := io.WriteString(w, bar(current, total, s.AvailableWidth))
	return err
}

// bar is a bar with its numbers, in at most width columns.
func bar(current, total int64, width int) string {
	if total <= 0 && current <= 0 {
		return ""
	}
	numbers := units.HumanSize(float64(current))
	if total <= 0 {
		return " " + numbers
	}
	numbers += "/" + units.HumanSize(float64(total))
	columns := min(50, width-len(numbers)-5)
	if columns < 5 {
		return " " + numbers
	}
	full := int(min(current, total) * int64(columns) / total)
	line := strings.Repeat("=", full)
	if full < columns {
		line += ">" + strings.Repeat(" ", columns-full-1)
	}
	return "[" + line + "] " + numbers
}

// Close leaves the bars as they are. It may be called on nil.
func (p *progress) Close() {
	if p == nil || p.bars == nil {
		return
	}
	p.mu.Lock()
	rows := make([]*row, 0, len(p.rows))
	for _, r := range p.rows {
		rows = append(rows, r)
	}
	p.mu.Unlock()
	for _, r := range rows {
		r.bar.SetTotal(1, true)
	}
	p.bars.Wait()
}
