package unionfs

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// The total is that of the names that all indexes in use show.
func TestIndexedNames(t *testing.T) {
	var total atomic.Int64
	rnd := rand.New(rand.NewPCG(3, 4))
	var all []*index
	for i := range 5 {
		x := newIndex(0)
		for k := range i {
			x.show(fmt.Sprint("before", k), unix.DT_REG, nil, 1)
		}
		all = append(all, x.countIn(&total))
	}
	check := func() {
		t.Helper()
		want := 0
		for _, x := range all {
			names, _ := x.list(0, 1<<30)
			want += len(names)
		}
		if got := total.Load(); got != int64(want) {
			t.Fatalf("%d names, want %d", got, want)
		}
	}
	for step := range 20_000 {
		x, name := all[rnd.IntN(len(all))], fmt.Sprint(rnd.IntN(20))
		if e := x.lookup(name); e != nil {
			if rnd.IntN(3) == 0 {
				e.flags |= whFile
			}
			x.hide(e) // empties the whole index now and then
		} else {
			x.show(name, []uint8{unix.DT_REG, unix.DT_DIR}[rnd.IntN(2)], nil, 1)
		}
		if step%100 == 0 {
			check()
		}
	}
	for len(all) > 0 {
		all[0].leave()
		all[0].leave() // does nothing
		all = all[1:]
		check()
	}
	var none *index
	none.leave()
}
