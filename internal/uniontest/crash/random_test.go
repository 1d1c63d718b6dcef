package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/model"
	"golang.org/x/sys/unix"
)

// load is one process that works in its own directory until the server dies. tree is the model before the operation
// that is in flight, next the one after it: the oracle. An operation that was answered has to hold after the crash.
type load struct {
	dir        string
	tree, next *model.Tree
	gen        *model.Gen
	proc       *model.Proc
	flight     model.Op
	log        []model.Op // since the last mount
	failure    string
}

// run works until the server dies, which dying announces, and reports every operation.
func (l *load) run(dying *atomic.Bool, done func(failed bool)) {
	l.log, l.flight = nil, model.Op{}
	for {
		op := l.gen.Next()
		before := l.tree.Clone() // the operation may be in flight when the server dies
		before.Reopen(l.tree)
		want := l.tree.Apply(op)
		if want.Skip {
			continue
		}
		got, err := l.proc.Do(op)
		if err != nil {
			l.failure = fmt.Sprintf("%s: %v", op, err)
			done(true)
			return
		}
		msg := want.Check(got)
		if msg != "" && dying.Load() { // an error of a lost connection, or what of a read could still be done
			l.flight, l.next, l.tree = op, l.tree, before
			return
		}
		l.log = append(l.log, op)
		if msg != "" {
			l.failure = fmt.Sprintf("%s: %s", op, msg)
			done(true)
			return
		}
		done(false)
	}
}

// settle compares what is there after a crash with the oracle and goes on from what it finds.
func (l *load) settle(dir string) string {
	both := []*model.Tree{l.tree, l.next}
	for _, t := range both {
		t.Apply(model.Op{Kind: "remount"})
		t.ForgetDirTimes()
	}
	s, err := l.proc.Snapshot(dir, l.tree.Pages())
	if err != nil {
		return err.Error()
	}
	old := strings.Join(l.tree.Clone().Diff(s), "\n")
	if old == "" {
		l.tree.Diff(s) // learns inode numbers
		return ""
	}
	if s, err = l.proc.Snapshot(dir, l.next.Pages()); err != nil {
		return err.Error()
	}
	new := strings.Join(l.next.Clone().Diff(s), "\n")
	if new == "" || l.next.Torn(l.tree, s) {
		l.next.Diff(s)
		l.tree = l.next
		return ""
	}
	return fmt.Sprintf("with %s in flight, it is not the old tree:\n%s\nand not the new one:\n%s", l.flight, old, new)
}

// TestRandom kills the server at any moment while processes work, mounts again and compares. LAMINA_SEED repeats a
// run's operations, if not its moments; LAMINA_CRASHES is the number of crashes for each format of the upper.
func TestRandom(t *testing.T) {
	needServer(t)
	crashes := 10
	if long {
		crashes = 250
	}
	if s := os.Getenv("LAMINA_CRASHES"); s != "" {
		crashes, _ = strconv.Atoi(s) // 0 crashes fail below
	}
	if crashes < 1 {
		t.Fatal("LAMINA_CRASHES is no number")
	}
	seed := uint64(1)
	if s := os.Getenv("LAMINA_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, opts := range formats {
		t.Run(opts, func(t *testing.T) {
			// The tree grows with the crashes, and a fresh one has more lower objects to be copied up.
			const perMount = 25
			for done := 0; done < crashes; done += perMount {
				t.Run(strconv.Itoa(done/perMount), func(t *testing.T) {
					randomCrashes(t, opts, seed+uint64(done), min(perMount, crashes-done))
				})
			}
		})
	}
}

func randomCrashes(t *testing.T, opts string, seed uint64, crashes int) {
	disarm(t)
	unix.Umask(0o022)
	r := rand.New(rand.NewPCG(seed, 3))
	const workers, layers = 3, 3
	l := uniontest.NewLayers(t, layers)
	caps, err := (model.Target{Sys: uniontest.Laminafs, Opts: opts}).ProbeCaps(l.Dir)
	if err != nil {
		t.Skipf("needs more of the filesystem: %v", err)
	}
	var loads []*load
	var all []model.Entry
	for n := range workers {
		own := caps.Limits.Entries(model.RandomLayers(r, layers))
		k := &load{dir: fmt.Sprintf("w%d", n), tree: model.Merge(own, caps)}
		k.gen = model.NewCrashGen(rand.New(rand.NewPCG(seed, uint64(50+n))), k.tree)
		loads, all = append(loads, k), append(all, model.Under(k.dir, layers, own)...)
	}
	if err := model.WriteLayers(caps.Limits.Entries(all), l.Lowers, false); err != nil {
		t.Fatal(err)
	}
	m := uniontest.Start(t, uniontest.Laminafs, l, strings.Split(opts, ",")...)
	for _, k := range loads {
		k.proc = model.StartProc(t) // later than the mount, so that it ends before the unmount
	}
	for crash := range crashes {
		var dying atomic.Bool
		var wg sync.WaitGroup
		var left atomic.Int64
		left.Store(int64(20 + r.IntN(400)))
		enough := make(chan struct{})
		done := func(failed bool) {
			if n := left.Add(-1); n == 0 || failed && left.Swap(-1) > 0 {
				close(enough)
			}
		}
		for _, k := range loads {
			if err := k.proc.Open(filepath.Join(m.Dir(), k.dir)); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { k.run(&dying, done) })
		}
		<-enough
		dying.Store(true)
		m.Kill()
		wg.Wait()
		for _, k := range loads {
			if k.failure != "" {
				t.Errorf("crash %d: before it, %s: %s", crash, k.dir, k.failure)
			}
			if err := k.proc.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
		m.Remount()
		if staged, err := os.ReadDir(filepath.Join(l.Work, "work")); err != nil || len(staged) > 0 {
			t.Errorf("crash %d: left in the workdir: %v, %v", crash, staged, err)
		}
		for _, k := range loads {
			if msg := k.settle(filepath.Join(m.Dir(), k.dir)); msg != "" {
				t.Errorf("crash %d, LAMINA_SEED=%d: %s: %s\nafter %v", crash, seed, k.dir, msg, last(k.log, 8))
			}
			k.gen.Use(k.tree)
			t.Logf("crash %d: %s: %d operations, then %s", crash, k.dir, len(k.log), k.flight)
		}
		if t.Failed() {
			return
		}
	}
}

func last(ops []model.Op, n int) []model.Op { return ops[max(0, len(ops)-n):] }
