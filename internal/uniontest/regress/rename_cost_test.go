package regress

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// layerCalls are the system calls by which a server looks at layers and changes them.
const layerCalls = "trace=openat,openat2,mkdirat,renameat2,unlinkat,linkat,symlinkat,mknodat,fchmodat,fchmod," +
	"fchownat,fchown,utimensat,newfstatat,fstat,statx,readlinkat,getdents64,copy_file_range,ftruncate,fallocate," +
	"setxattr,lsetxattr,fsetxattr,getxattr,lgetxattr,fgetxattr,listxattr,llistxattr,flistxattr,removexattr,lremovexattr,fremovexattr"

var callName = regexp.MustCompile(`^(?:\d+ +)?([a-z0-9_]+)\(`)

// calls counts what the server calls while f runs, by system call.
func calls(t *testing.T, m *uniontest.Mount, trace string, f func()) map[string]int {
	t.Helper()
	n := map[string]int{}
	for line := range strings.Lines(traced(t, m, trace, f)) {
		if name := callName.FindStringSubmatch(line); name != nil {
			n[name[1]]++
		}
	}
	return n
}

// traced is what strace(1) writes of the server's system calls while f runs, which may end the server.
func traced(t *testing.T, m *uniontest.Mount, trace string, f func()) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command("strace", "-f", "-e", trace, "-o", out, "-p", strconv.Itoa(m.Pid()))
	says, err := cmd.StderrPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Skipf("needs strace: %v", err)
	}
	said := bufio.NewReader(says)
	if line, err := said.ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		_ = cmd.Wait()
		t.Skipf("needs a strace that may trace: %s %v", line, err)
	}
	drained := make(chan struct{})
	go func() { // with many threads it has more to say
		defer close(drained)
		_, _ = io.Copy(io.Discard, said)
	}()
	f()
	_ = cmd.Process.Signal(os.Interrupt) // it lets go of the server, if that has not ended
	<-drained
	_ = cmd.Wait() // ended by the signal
	b, err := os.ReadFile(out)
	must(t, err)
	return string(b)
}

// requestsOf counts the requests that the mount has had, by opcode. What the kernel forgets it forgets when it likes, and
// some programs ask every mount of the machine now and then how full it is.
func requestsOf(t *testing.T, m *uniontest.Mount) map[string]int {
	t.Helper()
	pids, err := filepath.Glob("/run/laminafs/si_*/pid")
	must(t, err)
	for _, path := range pids {
		b, _ := os.ReadFile(path) // that of another mount may be gone
		if strings.TrimSpace(string(b)) != strconv.Itoa(m.Pid()) {
			continue
		}
		file := filepath.Join(filepath.Dir(path), "requests")
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		must(t, unix.Kill(m.Pid(), unix.SIGUSR1))
		for end := time.Now().Add(hangLimit); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if b, err = os.ReadFile(file); err == nil {
				break
			}
		}
		must(t, err)
		n := map[string]int{}
		for line := range strings.Lines(string(b)) {
			op, count, _ := strings.Cut(strings.TrimSpace(line), " ")
			if op != "FORGET" && op != "STATFS" {
				n[op], err = strconv.Atoi(count)
				must(t, err)
			}
		}
		return n
	}
	t.Fatal("nothing is told of the mount")
	return nil
}

// With redirect_dir=on a directory of a lower moves at the same cost, whatever it holds: in system calls, in requests and
// in objects of the upper.
func TestRenameOfDirCostsTheSame(t *testing.T) {
	for _, format := range []string{"wh", "overlay"} {
		t.Run(format, func(t *testing.T) {
			var first string
			for _, entries := range []int{10, 20000} {
				l := newLayers(t)
				l.Trust = true // large, and compared by every other test
				for _, d := range []string{"/d", "/d/sub"} {
					must(t, os.Mkdir(l.Lowers[0]+d, 0o755))
				}
				for n := range entries {
					write(t, fmt.Sprintf("%s/d/f%05d", l.Lowers[0], n), "")
				}
				m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on", "whiteout="+format)
				before, requests := uniontest.StateOf(t, l.Upper), requestsOf(t, m)
				n := calls(t, m, layerCalls, func() { must(t, os.Rename(l.Merged+"/d", l.Merged+"/e")) })
				for op, count := range requestsOf(t, m) {
					if count -= requests[op]; count > 0 {
						n[op] = count
					}
				}
				n["objects"] = uniontest.StateOf(t, l.Upper).Len() - before.Len()
				if n["RENAME"] != 1 || n["renameat2"] == 0 {
					t.Fatalf("counted %v: the test proves nothing", n)
				}
				switch got := fmt.Sprint(n); first {
				case "":
					first = got
				case got:
				default:
					t.Errorf("with 10 entries %s, with %d %s", first, entries, got)
				}
				list, err := os.ReadDir(l.Merged + "/e")
				must(t, err)
				if len(list) != entries+1 {
					t.Errorf("%d entries after the rename, want %d", len(list), entries+1)
				}
			}
		})
	}
}
