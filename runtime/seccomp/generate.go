//go:build ignore

// Command generate writes the tables in syscalls/ from golang.org/x/sys/unix, which has them from the kernel's
// headers.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// x32Only are the calls of x32 with numbers of their own (kernel, arch/x86/entry/syscalls/syscall_64.tbl: "This is
// the end of the legacy x32 range"). Those numbers never change. All others are x86-64's.
var x32Only = map[string]int{
	"rt_sigaction": 512, "rt_sigreturn": 513, "ioctl": 514, "readv": 515, "writev": 516, "recvfrom": 517,
	"sendmsg": 518, "recvmsg": 519, "execve": 520, "ptrace": 521, "rt_sigpending": 522, "rt_sigtimedwait": 523,
	"rt_sigqueueinfo": 524, "sigaltstack": 525, "timer_create": 526, "mq_notify": 527, "kexec_load": 528,
	"waitid": 529, "set_robust_list": 530, "get_robust_list": 531, "vmsplice": 532, "move_pages": 533, "preadv": 534,
	"pwritev": 535, "rt_tgsigqueueinfo": 536, "recvmmsg": 537, "sendmmsg": 538, "process_vm_readv": 539,
	"process_vm_writev": 540, "setsockopt": 541, "getsockopt": 542, "io_setup": 543, "io_submit": 544, "execveat": 545,
	"preadv2": 546, "pwritev2": 547,
}

var constant = regexp.MustCompile(`(?m)^\s*SYS_([A-Z0-9_]+)\s*=\s*(\d+)`)

func main() {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		log.Fatal(err)
	}
	dir := strings.TrimSpace(string(out))
	for _, arch := range []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"} {
		b, err := os.ReadFile(filepath.Join(dir, "zsysnum_linux_"+arch+".go"))
		if err != nil {
			log.Fatal(err)
		}
		table := map[string]int{}
		for _, m := range constant.FindAllStringSubmatch(string(b), -1) {
			n, _ := strconv.Atoi(m[2])
			table[strings.ToLower(m[1])] = n
		}
		if arch == "arm" {
			// The private calls of 32-bit ARM (kernel, arch/arm/include/uapi/asm/unistd.h).
			for i, name := range []string{"breakpoint", "cacheflush", "usr26", "usr32", "set_tls"} {
				table[name] = 0x0f0000 + 1 + i
			}
		}
		write(arch, table)
		if arch == "amd64" {
			for name, n := range x32Only {
				if _, ok := table[name]; !ok {
					log.Fatalf("x32: %s is no call of x86-64", name)
				}
				table[name] = n
			}
			write("x32", table)
		}
	}
}

func write(arch string, table map[string]int) {
	var lines []string
	for name, n := range table {
		lines = append(lines, fmt.Sprintf("%s %d\n", name, n))
	}
	slices.Sort(lines)
	if err := os.WriteFile(filepath.Join("syscalls", arch), []byte(strings.Join(lines, "")), 0o644); err != nil {
		log.Fatal(err)
	}
}
