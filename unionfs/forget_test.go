package unionfs

import (
	"testing"
	"time"
)

// The reaper is not woken for each node: it waits for many, or for a while, or until somebody waits for it.
func TestReaperTakesMany(t *testing.T) {
	fs := &FS{root: &node{}}
	r := &fs.reaper
	r.start(fs)
	defer r.stop()
	state := func() (waiting int, due bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.queue), r.due
	}
	r.mu.Lock()
	r.late.Stop() // from here on it does not happen to be late
	r.late = time.NewTimer(time.Hour)
	r.mu.Unlock()
	add := func() { r.add(fs.root) } // which nobody takes apart
	for range reapMany - 1 {
		add()
	}
	if waiting, due := state(); waiting != reapMany-1 || due {
		t.Errorf("%d nodes wait, due %v; want %d that do not make it begin", waiting, due, reapMany-1)
	}
	add()
	until(t, "that many are taken", func() bool { waiting, due := state(); return waiting == 0 && !due })
	add()
	if waiting, due := state(); waiting != 1 || due {
		t.Errorf("%d nodes wait, due %v; want 1 that does not make it begin", waiting, due)
	}
	r.catchUp()
	if waiting, _ := state(); waiting != 0 {
		t.Errorf("%d nodes wait after it has caught up", waiting)
	}
}

// A few nodes are taken apart soon: who removes a large file wants its room back.
func TestReaperTakesFew(t *testing.T) {
	fs := &FS{root: &node{}}
	r := &fs.reaper
	r.start(fs)
	defer r.stop()
	r.add(fs.root)
	until(t, "that one is taken", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.queue) == 0
	})
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}
