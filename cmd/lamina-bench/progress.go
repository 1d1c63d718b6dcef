package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/laminafs/lamina/bench"
)

// progress shows how far a run is: by a bar on a terminal, elsewhere by a line whenever another workload begins.
type progress struct {
	out  io.Writer
	bars *mpb.Progress // nil for lines
	bar  *mpb.Bar      // nil until Total

	mu   sync.Mutex
	now  string // what is being measured
	last string // the line before
}

var _ bench.Progress = (*progress)(nil)

func newProgress(out *os.File) *progress {
	p := &progress{out: out}
	if term.IsTerminal(int(out.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh())
		p.out = p.bars // lines go above the bar
	}
	return p
}

func (p *progress) Total(samples int) {
	if p.bars != nil {
		p.bar = p.bars.AddBar(int64(samples),
			mpb.PrependDecorators(decor.CountersNoUnit("%d of %d", decor.WCSyncSpace), decor.Any(p.what, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO), decor.Name(", left "), decor.AverageETA(decor.ET_STYLE_GO)))
		return
	}
	fmt.Fprintf(p.out, "%d samples\n", samples)
}

func (p *progress) what(decor.Statistics) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return " " + p.now
}

// Step is called before a sample: the ones before it are done.
func (p *progress) Step(rep int, workload, system string) {
	p.mu.Lock()
	started := p.now != ""
	p.now = workload + " on " + system
	p.mu.Unlock()
	if p.bar != nil {
		if started {
			p.bar.Increment()
		}
		return
	}
	if line := fmt.Sprintf("repetition %d: %s", rep+1, workload); line != p.last {
		p.last = line
		fmt.Fprintln(p.out, line)
	}
}

func (p *progress) Skipped(n int, why string) {
	fmt.Fprintln(p.out, "skipped:", strings.Join(strings.Fields(why), " "))
	if p.bar != nil {
		p.bar.IncrBy(n)
	}
}

// Done counts the sample that nothing follows.
func (p *progress) Done() {
	p.mu.Lock()
	started := p.now != ""
	p.mu.Unlock()
	if p.bar != nil && started {
		p.bar.Increment()
	}
}

// Close leaves the bar as it is.
func (p *progress) Close() {
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.Abort(false)
	}
	p.bars.Wait()
}
