package model

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// Target is a filesystem under test with its mount options.
type Target struct {
	Sys  uniontest.System
	Opts string // by commas
}

func (tg Target) String() string {
	if tg.Opts == "" {
		return string(tg.Sys)
	}
	return string(tg.Sys) + "," + tg.Opts
}

func (tg Target) opts() []string {
	if tg.Opts == "" {
		return nil
	}
	return strings.Split(tg.Opts, ",")
}

// ProbeCaps finds out what the target can do: dir is on the filesystem below it.
func (tg Target) ProbeCaps(dir string) (Caps, error) {
	c := Caps{DirNlink: true, DirentIno: true, DirMtime: true, DeadLowerDirs: true}
	c.Limits = LimitsHere()
	c.Umask = uint32(unix.Umask(0))
	unix.Umask(int(c.Umask))
	probe := func(mode uint32) bool {
		f, err := os.CreateTemp(dir, "probe")
		if err != nil {
			return false
		}
		defer os.Remove(f.Name())
		defer f.Close()
		return f.Truncate(4*pageSize) == nil && sys.Fallocate(int(f.Fd()), mode, pageSize, pageSize) == nil
	}
	if !probe(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE) {
		return c, fmt.Errorf("the filesystem of %s cannot punch holes", dir)
	}
	c.ZeroRange = probe(unix.FALLOC_FL_ZERO_RANGE)
	c.CollapseRange = probe(unix.FALLOC_FL_COLLAPSE_RANGE)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if c.TmpFile = err == nil; c.TmpFile {
		_ = unix.Close(fd) // nothing was written
	}
	switch tg.Sys {
	case uniontest.Overlay:
		c.Whiteout, c.DirNlink, c.DirentIno, c.DeadLowerDirs, c.StaleMaps = WhiteoutEINVAL, false, false, false, true
	case uniontest.Laminafs, uniontest.FuseOverlayfs:
		c.CollapseRange = false // fuse_file_fallocate() of the kernel refuses it
		c.Whiteout = WhiteoutNothing
	}
	return c, nil
}

// world is a mounted target.
type world struct {
	target  Target
	mount   *uniontest.Mount
	layers  *uniontest.Layers
	caps    Caps
	entries []Entry
}

// newWorld mounts the target over layers as described. prepare may put more into them.
func newWorld(t testing.TB, tg Target, layers int, entries []Entry, prepare func(dirs []string) error) *world {
	t.Helper()
	unix.Umask(0o022)
	w := &world{target: tg, entries: entries}
	if tg.Sys == uniontest.Plain {
		w.layers = uniontest.NewLayers(t, 0)
	} else {
		w.layers = uniontest.NewLayers(t, layers)
	}
	var err error
	if w.caps, err = tg.ProbeCaps(w.layers.Dir); err != nil {
		t.Skipf("needs more of the filesystem: %v", err)
	}
	entries = w.caps.Limits.Entries(entries)
	w.entries = entries
	dirs := w.layers.Lowers
	if tg.Sys == uniontest.Plain {
		err = Merge(entries, w.caps).WriteTree(w.layers.Merged)
		dirs = []string{w.layers.Merged}
	} else {
		if tg.Sys == uniontest.Overlay {
			entries = ForKernel(entries)
		}
		err = WriteLayers(entries, dirs, tg.Sys == uniontest.Overlay)
	}
	if err == nil && prepare != nil {
		err = prepare(dirs)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.mount = uniontest.Start(t, tg.Sys, w.layers, tg.opts()...)
	return w
}

// worker is one process in a directory of its own, with the model of it.
type worker struct {
	w       *world
	dir     string // in the union; "" for all of it
	entries []Entry
	tree    *Tree
	gen     *Gen
	proc    *Proc
	ops     []Op
	failure string
}

func (w *world) path(dir string) string { return filepath.Join(w.mount.Dir(), dir) }

func (w *world) newWorker(t testing.TB, dir string, entries []Entry) *worker {
	t.Helper()
	entries = w.caps.Limits.Entries(entries)
	k := &worker{w: w, dir: dir, entries: entries, tree: Merge(entries, w.caps), proc: StartProc(t)}
	if dir == "" {
		k.tree.root.mode = unix.S_IFDIR | 0o755
	}
	if err := k.proc.Open(w.path(dir)); err != nil {
		t.Fatal(err)
	}
	return k
}

// step does op on both sides and says what differs.
func (k *worker) step(op Op) string {
	if op.Kind == opCheck {
		s, err := k.proc.Snapshot(k.w.path(k.dir), k.tree.Pages())
		if err != nil {
			return err.Error()
		}
		return strings.Join(k.tree.Diff(s), "\n")
	}
	want := k.tree.Apply(op)
	if want.Skip {
		return ""
	}
	got, err := k.proc.Do(op)
	if err != nil {
		return err.Error()
	}
	return want.Check(got)
}

// do records the operation and does it. After a failure nothing is done any more.
func (k *worker) do(op Op) {
	if k.failure == "" {
		k.ops = append(k.ops, op)
		k.failure = k.step(op)
	}
}

// run does steps made-up operations, with a look at the whole tree now and then.
func (k *worker) run(r *rand.Rand, steps int) {
	for n := 0; n < steps && k.failure == ""; n++ {
		if r.IntN(60) == 0 {
			k.do(Op{Kind: opCheck})
		}
		k.do(k.gen.Next())
	}
	k.do(Op{Kind: opCheck})
}

// tail is the end of what a worker did.
func (k *worker) tail() string {
	var b strings.Builder
	for _, op := range k.ops[max(0, len(k.ops)-12):] {
		fmt.Fprintln(&b, op)
	}
	return b.String()
}

// Plan is the size of a run.
type Plan struct {
	Seed    uint64
	Workers int
	Phases  int // the filesystem is mounted anew after each
	Steps   int // operations of a worker in a phase
}

// Run does made-up operations on the target and fails the test where it is not like the model. The sequence that
// shows it is shrunk and saved below testdata/failures.
func Run(t *testing.T, tg Target, p Plan) {
	r := rand.New(rand.NewPCG(p.Seed, 1))
	layers := 1 + r.IntN(4)
	var all []Entry
	own := make([][]Entry, p.Workers)
	for n := range own {
		own[n] = RandomLayers(r, layers)
		all = append(all, Under(fmt.Sprintf("w%d", n), layers, own[n])...)
	}
	const shared = "shared"
	all = append(all, Under(shared, layers, sharedLayers("", layers))...)
	names := 0
	w := newWorld(t, tg, layers, all, func(dirs []string) (err error) {
		names, err = sharedFiles(dirs, shared)
		return err
	})

	var workers []*worker
	for n := range own {
		k := w.newWorker(t, fmt.Sprintf("w%d", n), own[n])
		k.gen = NewGen(rand.New(rand.NewPCG(p.Seed, uint64(100+n))), k.tree)
		workers = append(workers, k)
	}
	var sharers []*Proc
	for range min(p.Workers, 3) {
		sharers = append(sharers, StartProc(t))
	}
	var logs []*sharedLog
	for phase := range p.Phases {
		var wg sync.WaitGroup
		for n, k := range workers {
			wg.Go(func() { k.run(rand.New(rand.NewPCG(p.Seed, uint64(n)<<32|uint64(phase))), p.Steps) })
		}
		got := make([]*sharedLog, len(sharers))
		errs := make([]error, len(sharers))
		for n, s := range sharers {
			wg.Go(func() {
				a, err := s.call(call{Shared: &sharedCall{
					Dir: w.path(shared), Seed: p.Seed, Who: phase*len(sharers) + n, Steps: p.Steps,
					Overlay: tg.Sys == uniontest.Overlay,
				}})
				got[n], errs[n] = a.Shared, err
			})
		}
		wg.Wait()
		for n, err := range errs {
			if err != nil {
				t.Fatalf("phase %d: shared directory: %v", phase, err)
			}
			logs = append(logs, got[n])
		}
		failed := false
		for _, k := range workers {
			failed = failed || k.failed(t, tg, p)
		}
		if failed {
			return
		}
		check := func(when string) {
			for _, msg := range checkShared(w.path(shared), names, logs) {
				t.Errorf("phase %d, %s: shared directory: %s", phase, when, msg)
			}
			for _, msg := range distinct(workers) {
				t.Errorf("phase %d, %s: %s", phase, when, msg)
			}
		}
		check("before the remount")
		w.remount(t, workers)
		for _, k := range workers {
			k.do(Op{Kind: opCheck})
			failed = failed || k.failed(t, tg, p)
		}
		check("after the remount")
		if failed || t.Failed() {
			return
		}
	}
	for _, k := range workers {
		_ = k.proc.Close() // the process ends anyway
	}
}

// remount mounts anew, with all workers' handles closed.
func (w *world) remount(t testing.TB, workers []*worker) {
	t.Helper()
	for _, k := range workers {
		if err := k.proc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.mount.Remount()
	for _, k := range workers {
		k.ops = append(k.ops, Op{Kind: opRemount})
		k.tree.Apply(Op{Kind: opRemount})
		if err := k.proc.Open(w.path(k.dir)); err != nil {
			t.Fatal(err)
		}
	}
}

// distinct looks for an inode number that two workers' trees both show.
func distinct(workers []*worker) (wrong []string) {
	owner := map[uint64]*inode{}
	for _, k := range workers {
		k.tree.each(func(path string, i *inode) {
			if other := owner[i.ino]; i.ino != 0 && other != nil && other != i {
				wrong = append(wrong, fmt.Sprintf("st_ino %d of %s/%s is also that of another object", i.ino, k.dir, path))
			}
			owner[i.ino] = i
		})
	}
	return wrong
}

func (k *worker) failed(t *testing.T, tg Target, p Plan) bool {
	if k.failure == "" {
		return false
	}
	t.Errorf("worker %s, LAMINA_SEED=%d, step %d: %s\nafter:\n%s", k.dir, p.Seed, len(k.ops), k.failure, k.tail())
	rec := &Record{Comment: fmt.Sprintf("seed %d: %s", p.Seed, k.failure), Options: tg.Opts, Layers: k.entries, Ops: k.ops}
	if msg := Replay(t, tg, rec); msg == "" {
		rec.Comment += "\nnot seen when done by one process alone"
	} else {
		rec = Shrink(t, tg, rec)
	}
	path, err := rec.save(fmt.Sprintf("%s-%d", tg.Sys, p.Seed))
	if err != nil {
		t.Error(err)
		return true
	}
	b, _ := os.ReadFile(path) // just written
	t.Logf("saved as %s:\n%.4000s", path, b)
	return true
}

// failuresEnv in the environment names another directory for the sequences that fail: not everybody may write to ours.
const failuresEnv = "LAMINA_MODEL_FAILURES"

func (r *Record) save(name string) (string, error) {
	dir := filepath.Join("testdata", "failures")
	if own := os.Getenv(failuresEnv); own != "" {
		dir = own
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".txt")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return path, r.Write(f)
}

// Replay does a recorded run on the target and says what differs first, "" for nothing.
func Replay(t *testing.T, tg Target, rec *Record) (msg string) {
	t.Run("replay", func(t *testing.T) {
		layers := 1
		for _, e := range rec.Layers {
			layers = max(layers, e.Layer+1)
		}
		w := newWorld(t, tg, layers, rec.Layers, nil)
		k := w.newWorker(t, "", rec.Layers)
		defer func() { _ = k.proc.Close() }() // so that the mount can be unmounted
		for n, op := range rec.Ops {
			if op.Kind == opRemount {
				w.remount(t, []*worker{k})
				continue
			}
			if d := k.step(op); d != "" {
				msg = fmt.Sprintf("step %d, %s: %s", n+1, op, d)
				return
			}
		}
	})
	return msg
}
