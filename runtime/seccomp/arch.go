package seccomp

import (
	"embed"
	"fmt"
	goruntime "runtime"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

//go:embed syscalls
var tables embed.FS

// An arch is one way to make system calls.
type arch struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_*, as in struct seccomp_data
	table string // in syscalls/
	bit   uint32 // set in all its numbers
}

// x32Bit is __X32_SYSCALL_BIT: x32 is told from x86-64 by the number alone.
const x32Bit = 0x40000000

// families has, for each GOARCH, the architecture that this binary is of, and those whose programs its kernel runs
// as well.
var families = map[string][]arch{
	"amd64":    {{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, "amd64", 0}, {specs.ArchX86, unix.AUDIT_ARCH_I386, "386", 0}, {specs.ArchX32, unix.AUDIT_ARCH_X86_64, "x32", x32Bit}},
	"386":      {{specs.ArchX86, unix.AUDIT_ARCH_I386, "386", 0}},
	"arm64":    {{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, "arm64", 0}, {specs.ArchARM, unix.AUDIT_ARCH_ARM, "arm", 0}},
	"arm":      {{specs.ArchARM, unix.AUDIT_ARCH_ARM, "arm", 0}},
	"loong64":  {{specs.ArchLOONGARCH64, unix.AUDIT_ARCH_LOONGARCH64, "loong64", 0}},
	"mips":     {{specs.ArchMIPS, unix.AUDIT_ARCH_MIPS, "mips", 0}},
	"mipsle":   {{specs.ArchMIPSEL, unix.AUDIT_ARCH_MIPSEL, "mipsle", 0}},
	"mips64":   {{specs.ArchMIPS64, unix.AUDIT_ARCH_MIPS64, "mips64", 0}, {specs.ArchMIPS, unix.AUDIT_ARCH_MIPS, "mips", 0}},
	"mips64le": {{specs.ArchMIPSEL64, unix.AUDIT_ARCH_MIPSEL64, "mips64le", 0}, {specs.ArchMIPSEL, unix.AUDIT_ARCH_MIPSEL, "mipsle", 0}},
	"ppc64":    {{specs.ArchPPC64, unix.AUDIT_ARCH_PPC64, "ppc64", 0}},
	"ppc64le":  {{specs.ArchPPC64LE, unix.AUDIT_ARCH_PPC64LE, "ppc64le", 0}},
	"riscv64":  {{specs.ArchRISCV64, unix.AUDIT_ARCH_RISCV64, "riscv64", 0}},
	"s390x":    {{specs.ArchS390X, unix.AUDIT_ARCH_S390X, "s390x", 0}},
}

// knownArches are the names of the specification.
var knownArches = map[specs.Arch]bool{
	specs.ArchX86: true, specs.ArchX86_64: true, specs.ArchX32: true, specs.ArchARM: true, specs.ArchAARCH64: true,
	specs.ArchLOONGARCH64: true, specs.ArchM68K: true, specs.ArchMIPS: true, specs.ArchMIPS64: true,
	specs.ArchMIPS64N32: true, specs.ArchMIPSEL: true, specs.ArchMIPSEL64: true, specs.ArchMIPSEL64N32: true,
	specs.ArchPPC: true, specs.ArchPPC64: true, specs.ArchPPC64LE: true, specs.ArchS390: true, specs.ArchS390X: true,
	specs.ArchSH: true, specs.ArchSHEB: true, specs.ArchPARISC: true, specs.ArchPARISC64: true, specs.ArchRISCV64: true,
}

// arches picks those of the profile that can occur here; the native one always does.
func arches(profile []specs.Arch) ([]arch, error) {
	family := families[goruntime.GOARCH]
	if len(family) == 0 {
		return nil, fmt.Errorf("no table of system calls for %s", goruntime.GOARCH)
	}
	wanted := map[specs.Arch]bool{family[0].name: true}
	for _, a := range profile {
		if !knownArches[a] {
			return nil, fmt.Errorf("unknown architecture %q", a)
		}
		wanted[a] = true
	}
	var picked []arch
	for _, a := range family {
		if wanted[a.name] {
			picked = append(picked, a)
		}
	}
	return picked, nil
}

var parsed sync.Map // table -> map[string]uint32

// numbers maps the names of system calls to the numbers that programs use.
func (a arch) numbers() map[string]uint32 {
	if m, ok := parsed.Load(a.table); ok {
		return m.(map[string]uint32)
	}
	b, err := tables.ReadFile("syscalls/" + a.table)
	if err != nil {
		panic("seccomp: " + err.Error()) // compiled in
	}
	m := make(map[string]uint32, 512)
	for line := range strings.Lines(string(b)) {
		name, number, _ := strings.Cut(line, " ")
		n := uint32(0)
		for _, c := range strings.TrimSpace(number) {
			n = n*10 + uint32(c-'0')
		}
		m[name] = n | a.bit
	}
	parsed.Store(a.table, m)
	return m
}
