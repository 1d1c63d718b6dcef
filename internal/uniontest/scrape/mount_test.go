package scrape

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// work is what a mount is asked to do: system calls, one by one, in a process that does nothing else there.
const work = `
import os, sys
os.chdir(sys.argv[1])
for i in range(3):
    os.mkdir("new%d" % i)                                   # LOOKUP, MKDIR
def fails(errno, f, *args):
    try: f(*args)
    except OSError as e:
        if e.errno != errno: raise
    else: sys.exit("no error from %r %r" % (f, args))
fails(39, os.rmdir, "d")                                    # LOOKUP, RMDIR: ENOTEMPTY
fails(2, os.lstat, "absent")                                # LOOKUP
fails(17, os.mkdir, "new0")                                 # LOOKUP: the kernel asks again for what is to be new
fails(61, os.getxattr, "d/file", "user.absent")             # LOOKUP, GETXATTR: ENODATA
fails(61, os.getxattr, "d/file", "user.absent")             # GETXATTR: ENODATA
fd = os.open("d/file", os.O_RDONLY)
assert len(os.read(fd, 100000)) == 10000                    # READ
os.close(fd)
fd = os.open("d/file", os.O_WRONLY)
os.pwrite(fd, b"x" * 4096, 0)                               # GETXATTR security.capability: ENODATA, WRITE: copy-ups of d and file
os.close(fd)
os.unlink("gone")                                           # LOOKUP, UNLINK: a whiteout
os.symlink("to", "link")                                    # LOOKUP, SYMLINK
os.readlink("link")                                         # READLINK
os.link("d/file", "other")                                  # LOOKUP, LINK
os.rename("other", "third")                                 # LOOKUP, RENAME
`

// wanted is what work comes to.
var wanted = map[string]float64{
	"laminafs_requests_total opcode=MKDIR": 3, "laminafs_requests_total opcode=RMDIR": 1,
	"laminafs_requests_total opcode=LOOKUP": 11, "laminafs_requests_total opcode=GETXATTR": 3,
	"laminafs_requests_total opcode=WRITE": 1, "laminafs_requests_total opcode=UNLINK": 1,
	"laminafs_requests_total opcode=SYMLINK": 1, "laminafs_requests_total opcode=READLINK": 1,
	"laminafs_requests_total opcode=LINK": 1, "laminafs_requests_total opcode=RENAME": 1,
	"laminafs_request_errors_total errno=ENOTEMPTY opcode=RMDIR":  1,
	"laminafs_request_errors_total errno=ENODATA opcode=GETXATTR": 3,
	"laminafs_request_duration_seconds opcode=LOOKUP":             11,
	"laminafs_request_duration_seconds opcode=WRITE":              1,
	"laminafs_read_bytes_total":                                   10000,
	"laminafs_written_bytes_total":                                4096,
	"laminafs_copy_ups_total":                                     2,
	"laminafs_whiteouts_total":                                    1,
	"laminafs_copy_up_failures_total":                             0,
	"laminafs_interrupted_requests_total":                         0,
}

// layers are a lower with what work needs, and an upper, for a helper or, with none, for this process.
func layers(t testing.TB, as ...*uniontest.Helper) *uniontest.Layers {
	t.Helper()
	if len(as) == 0 {
		uniontest.NeedRoot(t)
	}
	l := uniontest.NewLayers(t, 1, as...)
	script := `cd "$1" && mkdir d && head -c 10000 /dev/zero >d/file && echo x >gone`
	r, err := l.Helper().Exec(uniontest.Command{Argv: []string{"sh", "-c", script, "sh", l.Lowers[0]}})
	if err != nil || r.Code != 0 {
		t.Fatalf("%v: %s", err, r.Stderr)
	}
	return l
}

// check holds what work has changed against what it should.
func check(t *testing.T, before, after values, more string) {
	t.Helper()
	for name, want := range wanted {
		if got := after[name+more] - before[name+more]; got != want {
			t.Errorf("%s%s grows by %v, want %v", name, more, got, want)
		}
	}
	for name, n := range after {
		if op, ok := strings.CutPrefix(name, "laminafs_requests_total opcode="); ok && n < after["laminafs_request_duration_seconds opcode="+op] {
			t.Errorf("%s: %v requests, of which %v were timed", op, n, after["laminafs_request_duration_seconds opcode="+op])
		}
	}
}

func TestExactCounts(t *testing.T) {
	needPrograms(t)
	for _, who := range []uniontest.Identity{uniontest.Root, uniontest.User, uniontest.UserNS} {
		for _, kind := range []string{"unix", "tcp"} {
			t.Run(fmt.Sprint(who, " ", kind), func(t *testing.T) {
				l := layers(t, uniontest.As(t, who))
				address := freePorts(t, 1)[0]
				if kind == "unix" {
					address = "unix:" + socketDir(t, l) + "/m.sock"
				}
				m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
				before := scrape(t, address)
				if before["laminafs_up"] != 1 || before["laminafs_requests_total opcode=INIT"] != 1 {
					t.Errorf("at first: %v", before)
				}
				uniontest.Run(t, m, "python3", "-c", work, m.Dir())
				check(t, before, scrape(t, address), "")
				m.Unmount()
				eventually(t, "the endpoint is gone", func() bool {
					_, _, err := read(address)
					return err != nil
				})
				if path, ok := strings.CutPrefix(address, "unix:"); ok {
					if _, err := os.Lstat(path); err == nil {
						t.Error("the socket stays")
					}
				}
			})
		}
	}
}

// What nobody asks for is counted as well: that is what lamina shows of every mount.
func TestConventions(t *testing.T) {
	needPrograms(t)
	need(t, "promtool")
	l := layers(t)
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	uniontest.Run(t, m, "python3", "-c", work, m.Dir())
	_, text, err := read(address)
	if err != nil {
		t.Fatal(err)
	}
	checkMetrics(t, text)
}

// checkMetrics is what promtool says of the conventions.
func checkMetrics(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// exporter is the pid of a server's child that serves its metrics.
func exporter(t testing.TB, server int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", server))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		text, _ := os.ReadFile(path) // a thread may have ended
		for _, f := range strings.Fields(string(text)) {
			argv, _ := os.ReadFile("/proc/" + f + "/cmdline")
			if pid, err := strconv.Atoi(f); err == nil && strings.Contains(string(argv), "laminafs-metrics\x00") {
				return pid
			}
		}
	}
	t.Fatalf("server %d has no exporter", server)
	return 0
}

func TestKilledExporter(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	if err := unix.Kill(exporter(t, m.Pid()), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told of", func() bool {
		return strings.Contains(m.Log(), "laminafs-metrics has ended: the mount goes on without metrics")
	})
	uniontest.Run(t, m, "python3", "-c", work, m.Dir())
	m.Remount() // over the socket that it has left
	if v := scrape(t, address); v["laminafs_up"] != 1 {
		t.Errorf("after the next mount: %v", v)
	}
}

// An unmount is not taken for the end of the exporter.
func TestUnmountSaysNothing(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics=unix:"+socketDir(t, l)+"/m.sock")
	for range 5 {
		m.Remount()
	}
	m.Unmount()
	if log := m.Log(); log != "" {
		t.Errorf("the server has written: %s", log)
	}
}

func TestKilledServer(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	path := socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics=unix:"+path)
	pid := exporter(t, m.Pid())
	m.Kill()
	eventually(t, "the exporter ends", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket stays")
	}
}

// A server that is stopped holds up no scrape, and is asked again.
func TestStoppedServer(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	if err := unix.Kill(m.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(m.Pid(), unix.SIGCONT) }() // it may be there already
	eventually(t, "it is told of", func() bool {            // all its threads have stopped
		v, _, err := read(address)
		up, ok := v["laminafs_up"]
		return err == nil && ok && up == 0
	})
	if err := unix.Kill(m.Pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if v := scrape(t, address); v["laminafs_up"] != 1 {
		t.Error("it does not come back")
	}
}

// stop stops a process, and returns when all its threads have stopped: until then they go on answering.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all threads have stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, path := range threads {
			text, _ := os.ReadFile(path) // one that has ended has stopped
			if len(text) > 0 && !strings.Contains(string(text), ") T ") {
				return false
			}
		}
		return err == nil && len(threads) > 0
	})
}

// A scrape waits for no request: here for one whose layer does not answer, as it is a mount of a server that is stopped.
func TestScrapeDuringARequestThatHangs(t *testing.T) {
	needPrograms(t)
	below := layers(t)
	lower := uniontest.Start(t, uniontest.Laminafs, below)
	l := uniontest.NewLayers(t, 0)
	l.Lowers, l.Trust = []string{lower.Dir()}, true
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	stop(t, lower.Pid())
	goOn := func() {
		if err := unix.Kill(lower.Pid(), unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	defer goOn()
	done := make(chan error, 1)
	go func() {
		done <- exec.Command("cat", m.Dir()+"/d/file").Run()
	}()
	eventually(t, "a request is in flight", func() bool {
		v, _, err := read(address)
		return err == nil && v["laminafs_up"] == 1 && v["laminafs_requests_in_flight"] == 1
	})
	goOn()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if v := scrape(t, address); v["laminafs_requests_in_flight"] != 0 {
		t.Errorf("%v requests are in flight at the end", v["laminafs_requests_in_flight"])
	}
	m.Unmount()
}

func TestScrapesUnderLoad(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	address := "unix:" + socketDir(t, l) + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			before := values{}
			for !stop.Load() {
				v, _, err := read(address)
				if err != nil {
					t.Error(err)
					return
				}
				if v["laminafs_up"] != 1 {
					continue // it had no time to answer, and tells nothing else
				}
				for name, n := range before {
					if strings.Contains(name, "laminafs_") && strings.Contains(name, "_total") && v[name] < n {
						t.Errorf("%s falls from %v to %v", name, n, v[name])
					}
				}
				before = v
			}
		})
	}
	load := `cd "$1" && for i in 1 2 3 4 5 6 7 8; do mkdir -p t$i/a/b && echo $i >t$i/a/b/c && cat t$i/a/b/c && rm -r t$i; done >/dev/null`
	var load2 sync.WaitGroup
	for i := range 2 {
		load2.Go(func() {
			dir := fmt.Sprintf("%s/w%d", m.Dir(), i)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Error(err)
				return
			}
			for range 2 {
				if out, err := exec.Command("sh", "-c", load, "sh", dir).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
	load2.Wait()
	stop.Store(true)
	wg.Wait()
	v := scrape(t, address)
	if n := v["laminafs_requests_total opcode=RMDIR"]; n != 2*2*8*3 {
		t.Errorf("%v RMDIR, want %d", n, 2*2*8*3)
	}
}

// A mount gets an address that one before it is about to give up.
func TestAddressOfAnEndingMount(t *testing.T) {
	needPrograms(t)
	l := layers(t)
	path := socketDir(t, l) + "/m.sock"
	before, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if c, err := before.Accept(); err == nil { // it has found the address in use
			_ = c.Close()
		}
		_ = before.Close()
	}()
	uniontest.Start(t, uniontest.Laminafs, l, "metrics=unix:"+path)
	<-asked
	if v := scrape(t, "unix:"+path); v["laminafs_up"] != 1 {
		t.Errorf("it is mounted, and its metrics are %v", v)
	}
}

// A mount that cannot be served metrics of is none.
func TestErrors(t *testing.T) {
	dir := needPrograms(t)
	l := layers(t)
	sockets := socketDir(t, l)
	address := "unix:" + sockets + "/m.sock"
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+address)
	if err := os.WriteFile(sockets+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	alone := t.TempDir()
	if out, err := exec.Command("cp", dir+"/laminafs", alone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tests := []struct{ name, bin, address, want string }{
		{"in use", dir + "/laminafs", address, ": address already in use"},
		{"a file", dir + "/laminafs", "unix:" + sockets + "/file", ": file exists, and is no socket"},
		{"no directory", dir + "/laminafs", "unix:" + sockets + "/absent/s", ": no such file or directory"},
		{"no program", alone + "/laminafs", "127.0.0.1:1", ": laminafs-metrics not found: it belongs beside the laminafs executable, or in a folder of $PATH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := t.TempDir()
			cmd := exec.Command(tt.bin, "-o", "lowerdir="+l.Lowers[0]+",metrics="+tt.address, at)
			cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:/usr/sbin:/sbin")
			out, err := cmd.CombinedOutput()
			if want := "laminafs: metrics=" + tt.address + ": "; err == nil || !strings.HasPrefix(string(out), want) ||
				!strings.HasSuffix(string(out), tt.want+"\n") || strings.Count(string(out), "\n") != 1 {
				t.Errorf("%v: %q\nwant %q...%q", err, out, want, tt.want)
			}
			if entries, err := os.ReadDir(at); err != nil || len(entries) > 0 {
				t.Errorf("it is mounted: %v, %v", entries, err)
			}
		})
	}
	if v := scrape(t, address); v["laminafs_up"] != 1 {
		t.Error("the first mount's endpoint is gone")
	}
	uniontest.Run(t, m, "true")
}
