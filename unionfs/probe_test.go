package unionfs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// probed is a union of two lowers and an upper with a directory "big" of so many names that one is not enough to read
// them all.
type probed struct {
	*FS
	t   *testing.T
	cfg Config
	dir uint64 // nodeid of "big"
}

const probedNames = 1500

// newProbed makes the layers, lets fill add to big in each of them, from the upper down, and mounts nothing: requests
// are made directly.
func newProbed(t *testing.T, fill func(dirs [3]string)) *probed {
	t.Helper()
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	p := &probed{t: t, cfg: Config{Upper: at("upper"), Work: at("work"), Lowers: []string{at("l1"), at("l2")}}}
	var dirs [3]string
	for i, l := range []string{"upper", "l1", "l2"} {
		dirs[i] = at(l + "/big")
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.cfg.Work, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range probedNames {
		touch(t, filepath.Join(dirs[2], fmt.Sprintf("name-of-some-length-%d", i)))
	}
	if st, err := os.Stat(dirs[2]); err != nil || st.Size() < probeFrom {
		t.Skipf("directories of %d names say that they have %d bytes here, %v: nothing is probed", probedNames, st.Size(), err)
	}
	fill(dirs)
	p.mount()
	return p
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p *probed) mount() {
	p.t.Helper()
	fs, err := New(p.cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { fs.Close() })
	p.FS = fs
	p.dir = p.lookup(fuse.FUSE_ROOT_ID, "big").NodeId
}

func (p *probed) lookup(dir uint64, name string) fuse.EntryOut {
	p.t.Helper()
	var out fuse.EntryOut
	if s := p.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out); s != fuse.OK {
		p.t.Fatalf("lookup %s: %v", name, s)
	}
	return out
}

func (p *probed) index() *index { return p.nodes.get(p.dir).dir.index }

// list reads all names of big by READDIR, with the inode number of each.
func (p *probed) list() map[string]uint64 {
	p.t.Helper()
	x, unlock, err := p.readIndex(p.nodes.get(p.dir))
	if err != nil {
		p.t.Fatal(err)
	}
	defer unlock()
	names := map[string]uint64{}
	for i := range x.entries {
		if e := &x.entries[i]; !e.gone() {
			names[e.name] = p.entryIno(p.nodes.get(p.dir), e)
		}
	}
	return names
}

// shapes puts every constellation of a name in three layers into the directories, as far as a .wh. file, an object and
// a device make it.
func shapes(t *testing.T) (fill func([3]string), names []string) {
	kinds := []string{"", "file", "dir", "wh", "wh+file", "wh+dir", "dev"}
	if unix.Mknod(filepath.Join(t.TempDir(), "dev"), unix.S_IFCHR, 0) != nil {
		kinds = kinds[:6]
	}
	made := func(dir, name, kind string) error {
		path := filepath.Join(dir, name)
		if kind == "wh" || kind == "wh+file" || kind == "wh+dir" {
			if err := os.WriteFile(filepath.Join(dir, ".wh."+name), nil, 0o644); err != nil {
				return err
			}
		}
		switch kind {
		case "file", "wh+file":
			return os.WriteFile(path, []byte(dir), 0o644)
		case "dir", "wh+dir":
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(path, "in-"+filepath.Base(filepath.Dir(dir))), nil, 0o644)
		case "dev":
			return unix.Mknod(path, unix.S_IFCHR, 0)
		}
		return nil
	}
	for i := range kinds {
		for j := range kinds {
			for k := range kinds {
				names = append(names, fmt.Sprintf("s%d%d%d", i, j, k))
			}
		}
	}
	return func(dirs [3]string) {
		for _, name := range names {
			for l, dir := range dirs {
				if err := made(dir, name, kinds[name[1+l]-'0']); err != nil {
					t.Fatal(err)
				}
			}
		}
	}, names
}

// TestProbeAgainstIndex: a name that is probed is the same thing as one of an index of all names, and its node stays when
// that is made.
func TestProbeAgainstIndex(t *testing.T) {
	fill, names := shapes(t)
	p := newProbed(t, fill)
	p.list() // complete
	type found struct {
		mode uint32
		ino  uint64
		in   []string
	}
	inside := func(e fuse.EntryOut) (all []string) {
		n := p.nodes.get(e.NodeId)
		if n == nil || !n.isDir() {
			return nil
		}
		x, unlock, err := p.readIndex(n)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		for i := range x.entries {
			if !x.entries[i].gone() {
				all = append(all, x.entries[i].name)
			}
		}
		slices.Sort(all)
		return all
	}
	want := map[string]found{}
	for _, name := range names {
		e := p.lookup(p.dir, name)
		want[name] = found{e.Mode, e.Ino, inside(e)}
	}
	p.FS.Close()

	p.mount()
	ids := map[string]uint64{}
	for _, name := range names {
		p.nodes.get(p.dir).dir.mu.Lock()
		if x := p.index(); x != nil {
			x.probes = 2 // all of them are probed
		}
		p.nodes.get(p.dir).dir.mu.Unlock()
		e := p.lookup(p.dir, name)
		ids[name] = e.NodeId
		got := found{e.Mode, e.Ino, inside(e)}
		if w := want[name]; got.mode != w.mode || got.ino != w.ino || !slices.Equal(got.in, w.in) {
			t.Errorf("%s: probed %+v, of the index %+v", name, got, w)
		}
		if again := p.lookup(p.dir, name).NodeId; again != e.NodeId {
			t.Errorf("%s: node %d, and %d when it is looked up again", name, e.NodeId, again)
		}
	}
	if !p.index().partial {
		t.Fatal("the index is complete: nothing was probed")
	}
	listed := p.list()
	if p.index().partial {
		t.Error("the index is not complete after a listing")
	}
	for _, name := range names {
		if _, ok := listed[name]; ok != (want[name].mode != 0) {
			t.Errorf("%s: listed %v, mode %o", name, ok, want[name].mode)
		}
		if e := p.lookup(p.dir, name); e.NodeId != ids[name] {
			t.Errorf("%s: node %d when it was probed, %d now", name, ids[name], e.NodeId)
		}
	}
	if got := len(listed) - len(maps.Collect(present(names, listed))); got != probedNames {
		t.Errorf("%d other names, want %d", got, probedNames)
	}
}

func present(names []string, listed map[string]uint64) func(func(string, bool) bool) {
	return func(yield func(string, bool) bool) {
		for _, name := range names {
			if _, ok := listed[name]; ok && !yield(name, true) {
				return
			}
		}
	}
}

// TestProbeEnds: names are probed until reading all would have been as cheap, and a name that changes is not.
func TestProbeEnds(t *testing.T) {
	p := newProbed(t, func([3]string) {})
	for i := 0; p.index() == nil || p.index().partial; i++ {
		if i > probedNames {
			t.Fatalf("%d names were probed, and more may be", i)
		}
		if e := p.lookup(p.dir, fmt.Sprintf("missing-%d", i)); e.NodeId != 0 {
			t.Fatalf("missing-%d is there", i)
		}
	}
	p.FS.Close()

	p.mount()
	p.lookup(p.dir, "name-of-some-length-7")
	if x := p.index(); !x.partial || len(x.entries) != 1 {
		t.Errorf("%d names known after one was asked for", len(x.entries))
	}
	var out fuse.EntryOut
	in := fuse.MknodIn{InHeader: fuse.InHeader{NodeId: p.dir}, Mode: unix.S_IFREG | 0o644}
	if s := p.Mknod(nil, &in, "name-of-some-length-8", &out); s != fuse.Status(unix.EEXIST) {
		t.Errorf("making a name that was not probed yet: %v, want EEXIST", s)
	}
	if s := p.Unlink(nil, &in.InHeader, "name-of-some-length-7"); s != fuse.OK {
		t.Errorf("unlink: %v", s)
	}
	if got := len(p.list()); got != probedNames-1 {
		t.Errorf("%d names listed, want %d", got, probedNames-1)
	}
}

// TestProbeCopiedUp: what is copied up in a directory of which not all names are known is found when they are.
func TestProbeCopiedUp(t *testing.T) {
	p := newProbed(t, func([3]string) {})
	e := p.lookup(p.dir, "name-of-some-length-7")
	n := p.nodes.get(e.NodeId)
	if err := p.copyUp(n, wholeFile); err != nil {
		t.Fatal(err)
	}
	if !p.index().partial {
		t.Error("all names were read for a copy-up")
	}
	ino := p.list()["name-of-some-length-7"]
	if e2 := p.lookup(p.dir, "name-of-some-length-7"); e2.NodeId != e.NodeId || e2.Ino != e.Ino || ino != e.Ino || !n.isUp() {
		t.Errorf("node %d, inode %d, listed as %d; was node %d, inode %d", e2.NodeId, e2.Ino, ino, e.NodeId, e.Ino)
	}
	p.Forget(e.NodeId, 3)
	p.reaper.catchUp()
	if e3 := p.lookup(p.dir, "name-of-some-length-7"); e3.Ino != e.Ino {
		t.Errorf("inode %d after the kernel forgot it, was %d", e3.Ino, e.Ino)
	}
}
