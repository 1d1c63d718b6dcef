package unionfs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// list returns the names after the offset, and the offset to go on from.
func (x *index) list(offset uint64, most int) (names []string, next uint64) {
	next = offset
	for i := x.after(offset); i < len(x.entries) && len(names) < most; i++ {
		if !x.entries[i].gone() {
			names = append(names, x.entries[i].name)
			next = cookie(i)
		}
	}
	return names, next
}

func TestIndexAgainstMap(t *testing.T) {
	x, want := newIndex(0), map[string]uint8{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		name := fmt.Sprintf("name-%d", rnd.IntN(700))
		switch rnd.IntN(4) {
		case 0, 1:
			typ := []uint8{unix.DT_REG, unix.DT_DIR}[rnd.IntN(2)]
			x.show(name, typ, nil, 7)
			want[name] = typ
		case 2:
			if e := x.lookup(name); e != nil {
				if rnd.IntN(3) == 0 {
					e.flags |= whFile // kept, to know about the whiteout
				}
				x.hide(e)
			}
			delete(want, name)
		case 3:
			e := x.lookup(name)
			if typ, ok := want[name]; ok != (e != nil) || ok && e.typ != typ {
				t.Fatalf("%s: entry %v, want %v %v", name, e, typ, ok)
			}
		}
	}
	subdirs := 0
	for _, typ := range want {
		if typ == unix.DT_DIR {
			subdirs++
		}
	}
	if x.visible != len(want) || x.subdirs != subdirs {
		t.Errorf("%d names and %d directories, want %d and %d", x.visible, x.subdirs, len(want), subdirs)
	}
	names, _ := x.list(0, 1<<30)
	if len(names) != len(want) {
		t.Errorf("%d names listed, want %d", len(names), len(want))
	}
	if len(x.entries) > 1400 {
		t.Errorf("%d positions for at most 700 names", len(x.entries))
	}
}

// What stays is listed once, whatever comes and goes meanwhile, and the listing ends.
func TestIndexListingDuringChanges(t *testing.T) {
	x := newIndex(0)
	for i := range 300 {
		x.show(fmt.Sprintf("stays-%d", i), unix.DT_REG, nil, 1)
	}
	seen := map[string]int{}
	churn := 0
	for offset, rounds := uint64(0), 0; ; rounds++ {
		if rounds > 1000 {
			t.Fatal("the listing does not end")
		}
		names, next := x.list(offset, 7)
		for _, name := range names {
			seen[name]++
		}
		if len(names) == 0 {
			break
		}
		offset = next
		for range 20 {
			x.show(fmt.Sprintf("comes-%d", churn), unix.DT_REG, nil, 1)
			if e := x.lookup(fmt.Sprintf("comes-%d", churn-5)); e != nil {
				x.hide(e)
			}
			churn++
		}
	}
	for i := range 300 {
		if name := fmt.Sprintf("stays-%d", i); seen[name] != 1 {
			t.Errorf("%s is listed %d times", name, seen[name])
		}
	}
}

func TestIndexRenameKeepsPosition(t *testing.T) {
	x := newIndex(0)
	for i := range 10 {
		x.show(fmt.Sprint(i), unix.DT_REG, nil, 1)
	}
	before := x.slots[x.probe("4")]
	x.hide(x.lookup("4"))
	x.show("four", unix.DT_REG, nil, 1)
	if after := x.slots[x.probe("four")]; after != before {
		t.Errorf("position %d became %d", before, after)
	}
}
