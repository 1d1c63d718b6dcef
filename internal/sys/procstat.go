package sys

import (
	"os"
	"strconv"
	"strings"
)

// ProcStat are the fields of /proc/PID/stat (proc_pid_stat(5)) from the third on, the state: those behind the name, which may
// hold anything. A process that is not there has none.
func ProcStat(pid int) []string { return procStat(strconv.Itoa(pid)) }

// OwnStat is ProcStat of this process, whatever its number is in the PID namespace of /proc.
func OwnStat() []string { return procStat("self") }

func procStat(process string) []string {
	b, err := os.ReadFile("/proc/" + process + "/stat")
	if err != nil {
		return nil
	}
	i := strings.LastIndexByte(string(b), ')')
	if i < 0 {
		return nil
	}
	return strings.Fields(string(b[i+1:]))
}

// Exiting tells of the fields whether the process is a zombie, or the kernel takes it apart (do_exit in kernel/exit.c).
func Exiting(stat []string) bool {
	const exiting = 0x4 // PF_EXITING of linux/sched.h
	if len(stat) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(stat[6], 10, 64)
	return stat[0] == "Z" || stat[0] == "X" || err == nil && flags&exiting != 0
}
