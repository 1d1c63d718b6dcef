package seccomp

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Compile makes the program for the profile, and the flags for seccomp(2). It is to be loaded into a single thread.
// Neither the profile nor the program is changed afterwards: the last one is kept, for the profile that is asked for
// again.
//
// Errors: what is unknown, or refused, is named; a program above the kernel's limit.
func Compile(p *specs.LinuxSeccomp) (prog []unix.SockFilter, flags uint, err error) {
	last.mu.Lock()
	defer last.mu.Unlock()
	if last.profile != nil && reflect.DeepEqual(p, last.profile) {
		return last.prog, last.flags, nil
	}
	prog, flags, err = compile(p)
	if err != nil {
		return nil, 0, fmt.Errorf("seccomp profile: %w", err)
	}
	last.profile, last.prog, last.flags = p, prog, flags
	return prog, flags, nil
}

// last is the program that was made last. The lock is held while one is made: who asks for it meanwhile waits.
var last struct {
	mu      sync.Mutex
	profile *specs.LinuxSeccomp
	prog    []unix.SockFilter
	flags   uint
}

func compile(p *specs.LinuxSeccomp) ([]unix.SockFilter, uint, error) {
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return nil, 0, fmt.Errorf("a listener is not supported")
	}
	flags, err := parseFlags(p.Flags)
	if err != nil {
		return nil, 0, err
	}
	archs, err := arches(p.Architectures)
	if err != nil {
		return nil, 0, err
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, 0, fmt.Errorf("default action: %w", err)
	}
	c := &compiler{def: def}
	c.items = make([]item, 0, maxProgram) // what is not needed is never touched
	if err := c.parse(p.Syscalls); err != nil {
		return nil, 0, err
	}
	c.program(archs)
	prog, err := c.assemble()
	return prog, flags, err
}

func parseFlags(names []specs.LinuxSeccompFlag) (uint, error) {
	var flags uint
	for _, name := range names {
		switch name {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The thread that loads the filter is the only one that the next execve(2) leaves.
		default:
			return 0, fmt.Errorf("flag %q is not supported", name)
		}
	}
	return flags, nil
}

// action is the return value of a filter for it.
func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if *errnoRet > unix.SECCOMP_RET_DATA {
			return 0, fmt.Errorf("errno %d is above %d", *errnoRet, unix.SECCOMP_RET_DATA)
		}
		data = uint32(*errnoRet)
	}
	switch a {
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return 0, fmt.Errorf("%s is not supported: nobody would answer the notifications", a)
	}
	return 0, fmt.Errorf("unknown action %q", a)
}

// A rule is what a profile says of one or more calls: ret if all conditions of one of the alternatives hold; without
// alternatives, always.
type rule struct {
	names []string
	ret   uint32
	alts  [][]specs.LinuxSeccompArg
}

type compiler struct {
	assembler
	def   uint32
	rules []rule
	named []string // by all rules, also those that come to nothing
}

func (c *compiler) parse(calls []specs.LinuxSyscall) error {
	for _, s := range calls {
		ret, err := action(s.Action, s.ErrnoRet)
		if err == nil {
			err = checkArgs(s.Args)
		}
		if err != nil {
			return fmt.Errorf("rule for %v: %w", s.Names, err)
		}
		c.named = append(c.named, s.Names...)
		if ret == c.def {
			continue // as it would be without the rule (runc does the same)
		}
		c.rules = append(c.rules, rule{names: s.Names, ret: ret, alts: alternatives(s.Args)})
	}
	return nil
}

func checkArgs(args []specs.LinuxSeccompArg) error {
	for _, a := range args {
		if a.Index > 5 {
			return fmt.Errorf("argument %d: a call has arguments 0 to 5", a.Index)
		}
		switch a.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return fmt.Errorf("argument %d: unknown comparison %q", a.Index, a.Op)
		}
	}
	return nil
}

// alternatives splits the conditions: on different arguments, all must hold; if any argument has two, each
// condition stands alone.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	if len(args) == 0 {
		return nil
	}
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			var alts [][]specs.LinuxSeccompArg
			for _, a := range args {
				alts = append(alts, []specs.LinuxSeccompArg{a})
			}
			return alts
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// A span is a range of numbers, up to the next span, with one fate.
type span struct {
	from  uint32
	ret   uint32
	rules []rule // conditions to be tried first
}

// spans covers all numbers of an architecture, in ascending order.
func (c *compiler) spans(a arch) []span {
	numbers := a.numbers()
	all := make([]span, 0, 2*len(numbers))
	byNumber := make(map[uint32]int, len(numbers)) // the index in calls
	calls := make([]span, 0, len(numbers))
	for _, r := range c.rules {
		for _, name := range r.names {
			nr, ok := numbers[name]
			if !ok {
				continue
			}
			at, ok := byNumber[nr]
			if !ok {
				at = len(calls)
				byNumber[nr], calls = at, append(calls, span{from: nr, ret: c.def})
			}
			calls[at].add(r, c.def)
		}
	}
	slices.SortFunc(calls, func(a, b span) int { return cmp.Compare(a.from, b.from) })

	all = append(all, span{from: a.bit, ret: c.def})
	put := func(s span) {
		if last := len(all) - 1; all[last].from == s.from {
			all = all[:last] // no number was its
		}
		if n := len(all); n > 0 && len(s.rules) == 0 && len(all[n-1].rules) == 0 && all[n-1].ret == s.ret {
			return // the same goes on
		}
		all = append(all, s)
	}
	for _, s := range calls {
		put(s)
		put(span{from: s.from + 1, ret: c.def})
	}
	newest := a.bit
	for _, name := range c.named {
		newest = max(newest, numbers[name])
	}
	if denies(c.def) && newest > a.bit {
		put(span{from: newest + 1, ret: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	return all
}

// denies reports whether an action keeps a call from being made, in a way that a program could take for good.
func denies(ret uint32) bool {
	switch ret & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	}
	return true
}

// add puts a rule to a call. One without conditions ends the matter, unless an earlier one has done so.
func (s *span) add(r rule, def uint32) {
	switch {
	case s.ret != def:
	case r.alts == nil:
		s.ret, s.rules = r.ret, nil
	default:
		s.rules = append(s.rules, r)
	}
}

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// program writes the whole filter: by AUDIT_ARCH first.
func (c *compiler) program(archs []arch) {
	c.add(bpf.LoadAbsolute{Off: offArch, Size: 4})
	byAudit := map[uint32][]arch{}
	var order []uint32
	for _, a := range archs {
		if byAudit[a.audit] == nil {
			order = append(order, a.audit)
		}
		byAudit[a.audit] = append(byAudit[a.audit], a)
	}
	for _, audit := range order {
		here, next := c.newLabel(), c.newLabel()
		c.jump(bpf.JumpEqual, audit, here, next)
		c.place(here)
		c.add(bpf.LoadAbsolute{Off: offNr, Size: 4})
		c.section(byAudit[audit])
		c.place(next)
	}
	c.add(bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
}

// section writes the decision for the calls of one AUDIT_ARCH; the number is loaded. On x86-64, x32's calls are
// those with the bit; where the profile does not have them, they are another architecture's and kill.
func (c *compiler) section(archs []arch) {
	spans := c.spans(archs[0])
	if archs[0].audit == unix.AUDIT_ARCH_X86_64 {
		x32 := []span{{from: x32Bit, ret: unix.SECCOMP_RET_KILL_PROCESS}}
		if len(archs) > 1 {
			x32 = c.spans(archs[1])
		}
		spans = append(spans, x32...)
		// -1 is no call: a tracer skips one with it (libseccomp does the same).
		spans = append(spans, span{from: 1<<32 - 1, ret: c.def})
	}
	c.tree(spans)
}

// tree writes a binary search.
func (c *compiler) tree(spans []span) {
	if len(spans) == 1 {
		c.decide(spans[0])
		return
	}
	mid := len(spans) / 2
	left, right := c.newLabel(), c.newLabel()
	c.jump(bpf.JumpGreaterOrEqual, spans[mid].from, right, left)
	c.place(left)
	c.tree(spans[:mid])
	c.place(right)
	c.tree(spans[mid:])
}

// decide writes the rules of one call, and what holds when none of them does.
func (c *compiler) decide(s span) {
	for _, r := range s.rules {
		for _, alt := range r.alts {
			no := c.newLabel()
			for _, arg := range alt {
				c.compare(arg, no)
			}
			c.add(bpf.RetConstant{Val: r.ret})
			c.place(no)
		}
	}
	c.add(bpf.RetConstant{Val: s.ret})
}
