package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fsx exercises the data of one file, after the program of that name by Apple and the Linux Test Project: every way
// to change bytes, through several descriptors at once, every read compared with a copy in memory. The file starts
// in a lower layer, and some of the descriptors and mappings are older than its copy-up.

// FsxPlan is one run.
type FsxPlan struct {
	Seed  uint64
	Steps int

	// Direct opens some descriptors with O_DIRECT, whose offsets and lengths are then whole pages. What is written
	// through mappings is synced at once: nobody promises that they agree otherwise.
	Direct bool

	// Append opens some descriptors with O_APPEND.
	Append bool

	// Remount mounts anew now and then.
	Remount bool
}

const fsxMaxLen = 256 << 10 // bytes: the file grows no further

// fsx is a run of FsxPlan. The file's second name is in another directory, so that its copy-up goes by the index.
type fsx struct {
	t    *testing.T
	p    FsxPlan
	r    *rand.Rand
	w    *world
	k    *worker
	next int
	open map[int]string // flags by handle
	maps []int
}

// Fsx runs the plan on the target.
func Fsx(t *testing.T, tg Target, p FsxPlan) {
	r := rand.New(rand.NewPCG(p.Seed, 2))
	entries := []Entry{
		{Kind: "dir", Layer: 1, Path: "d", Mode: 0o755},
		{Kind: "file", Layer: 1, Path: "d/f", Mode: 0o644, Len: 3 * fsxMaxLen / 4, Hole: 20000, Seed: 99},
		{Kind: "dir", Layer: 0, Path: "e", Mode: 0o755},
	}
	if r.IntN(2) == 0 {
		entries = append(entries, Entry{Kind: "hardlink", Layer: 1, Path: "g", To: "d/f"})
	}
	w := newWorld(t, tg, 2, entries, nil)
	f := &fsx{t: t, p: p, r: r, w: w, k: w.newWorker(t, "", entries), next: 1}
	defer func() { _ = f.k.proc.Close() }() // so that it can be unmounted
	f.start()
	for range p.Steps {
		f.step()
		if p.Remount && r.IntN(400) == 0 {
			f.k.do(Op{Kind: opCheck})
			if f.k.failure == "" {
				w.remount(t, []*worker{f.k})
				f.start()
			}
		}
		if f.k.failure != "" {
			break
		}
	}
	f.k.do(Op{Kind: opCheck})
	if f.k.failure != "" {
		rec := &Record{Comment: fmt.Sprintf("fsx, seed %d: %s", p.Seed, f.k.failure), Options: tg.Opts, Layers: entries, Ops: f.k.ops}
		if Replay(t, tg, rec) != "" {
			rec = Shrink(t, tg, rec)
		}
		path, err := rec.save(fmt.Sprintf("fsx-%s-%d", tg.Sys, p.Seed))
		t.Errorf("LAMINA_SEED=%d, step %d: %s\nsaved as %s (%v), all of it:\n%s", p.Seed, len(f.k.ops), f.k.failure,
			path, err, all(f.k.ops))
	}
}

func all(ops []Op) string {
	var b strings.Builder
	for n, op := range ops {
		fmt.Fprintf(&b, "%5d %s\n", n+1, op)
	}
	return b.String()
}

// start opens descriptors and makes mappings while the file is in a lower layer, or has just been found there again.
func (f *fsx) start() {
	f.open, f.maps = map[int]string{}, nil
	for _, flags := range []string{"rdonly", "rdonly", "rdwr"} {
		f.openFile(flags)
		if flags == "rdonly" && f.r.IntN(2) == 0 {
			f.mmap(f.next-1, "")
		}
	}
}

func (f *fsx) openFile(flags string) {
	h := f.next
	f.next++
	f.open[h] = flags
	f.k.do(Op{Kind: "open", H: h, Path: "d/f", Flags: flags})
}

func (f *fsx) mmap(h int, flags string) {
	f.maps = append(f.maps, f.next)
	off := pageSize * f.r.Int64N(8)
	f.k.do(Op{Kind: "mmap", H: h, Map: f.next, Off: off, Len: fsxMaxLen - off, Flags: flags})
	f.next++
}

func (f *fsx) handle(ok func(flags string) bool) int {
	var hs []int
	for h, flags := range f.open {
		if ok(flags) {
			hs = append(hs, h)
		}
	}
	if len(hs) == 0 {
		return -1
	}
	slices.Sort(hs)
	return pick(f.r, hs)
}

func readable(flags string) bool { return !strings.Contains(flags, "wronly") }
func writable(flags string) bool { return !strings.Contains(flags, "rdonly") }

// span is where an operation works: whole pages for O_DIRECT.
func (f *fsx) span(flags string) (off, n int64) {
	off, n = f.r.Int64N(fsxMaxLen), f.r.Int64N(24<<10)
	if strings.Contains(flags, "direct") {
		off, n = off&^(pageSize-1), n&^(pageSize-1)
	}
	return off, min(n, fsxMaxLen-off)
}

func (f *fsx) step() {
	r := f.r
	size := f.k.tree.lookup("d/f").data.size
	h := f.handle(writable)
	off, n := f.span(f.open[h])
	if strings.Contains(f.open[h], "append") && size+n > fsxMaxLen {
		f.k.do(Op{Kind: "truncate", H: h, Len: r.Int64N(fsxMaxLen / 2)})
		return
	}
	sync := pick(r, []string{"", "sync"})
	if f.p.Direct {
		sync = "sync"
	}
	switch k := r.IntN(32); {
	case k < 8:
		h := f.handle(readable)
		off, n := f.span(f.open[h])
		f.k.do(Op{Kind: "pread", H: h, Off: off, Len: n})
	case k < 13:
		f.k.do(Op{Kind: "pwrite", H: h, Off: off, Len: n, Seed: r.Uint32() >> 16})
	case k < 15:
		f.k.do(Op{Kind: "truncate", H: h, Len: off})
	case k == 15:
		f.k.do(Op{Kind: "truncate", Path: "d/f", Len: off})
	case k < 19 && len(f.maps) > 0:
		f.k.do(Op{Kind: "mread", Map: pick(r, f.maps), Off: off, Len: n})
	case k < 22 && len(f.maps) > 0:
		m := pick(r, f.maps)
		if f.k.tree.maps[m].writable {
			f.k.do(Op{Kind: "mwrite", Map: m, Off: off, Len: n, Seed: r.Uint32() >> 16, Flags: sync})
		}
	case k == 22:
		f.k.do(Op{Kind: "fallocate", H: h, Flags: "punch,keep", Off: off, Len: n + 1})
	case k == 23:
		f.k.do(Op{Kind: "fallocate", H: h, Flags: pick(r, []string{"zero", "zero,keep", "", "keep"}), Off: off, Len: max(1, n)})
	case k == 24:
		f.k.do(Op{Kind: "fallocate", H: h, Flags: pick(r, []string{"collapse", "insert"}),
			Off: off &^ (pageSize - 1), Len: min(pageSize, max(0, fsxMaxLen-size)&^(pageSize-1))})
	case k == 25 && !f.p.Direct: // the end of the file may be anywhere, which O_DIRECT does not take
		to, l := f.span(f.open[h])
		f.k.do(Op{Kind: "copy", H: f.handle(readable), H2: h, Off: off, Off2: to, Len: min(l, n)})
	case k == 26:
		f.k.do(Op{Kind: pick(r, []string{"seekdata", "seekhole"}), H: h, Off: off})
	case k == 27:
		f.k.do(Op{Kind: "fsync", H: h})
	case k == 28:
		f.k.do(Op{Kind: "stat", H: f.handle(readable)})
	case k == 29:
		f.reopen()
	case k == 30:
		if len(f.maps) > 3 {
			f.k.do(Op{Kind: "munmap", Map: f.maps[0]})
			f.maps = f.maps[1:]
		}
		if h := f.handle(func(s string) bool { return strings.HasPrefix(s, "rdwr") }); h > 0 {
			f.mmap(h, pick(r, []string{"", "write", "write"}))
		}
	default:
		// The name moves while descriptors are open.
		f.k.do(Op{Kind: "rename", Path: "d/f", To: "e/f"})
		f.k.do(Op{Kind: "stat", Path: "e/f"})
		f.k.do(Op{Kind: "rename", Path: "e/f", To: "d/f"})
	}
}

// reopen closes a descriptor, but for the oldest, and opens another.
func (f *fsx) reopen() {
	if len(f.open) > 6 {
		h := slices.Max(slices.Collect(maps.Keys(f.open)))
		f.k.do(Op{Kind: "close", H: h})
		delete(f.open, h)
	}
	kinds := []string{"rdonly", "rdwr", "wronly"}
	if f.p.Append {
		kinds = append(kinds, "rdwr,append", "wronly,append")
	}
	if f.p.Direct {
		kinds = append(kinds, "rdonly,direct", "rdwr,direct", "rdwr,direct")
	}
	f.openFile(pick(f.r, kinds))
}

// canDirect reports whether the filesystem of dir takes O_DIRECT.
func canDirect(dir string) bool {
	p := filepath.Join(dir, "direct")
	fd, err := unix.Open(p, unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Unlink(p) == nil
}
