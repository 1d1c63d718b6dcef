package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A call is struct seccomp_data, without the instruction pointer.
type call struct {
	nr, audit uint32
	args      [6]uint64
}

// vm runs a program as the kernel would. The machine of x/net loads big-endian, as packets are; so the words of the
// data are written so, each in its native place.
func vm(t testing.TB, prog []unix.SockFilter) func(call) uint32 {
	t.Helper()
	if len(prog) > maxProgram {
		t.Fatalf("%d instructions", len(prog))
	}
	raw := make([]bpf.RawInstruction, len(prog))
	for i, p := range prog {
		raw[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("a program that cannot be disassembled")
	}
	m, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return func(c call) uint32 {
		data := make([]byte, 64)
		binary.BigEndian.PutUint32(data[offNr:], c.nr)
		binary.BigEndian.PutUint32(data[offArch:], c.audit)
		for i, a := range c.args {
			lo, hi := offArgs+8*i, offArgs+8*i+4
			if bigEndian {
				lo, hi = hi, lo
			}
			binary.BigEndian.PutUint32(data[lo:], uint32(a))
			binary.BigEndian.PutUint32(data[hi:], uint32(a>>32))
		}
		ret, err := m.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(ret)
	}
}

func mustCompile(t testing.TB, p *specs.LinuxSeccomp) func(call) uint32 {
	t.Helper()
	prog, _, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return vm(t, prog)
}

func onAMD64(t *testing.T) {
	t.Helper()
	if goruntime.GOARCH != "amd64" {
		t.Skip("the numbers in this test are those of x86-64")
	}
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	killed = unix.SECCOMP_RET_KILL_PROCESS
)

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func native(nr uint32, args ...uint64) call {
	c := call{nr: nr, audit: families[goruntime.GOARCH][0].audit}
	copy(c.args[:], args)
	return c
}

func TestDefaultProfile(t *testing.T) {
	onAMD64(t)
	p, err := Profile("", &specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	prog, _, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog))
	ret := vm(t, prog)
	i386 := func(nr uint32, args ...uint64) call {
		c := native(nr, args...)
		c.audit = unix.AUDIT_ARCH_I386
		return c
	}
	for _, tt := range []struct {
		name string
		c    call
		want uint32
	}{
		{"read", native(unix.SYS_READ), allow},
		{"execve", native(unix.SYS_EXECVE), allow},
		{"mount", native(unix.SYS_MOUNT), errno(unix.EPERM)},
		{"keyctl", native(unix.SYS_KEYCTL), errno(unix.EPERM)},
		{"clone of a thread", native(unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_THREAD), allow},
		{"clone of a user namespace", native(unix.SYS_CLONE, unix.CLONE_NEWUSER), errno(unix.EPERM)},
		{"clone3", native(unix.SYS_CLONE3), errno(unix.ENOSYS)},
		{"personality linux", native(unix.SYS_PERSONALITY, 0), allow},
		{"personality other", native(unix.SYS_PERSONALITY, 1), errno(unix.EPERM)},
		{"personality with high bits", native(unix.SYS_PERSONALITY, 1<<32), errno(unix.EPERM)},
		{"socket inet", native(unix.SYS_SOCKET, unix.AF_INET), allow},
		{"socket vsock", native(unix.SYS_SOCKET, unix.AF_VSOCK), errno(unix.EPERM)},
		{"a call of the future", native(2000), errno(unix.ENOSYS)},
		{"minus one", native(1<<32 - 1), errno(unix.EPERM)},
		{"x86 read", i386(3), allow},
		{"x86 mount", i386(21), errno(unix.EPERM)},
		{"x32 read", native(x32Bit), allow},
		{"x32 execve", native(x32Bit | 520), allow},
		{"x32 mount", native(x32Bit | unix.SYS_MOUNT), errno(unix.EPERM)},
		{"an architecture of others", call{nr: 0, audit: unix.AUDIT_ARCH_S390X}, killed},
	} {
		if got := ret(tt.c); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

// TestNeighboursAreOneRange: a program is as long as the fates of its numbers are many, not the numbers. The kernel takes as long for each
// start of a container.
func TestNeighboursAreOneRange(t *testing.T) {
	onAMD64(t)
	length := func(names ...string) int {
		prog, _, err := Compile(&specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(prog)
	}
	if one, four := length("close"), length("read", "write", "open", "close"); four >= one {
		t.Errorf("%d instructions for the calls 0 to 3, %d for call 3 alone", four, one)
	}
}

func TestCapabilitySwitchesRulesOn(t *testing.T) {
	onAMD64(t)
	s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}}}}
	p, err := Profile("builtin", s)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustCompile(t, p)(native(unix.SYS_MOUNT)); got != allow {
		t.Errorf("mount with CAP_SYS_ADMIN: %#x", got)
	}
}

func TestX32IsAnotherArchitectureWhereItIsNotListed(t *testing.T) {
	onAMD64(t)
	ret := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	if got := ret(native(x32Bit | 1)); got != killed {
		t.Errorf("x32: %#x, want killed", got)
	}
	if got := ret(native(1<<32 - 1)); got != allow {
		t.Errorf("-1: %#x, want the default action", got)
	}
	if got := ret(call{audit: unix.AUDIT_ARCH_I386}); got != killed {
		t.Errorf("x86: %#x, want killed", got)
	}
}

func TestComparisons(t *testing.T) {
	values := []uint64{0, 1, 5, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 5, 1<<63 + 5, 1<<64 - 1}
	ops := map[specs.LinuxSeccompOperator]func(a, v, two uint64) bool{
		specs.OpEqualTo: func(a, v, _ uint64) bool { return a == v }, specs.OpNotEqual: func(a, v, _ uint64) bool { return a != v },
		specs.OpGreaterThan: func(a, v, _ uint64) bool { return a > v }, specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpLessThan: func(a, v, _ uint64) bool { return a < v }, specs.OpLessEqual: func(a, v, _ uint64) bool { return a <= v },
		specs.OpMaskedEqual: func(a, v, two uint64) bool { return a&v == two },
	}
	for op, holds := range ops {
		for _, v := range values {
			two := v & (1<<63 + 1<<32 + 5)
			for index := range uint(6) {
				ret := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{
					Names: []string{"read"}, Action: specs.ActKill,
					Args: []specs.LinuxSeccompArg{{Index: index, Value: v, ValueTwo: two, Op: op}},
				}}})
				for _, a := range values {
					c := native(unix.SYS_READ)
					c.args[index] = a
					if got := ret(c) != allow; got != holds(a, v, two) {
						t.Fatalf("argument %d: %#x %s %#x (%#x): %v", index, a, op, v, two, got)
					}
				}
			}
		}
	}
}

func TestSeveralRulesForOneCall(t *testing.T) {
	eq := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: specs.OpEqualTo}
	}
	one := uint(1)
	rule := func(a specs.LinuxSeccompAction, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"read", "no_such_call_anywhere"}, Action: a, Args: args, ErrnoRet: &one}
	}
	tests := []struct {
		name  string
		rules []specs.LinuxSyscall
		args  []uint64
		want  uint32
	}{
		{"the first that applies", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1)), rule(specs.ActTrap, eq(1, 2))}, []uint64{1, 2}, unix.SECCOMP_RET_LOG},
		{"the second, when the first does not", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1)), rule(specs.ActTrap, eq(1, 2))}, []uint64{0, 2}, unix.SECCOMP_RET_TRAP},
		{"none", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1)), rule(specs.ActTrap, eq(1, 2))}, []uint64{0, 0}, allow},
		{"all conditions must hold", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1), eq(1, 2))}, []uint64{1, 3}, allow},
		{"all conditions hold", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1), eq(1, 2))}, []uint64{1, 2}, unix.SECCOMP_RET_LOG},
		{"alternatives on one argument", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1), eq(0, 2))}, []uint64{2}, unix.SECCOMP_RET_LOG},
		{"without conditions wins", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1)), rule(specs.ActTrap)}, []uint64{1}, unix.SECCOMP_RET_TRAP},
		{"without conditions stays", []specs.LinuxSyscall{rule(specs.ActTrap), rule(specs.ActLog, eq(0, 1)), rule(specs.ActKill)}, []uint64{1}, unix.SECCOMP_RET_TRAP},
		{"errno", []specs.LinuxSyscall{rule(specs.ActErrno)}, nil, errno(1)},
		{"trace", []specs.LinuxSyscall{rule(specs.ActTrace)}, nil, unix.SECCOMP_RET_TRACE | 1},
		{"kill the process", []specs.LinuxSyscall{rule(specs.ActKillProcess)}, nil, killed},
		{"the default action changes nothing", []specs.LinuxSyscall{rule(specs.ActAllow), rule(specs.ActKill, eq(0, 1))}, []uint64{1}, unix.SECCOMP_RET_KILL_THREAD},
	}
	for _, tt := range tests {
		ret := mustCompile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: tt.rules})
		if got := ret(native(unix.SYS_READ, tt.args...)); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	big := uint(1 << 16)
	read := []string{"read"}
	for says, p := range map[string]*specs.LinuxSeccomp{
		"SCMP_ACT_NOTIFY":        {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: read, Action: specs.ActNotify}}},
		`unknown action "ALLOW"`: {DefaultAction: "ALLOW"},
		"default action":         {},
		"unknown architecture":   {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_Z80"}},
		"errno 65536":            {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"unknown comparison":     {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: read, Action: specs.ActKill, Args: []specs.LinuxSeccompArg{{Op: "=="}}}}},
		"argument 6":             {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: read, Action: specs.ActKill, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		`flag "X" is not`:        {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"listener":               {DefaultAction: specs.ActAllow, ListenerPath: "/run/x"},
		"the kernel takes 4096":  tooLong(),
	} {
		if _, _, err := Compile(p); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// tooLong has more conditions than fit.
func tooLong() *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	for v := range uint64(1200) {
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActKill, Args: []specs.LinuxSeccompArg{{Value: v, Op: specs.OpEqualTo}}})
	}
	return p
}

// meaning is what a profile says of a call, without any of the compiler's cleverness.
func meaning(p *specs.LinuxSeccomp, a arch, c call) uint32 {
	def, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	numbers := a.numbers()
	newest, result, decided := a.bit, def, false
	for _, unconditional := range []bool{true, false} {
		for _, s := range p.Syscalls {
			ret, _ := action(s.Action, s.ErrnoRet)
			for _, name := range s.Names {
				newest = max(newest, numbers[name])
				nr, ok := numbers[name]
				applies := ok && nr == c.nr && ret != def && (len(s.Args) == 0) == unconditional
				if !decided && applies && argsHold(s.Args, c) {
					result, decided = ret, true
				}
			}
		}
	}
	if !decided && denies(def) && newest > a.bit && c.nr > newest {
		return errno(unix.ENOSYS)
	}
	return result
}

func argsHold(args []specs.LinuxSeccompArg, c call) bool {
	holds := func(a specs.LinuxSeccompArg) bool {
		v := c.args[a.Index]
		switch a.Op {
		case specs.OpEqualTo:
			return v == a.Value
		case specs.OpNotEqual:
			return v != a.Value
		case specs.OpGreaterThan:
			return v > a.Value
		case specs.OpGreaterEqual:
			return v >= a.Value
		case specs.OpLessThan:
			return v < a.Value
		case specs.OpLessEqual:
			return v <= a.Value
		}
		return v&a.Value == a.ValueTwo
	}
	var count [6]int
	any, all, twice := false, true, false
	for _, a := range args {
		count[a.Index]++
		twice = twice || count[a.Index] > 1
		any = any || holds(a)
		all = all && holds(a)
	}
	return all || twice && any
}

// Random profiles, large enough that jumps are long, agree with what they mean on every call of every architecture.
func TestRandomProfiles(t *testing.T) {
	family := families[goruntime.GOARCH]
	var names []string
	for name := range family[0].numbers() {
		names = append(names, name)
	}
	slices.Sort(names)
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActTrap, specs.ActLog, specs.ActKillProcess}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	values := []uint64{0, 1, 2, 1 << 32, 1<<32 + 1, 1<<64 - 1}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(len(actions))]}
		for _, a := range family {
			p.Architectures = append(p.Architectures, a.name)
		}
		for range r.IntN(120) {
			s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
			for range 1 + r.IntN(5) {
				s.Names = append(s.Names, names[r.IntN(len(names))])
			}
			for range r.IntN(3) * r.IntN(2) {
				v := values[r.IntN(len(values))]
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(3)), Value: v, ValueTwo: v & values[r.IntN(len(values))], Op: ops[r.IntN(len(ops))]})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		ret := mustCompile(t, p)
		for _, a := range family {
			for i := range uint32(600) {
				c := call{nr: a.bit | i, audit: a.audit}
				for j := range c.args {
					c.args[j] = values[r.IntN(len(values))]
				}
				if got, want := ret(c), meaning(p, a, c); got != want {
					t.Fatalf("seed %d, %s call %d %v: %#x, want %#x", seed, a.name, i, c.args, got, want)
				}
			}
		}
	}
}

func TestProfileNames(t *testing.T) {
	s := &specs.Spec{}
	if p, err := Profile(Unconfined, s); p != nil || err != nil {
		t.Errorf("unconfined: %v, %v", p, err)
	}
	if _, err := Profile("/no/such/profile.json", s); err == nil || !strings.Contains(err.Error(), "/no/such/profile.json") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Every call of Docker's default profile is known to one of the tables.
func TestNamesOfDefaultProfileAreKnown(t *testing.T) {
	p, err := Profile("", &specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := tables.ReadDir("syscalls")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, e := range entries {
		for name := range (arch{table: e.Name()}).numbers() {
			known[name] = true
		}
	}
	var unknown []string
	for _, s := range p.Syscalls {
		for _, name := range s.Names {
			if !known[name] {
				unknown = append(unknown, name)
			}
		}
	}
	if fmt.Sprint(unknown) != fmt.Sprint([]string(nil)) {
		t.Errorf("unknown: %v", unknown)
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	p, err := Profile("", &specs.Spec{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
