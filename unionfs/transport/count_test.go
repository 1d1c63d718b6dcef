package transport

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/figures"
)

// fixed is a filesystem that answers each LOOKUP with the status it is told.
type fixed struct {
	fuse.RawFileSystem
	status fuse.Status
}

func (f *fixed) Lookup(<-chan struct{}, *fuse.InHeader, string, *fuse.EntryOut) fuse.Status {
	return f.status
}

func newFixed() (*requests, *fixed) {
	f := &fixed{RawFileSystem: fuse.NewDefaultRawFileSystem()}
	return &requests{RawFileSystem: f}, f
}

// opcodes are the figures by opcode.
func opcodes(f figures.Requests) map[string]figures.Opcode {
	m := map[string]figures.Opcode{}
	for _, o := range f.Opcodes {
		m[o.Name] = o
	}
	return m
}

func TestErrnosAreBounded(t *testing.T) {
	r, f := newFixed()
	for _, f.status = range []fuse.Status{fuse.OK, fuse.EIO, fuse.EIO, fuse.Status(unix.EHWPOISON), 134, 512, -5, 1 << 30} {
		if got := r.Lookup(nil, &fuse.InHeader{}, "x", &fuse.EntryOut{}); got != f.status {
			t.Errorf("status %d becomes %d", f.status, got)
		}
	}
	got, since := r.figures(false)
	want := map[string]uint64{"EIO": 2, "EHWPOISON": 1, "other": 4}
	lookup := opcodes(got)["LOOKUP"]
	if len(got.Opcodes) != 1 || lookup.Count != 8 || !maps.Equal(lookup.Errors, want) {
		t.Errorf("got %+v", got)
	}
	if lookup.Latency != nil || !since.IsZero() {
		t.Error("timed although nobody wants to know")
	}
}

func TestEveryKindHasAName(t *testing.T) {
	if i := slices.Index(opNames[:], ""); i >= 0 {
		t.Errorf("kind %d has none", i)
	}
	names := slices.Sorted(slices.Values(opNames[:]))
	if len(slices.Compact(names)) != len(opNames) {
		t.Errorf("one of %q is there twice", names)
	}
	// linux/fuse.h, enum fuse_opcode, of protocol 7.45; FUSE_ is left out.
	kernels := strings.Fields(`LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK MKNOD MKDIR UNLINK RMDIR RENAME LINK OPEN READ WRITE
		STATFS RELEASE FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT OPENDIR READDIR RELEASEDIR FSYNCDIR GETLK SETLK
		SETLKW ACCESS CREATE INTERRUPT BMAP DESTROY IOCTL POLL NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK
		COPY_FILE_RANGE SETUPMAPPING REMOVEMAPPING SYNCFS TMPFILE STATX COPY_FILE_RANGE_64`)
	for _, name := range opNames {
		if !slices.Contains(kernels, name) {
			t.Errorf("the kernel knows no %s", name)
		}
	}
}

// A panic is counted for the kind that panics, whatever its method is called.
func TestPanicOfEveryKindIsCounted(t *testing.T) {
	methods := reflect.TypeFor[*requests]()
	known := map[string]bool{}
	for i := range methods.NumMethod() {
		known[strings.ToUpper(methods.Method(i).Name)] = true
	}
	for op, name := range opNames {
		method := strings.ReplaceAll(name, "_", "")
		if !known[method] && kind(op) != opInit {
			t.Errorf("%s: requests has no method for it", name)
		}
		r, _ := newFixed()
		r.panicked(method)
		if got := r.errorsOf(kind(op))["EIO"]; got != 1 {
			t.Errorf("%s: %d EIO, want 1", name, got)
		}
	}
}

func TestBuckets(t *testing.T) {
	if bucket(0) != 0 || bucket(-time.Second) != 0 || bucket(time.Hour) != len(figures.Bounds) {
		t.Error("what is out of bounds is in another bucket")
	}
	for i, b := range figures.Bounds {
		if i > 0 && b <= figures.Bounds[i-1] {
			t.Errorf("bound %v does not grow", b)
		}
		if bucket(b) != i || bucket(b+1) != i+1 {
			t.Errorf("bound %v: %d, and above %d", b, bucket(b), bucket(b+1))
		}
	}
}

// Requests that began before they were timed end as if they were not.
func TestTimedInTheMiddle(t *testing.T) {
	r, _ := newFixed()
	before := r.begin(opRead)
	if _, since := r.figures(true); since.IsZero() {
		t.Fatal("not timed")
	}
	in := r.begin(opRead)
	f, _ := r.figures(false)
	if f.InFlight != 1 {
		t.Errorf("%d in flight, want 1", f.InFlight)
	}
	r.end(in, fuse.OK)
	r.end(before, fuse.OK)
	f, _ = r.figures(false)
	o := opcodes(f)["READ"]
	var n uint64
	for _, b := range o.Latency.Buckets {
		n += b
	}
	if f.InFlight != 0 || o.Count != 2 || n != 1 {
		t.Errorf("%d in flight, %d in all, %d timed; want 0, 2, 1", f.InFlight, o.Count, n)
	}
}

// At every look there are at least as many requests as errors and durations of them.
func TestFiguresUnderLoad(t *testing.T) {
	r, f := newFixed()
	f.status = fuse.EACCES
	r.figures(true)
	const workers, each = 4, 20_000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				r.Lookup(nil, &fuse.InHeader{}, "x", &fuse.EntryOut{})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	look := func() figures.Opcode {
		got, _ := r.figures(true)
		o := opcodes(got)["LOOKUP"]
		var timed uint64
		if o.Latency != nil {
			for _, n := range o.Latency.Buckets {
				timed += n
			}
		}
		if o.Errors["EACCES"] > o.Count || timed > o.Count {
			t.Errorf("%d requests, %d errors, %d durations", o.Count, o.Errors["EACCES"], timed)
		}
		return o
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		look()
	}
	if o := look(); o.Count != workers*each || o.Errors["EACCES"] != workers*each || o.Latency.Seconds <= 0 {
		t.Errorf("at the end %+v", o)
	}
}

func TestPanicIsCounted(t *testing.T) {
	x := mount(t, Options{})
	x.Figures(true)
	if _, err := os.Stat(x.dir + "/panic"); err == nil {
		t.Fatal("no panic")
	}
	f, _ := x.Figures(false)
	o := opcodes(f)["LOOKUP"]
	if o.Count != 1 || !maps.Equal(o.Errors, map[string]uint64{"EIO": 1}) || f.InFlight != 0 {
		t.Errorf("got %+v, %d in flight", o, f.InFlight)
	}
}

func TestBytesAreCounted(t *testing.T) {
	x := mount(t, Options{})
	if _, err := x.read(); err != nil {
		t.Fatal(err)
	}
	if f, _ := x.Figures(false); f.ReadBytes != uint64(len(helloText)) || f.WrittenBytes != 0 {
		t.Errorf("%d bytes read, %d written; want %d, 0", f.ReadBytes, f.WrittenBytes, len(helloText))
	}
}

func BenchmarkCount(b *testing.B) {
	for _, timed := range []bool{false, true} {
		b.Run(map[bool]string{false: "counted", true: "timed"}[timed], func(b *testing.B) {
			r, _ := newFixed()
			r.figures(timed)
			for b.Loop() {
				r.end(r.begin(opLookup), fuse.OK)
			}
		})
	}
}

func TestNoticesAreCounted(t *testing.T) {
	x := mount(t, Options{})
	if _, err := x.read(); err != nil {
		t.Fatal(err)
	}
	if status := x.m.Notifier().InvalInode(helloID, -1, 0); status != fuse.OK {
		t.Fatal(status)
	}
	if status := x.m.Notifier().InvalInode(12345, -1, 0); status != fuse.ENOENT {
		t.Errorf("a node that the kernel does not know: %v", status)
	}
	want := map[string]uint64{"INVAL_INODE": 1, "INVAL_ENTRY": 0, "DELETE": 0, "STORE": 0}
	if got := x.m.Notifier().Sent(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The most that a mount can have to tell is not much.
func TestFiguresAreBounded(t *testing.T) {
	r, f := newFixed()
	r.figures(true)
	for op := range opCount {
		for f.status = range fuse.Status(errnos) {
			r.end(r.begin(op), f.status)
		}
	}
	got, _ := r.figures(true)
	text, err := json.Marshal(got)
	if err != nil || len(got.Opcodes) != int(opCount) || len(text) > 400<<10 {
		t.Errorf("%d opcodes in %d bytes, %v", len(got.Opcodes), len(text), err)
	}
}

// Of what comes often a part is timed, and all of it is known to be in flight.
func TestOneInFourIsTimed(t *testing.T) {
	r, _ := newFixed()
	r.figures(true)
	const n = timedFirst + 400
	for range n {
		s := r.begin(opRead)
		if got := r.timing.Load().inFlight.Load(); got != 1 {
			t.Fatalf("%d in flight", got)
		}
		r.end(s, fuse.OK)
	}
	f, _ := r.figures(false)
	o := opcodes(f)["READ"]
	var timed uint64
	for _, b := range o.Latency.Buckets {
		timed += b
	}
	if o.Count != n || timed != timedFirst+400/timedOneIn || f.InFlight != 0 {
		t.Errorf("%d requests, %d timed, %d in flight", o.Count, timed, f.InFlight)
	}
}
