package unionfs

import "testing"

func newPlan() *prefetch { return &prefetch{dirs: map[*node]*readRun{}} }

// inLine reads files of dir in order until some are given, and returns the position after them.
func inLine(t *testing.T, p *prefetch, dir *node) int {
	t.Helper()
	for pos := range prefetchGap {
		if files, from := p.plan(dir, pos); files > 0 {
			return from + files
		}
	}
	t.Fatal("nothing is given to who reads in order")
	return 0
}

// Where what was given is of no use the directory gets no more, and after some of them none does for a while.
func TestPrefetchIsOffAfterMisses(t *testing.T) {
	p := newPlan()
	for i := range prefetchMisses {
		if p.pause.Load() != 0 {
			t.Fatalf("a pause after %d misses", i)
		}
		dir := &node{}
		far := inLine(t, p, dir) + 10*prefetchGap
		for n, pos := range []int{far, far + 1, far + 2, far + 3} {
			if files, _ := p.plan(dir, pos); files > 0 {
				t.Errorf("directory %d: %d files are given after %d reads elsewhere", i, files, n+1)
			}
		}
	}
	if got := p.pause.Load(); got != prefetchPause {
		t.Errorf("a pause of %d reads after %d misses, want %d", got, prefetchMisses, prefetchPause)
	}
}

// One that was of use begins the count of misses again.
func TestPrefetchForgivesMisses(t *testing.T) {
	p := newPlan()
	for range 3 * prefetchMisses {
		useful := &node{}
		if files, _ := p.plan(useful, inLine(t, p, useful)); files != 2*prefetchFirst {
			t.Fatalf("%d files are given after what was of use, want %d", files, 2*prefetchFirst)
		}
		missed := &node{}
		p.plan(missed, inLine(t, p, missed)+10*prefetchGap)
	}
	if got := p.pause.Load(); got != 0 {
		t.Errorf("a pause of %d reads, although others were of use in between", got)
	}
}

// However many directories and files are read, what is known of them and what is given at a time has a bound.
func TestPrefetchIsBounded(t *testing.T) {
	p := newPlan()
	for range 100 {
		dir := &node{}
		pos := inLine(t, p, dir)
		for range 20 {
			files, from := p.plan(dir, pos)
			if files > prefetchFiles {
				t.Fatalf("%d files are given at a time, want %d at most", files, prefetchFiles)
			}
			pos = from + files
		}
		if len(p.dirs) > prefetchDirs {
			t.Fatalf("%d directories are known of, want %d at most", len(p.dirs), prefetchDirs)
		}
	}
}
