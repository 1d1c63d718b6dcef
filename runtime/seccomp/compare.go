package seccomp

import (
	"encoding/binary"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// bigEndian says in which order the halves of an argument lie.
var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// load loads the high or the low half of an argument: BPF has 32 bits, arguments have 64.
func load(index uint, high bool) bpf.Instruction {
	off := uint32(offArgs + 8*index)
	if high != bigEndian {
		off += 4
	}
	return bpf.LoadAbsolute{Off: off, Size: 4}
}

// compare writes one condition. It goes on with what follows where it holds, and to no where it does not.
func (c *compiler) compare(a specs.LinuxSeccompArg, no label) {
	yes := c.newLabel()
	high, low := uint32(a.Value>>32), uint32(a.Value)
	switch a.Op {
	case specs.OpEqualTo:
		c.equal(a.Index, high, low, yes, no)
	case specs.OpNotEqual:
		c.equal(a.Index, high, low, no, yes)
	case specs.OpGreaterThan:
		c.ordered(a.Index, bpf.JumpGreaterThan, high, low, yes, no)
	case specs.OpGreaterEqual:
		c.ordered(a.Index, bpf.JumpGreaterOrEqual, high, low, yes, no)
	case specs.OpLessThan:
		c.ordered(a.Index, bpf.JumpGreaterOrEqual, high, low, no, yes)
	case specs.OpLessEqual:
		c.ordered(a.Index, bpf.JumpGreaterThan, high, low, no, yes)
	case specs.OpMaskedEqual:
		next := c.newLabel()
		c.add(load(a.Index, true), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: high})
		c.jump(bpf.JumpEqual, uint32(a.ValueTwo>>32), next, no)
		c.place(next)
		c.add(load(a.Index, false), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: low})
		c.jump(bpf.JumpEqual, uint32(a.ValueTwo), yes, no)
	}
	c.place(yes)
}

func (c *compiler) equal(index uint, high, low uint32, same, differ label) {
	next := c.newLabel()
	c.add(load(index, true))
	c.jump(bpf.JumpEqual, high, next, differ)
	c.place(next)
	c.add(load(index, false))
	c.jump(bpf.JumpEqual, low, same, differ)
}

// ordered compares the high halves; the low ones only where those are equal. test is of the low halves.
func (c *compiler) ordered(index uint, test bpf.JumpTest, high, low uint32, yes, no label) {
	notAbove, equal := c.newLabel(), c.newLabel()
	c.add(load(index, true))
	c.jump(bpf.JumpGreaterThan, high, yes, notAbove)
	c.place(notAbove)
	c.jump(bpf.JumpEqual, high, equal, no)
	c.place(equal)
	c.add(load(index, false))
	c.jump(test, low, yes, no)
}
