// Package leak runs the tests of a package and looks at what they leave behind: mounts, processes, files, descriptors
// and goroutines. A package whose tests mount something has
//
//	func TestMain(m *testing.M) { os.Exit(leak.Run(m.Run)) }
//
// TMPDIR is a directory of its own meanwhile, by which its mounts, files and processes are told from those of others.
package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// patience is how long what ends by itself may take to: a server that writes back, say.
const patience = 2 * time.Minute

// kept begins the names of files that are removed when the test process has ended.
const kept = "uniontest-bin-"

// Run runs tests and returns their exit status, or 1 where they leave something behind, which it says.
func Run(tests func() int) int { return run(tests, patience) }

func run(tests func() int, patience time.Duration) int {
	outer, had := os.LookupEnv("TMPDIR")
	dir, err := os.MkdirTemp("", "t")
	if err == nil {
		err = os.Chmod(dir, os.ModeSticky|0o777) // some tests are run as somebody else
	}
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		return 1
	}
	goroutines, descriptors := count(stacks()), open()
	code := tests()
	var left []string
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left = append(mounts(dir), files(dir)...)
		left = append(left, processes(dir)...)
		left = append(left, newer(descriptors, open())...)
		left = append(left, newer(goroutines, count(stacks()))...)
		if len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, l := range left {
		fmt.Fprintln(os.Stderr, "left behind:", l)
	}
	if code == 0 && len(left) > 0 {
		code = 1
	}
	if len(mounts(dir)) == 0 { // else it would remove what is mounted
		_ = os.RemoveAll(dir) // as much as may be
	}
	if had {
		_ = os.Setenv("TMPDIR", outer)
	} else {
		_ = os.Unsetenv("TMPDIR")
	}
	return code
}

// mounts are the mount points below dir.
func mounts(dir string) (left []string) {
	b, _ := os.ReadFile("/proc/self/mountinfo") // there is always one
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			left = append(left, "mount on "+f[4])
		}
	}
	return left
}

func files(dir string) (left []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), kept) {
			left = append(left, "file "+filepath.Join(dir, e.Name()))
		}
	}
	return left
}

// processes are those with the TMPDIR, but for this one and a shell that removes what is kept.
func processes(dir string) (left []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is valid
	for _, p := range procs {
		env, err := os.ReadFile(p + "/environ")
		if err != nil || !strings.Contains("\x00"+string(env), "\x00TMPDIR="+dir+"\x00") {
			continue
		}
		cmdline, err := os.ReadFile(p + "/cmdline")
		argv := strings.ReplaceAll(strings.TrimSuffix(string(cmdline), "\x00"), "\x00", " ")
		if err == nil && argv != "" && filepath.Base(p) != fmt.Sprint(os.Getpid()) && !strings.Contains(argv, dir+"/"+kept) {
			left = append(left, fmt.Sprintf("process %s: %.200s", filepath.Base(p), argv))
		}
	}
	return left
}

// open counts the descriptors of this process by what they are of, but for pipes and the runtime's own: a pipe to a
// shell that removes what is kept stays open on purpose.
func open() map[string]int {
	n := map[string]int{}
	fds, _ := filepath.Glob("/proc/self/fd/*") // the pattern is valid
	for _, fd := range fds {
		to, err := os.Readlink(fd)
		if err == nil && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:[event") {
			n["descriptor of "+to]++
		}
	}
	return n
}

// stacks are those of all goroutines.
func stacks() []string {
	for buf := make([]byte, 1<<20); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return strings.Split(string(buf[:n]), "\n\n")
		}
	}
}

// count counts goroutines by where they were started, but for those of the runtime and of packages that keep one for ever.
func count(stacks []string) map[string]int {
	n := map[string]int{}
	for _, s := range stacks[1:] { // the first is our own
		i := strings.LastIndex(s, "created by ")
		if i < 0 || strings.Contains(s, "os/signal.") {
			continue
		}
		where, _, _ := strings.Cut(s[i:], " in goroutine")
		n["goroutine "+strings.TrimSpace(where)]++
	}
	return n
}

// newer says what there is more of than before.
func newer(before, now map[string]int) (left []string) {
	for what, n := range now {
		if n > before[what] {
			left = append(left, fmt.Sprintf("%d %s, %d before", n, what, before[what]))
		}
	}
	return left
}
