package seccomp

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A label is a place in a program. Jumps go forward only, as BPF wants it.
type label int

// An item is one part of a program whose size is not known yet: an instruction, a branch, or the place of a label.
type item struct {
	insn   bpf.Instruction // plain, if not nil
	branch bool
	cond   bpf.JumpTest
	val    uint32
	t, f   label // of a branch
	mark   label // of a place; 0 for none
	longT  bool  // the distance does not fit in the 8 bits of a conditional jump: it goes through a jump
	longF  bool
}

func (it *item) size() int {
	switch {
	case it.branch:
		n := 1
		if it.longT {
			n++
		}
		if it.longF {
			n++
		}
		return n
	case it.insn != nil:
		return 1
	}
	return 0
}

// An assembler collects a program with labels and lays it out.
type assembler struct {
	items []item
	last  label
}

func (a *assembler) newLabel() label { a.last++; return a.last }

func (a *assembler) add(insns ...bpf.Instruction) {
	for _, i := range insns {
		a.items = append(a.items, item{insn: i})
	}
}

func (a *assembler) place(l label) { a.items = append(a.items, item{mark: l}) }

// jump goes to t if A compares to val as cond says, else to f.
func (a *assembler) jump(cond bpf.JumpTest, val uint32, t, f label) {
	a.items = append(a.items, item{branch: true, cond: cond, val: val, t: t, f: f})
}

// maxProgram is the kernel's limit on a filter (BPF_MAXINSNS).
const maxProgram = 4096

// assemble lays the program out: every branch is short at first, and made long until all distances fit. A branch
// that was made long stays so, and so this ends.
func (a *assembler) assemble() ([]unix.SockFilter, error) {
	at := make([]int, len(a.items)) // position of each item
	places := make([]int, a.last+1)
	for changed := true; changed; {
		changed = false
		pos := 0
		for i := range a.items {
			at[i] = pos
			if m := a.items[i].mark; m != 0 {
				places[m] = pos
			}
			pos += a.items[i].size()
		}
		for i := range a.items {
			it := &a.items[i]
			if !it.branch {
				continue
			}
			if !it.longT && places[it.t]-at[i]-1 > 255 {
				it.longT, changed = true, true
			}
			if !it.longF && places[it.f]-at[i]-1 > 255 {
				it.longF, changed = true, true
			}
		}
	}
	prog := make([]bpf.Instruction, 0, len(a.items))
	for i := range a.items {
		it := &a.items[i]
		switch {
		case it.branch:
			prog = it.lay(prog, at[i], places)
		case it.insn != nil:
			prog = append(prog, it.insn)
		}
	}
	if len(prog) > maxProgram {
		return nil, fmt.Errorf("the filter has %d instructions, the kernel takes %d", len(prog), maxProgram)
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// lay adds the instructions of a branch at position pos.
func (it *item) lay(prog []bpf.Instruction, pos int, places []int) []bpf.Instruction {
	own := 0 // jumps stand after the branch
	var jumps [2]bpf.Jump
	skip := func(l label, long bool) uint8 {
		if !long {
			return uint8(places[l] - pos - 1)
		}
		jumps[own] = bpf.Jump{Skip: uint32(places[l] - pos - 1 - own - 1)}
		own++
		return uint8(own - 1)
	}
	b := bpf.JumpIf{Cond: it.cond, Val: it.val}
	b.SkipTrue = skip(it.t, it.longT)
	b.SkipFalse = skip(it.f, it.longF)
	prog = append(prog, b)
	for _, j := range jumps[:own] {
		prog = append(prog, j)
	}
	return prog
}
