package scrape

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// mountInfo is a line of laminafs_mount_info, of which the label mount is wanted.
var mountInfo = regexp.MustCompile(`^laminafs_mount_info\{.*\bmount="([0-9a-f]+)".*\bmountpoint="([^"]*)"`)

// One endpoint tells of many mounts, each for itself. One that is stopped is told of as silent and holds up no other; one whose
// server was killed is none, though its socket is still there.
func TestManyMounts(t *testing.T) {
	dir := needPrograms(t)
	const n = 20
	var all []*uniontest.Mount
	for range n {
		all = append(all, uniontest.Start(t, uniontest.Laminafs, layers(t)))
	}
	at := func() string {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skipf("needs IPv6 on the loopback interface: %v", err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	root := t.TempDir()
	start(t, dir+"/lamina", "--root", root+"/store", "--runroot", root+"/run", "metrics", "--listen", at)
	eventually(t, "lamina metrics answers", func() bool { _, _, err := read(at); return err == nil })

	for i, m := range all {
		for j := range i {
			if err := os.Mkdir(fmt.Sprintf("%s/new%d", m.Dir(), j), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	var v values
	var body string
	var err error
	eventually(t, "all mounts answer", func() bool { // in time, all at once
		v, body, err = read(at)
		return err == nil && strings.Count(body, "\nlaminafs_mount_info{") >= n
	})
	checkMetrics(t, body)
	ids := map[string]string{} // by mount point
	for line := range strings.Lines(body) {
		if m := mountInfo.FindStringSubmatch(line); m != nil {
			ids[m[2]] = m[1]
		}
	}
	of := func(v values, name, more string, m *uniontest.Mount) (float64, bool) {
		n, ok := v[fmt.Sprintf("%s container= container_id= image= mount=%s%s", name, ids[m.Dir()], more)]
		return n, ok
	}
	for i, m := range all {
		got, ok := of(v, "laminafs_requests_total", " opcode=MKDIR", m)
		if got != float64(i) || !ok && i > 0 {
			t.Errorf("mount %d, %q: %v MKDIR", i, ids[m.Dir()], got)
		}
	}

	stopped, killed := all[0], all[1]
	if err := unix.Kill(stopped.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(stopped.Pid(), unix.SIGCONT) }) // it may have been
	if dirs, _ := filepath.Glob("/run/laminafs/si_" + ids[killed.Dir()] + "/figures"); len(dirs) != 1 {
		t.Fatalf("the socket of the mount that is to be killed: %q", dirs)
	}
	killed.Kill()
	silent := func() (list []int) {
		for i, m := range all[2:] {
			if up, _ := of(v, "laminafs_up", "", m); up != 1 {
				list = append(list, i+2)
			}
		}
		return list
	}
	eventually(t, "the stopped one is told of, and all others answer beside it", func() bool { // all its threads have stopped
		v, _, err = read(at)
		up, ok := of(v, "laminafs_up", "", stopped)
		return err == nil && ok && up == 0 && len(silent()) == 0
	})
	if up, ok := of(v, "laminafs_up", "", killed); ok && up == 1 {
		t.Error("the killed one answers")
	}
	if v["lamina_collect_failed kind=mount"] != 0 || v["lamina_left_out kind=mount"] != 0 {
		t.Errorf("failed %v, left out %v", v["lamina_collect_failed kind=mount"], v["lamina_left_out kind=mount"])
	}
	if err := unix.Kill(stopped.Pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes back", func() bool {
		v, _, err := read(at)
		up, _ := of(v, "laminafs_up", "", stopped)
		return err == nil && up == 1
	})
}

// The real endpoints can be read, and nothing else: no other method, no profile, no variables.
func TestReadOnly(t *testing.T) {
	dir := needPrograms(t)
	l := layers(t)
	one, all := "unix:"+socketDir(t, l)+"/m.sock", "unix:"+t.TempDir()+"/all.sock"
	uniontest.Start(t, uniontest.Laminafs, l, "metrics="+one)
	root := t.TempDir()
	start(t, dir+"/lamina", "--root", root+"/store", "--runroot", root+"/run", "metrics", "--listen", all)
	for _, address := range []string{one, all} {
		eventually(t, address+" answers", func() bool { _, _, err := read(address); return err == nil })
		if st, err := os.Stat(strings.TrimPrefix(address, "unix:")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", address, st.Mode(), err)
		}
		for request, want := range map[string]int{
			"GET /metrics": 200, "HEAD /metrics": 200, "POST /metrics": 405, "PUT /metrics": 405, "DELETE /metrics": 405,
			"GET /debug/pprof/": 404, "GET /debug/pprof/heap": 404, "GET /debug/vars": 404, "GET /-/reload": 404, "POST /-/quit": 405,
		} {
			method, path, _ := strings.Cut(request, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, "http://metrics"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client(address).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body) // its status is what counts
			_ = resp.Body.Close()
			if resp.StatusCode != want && (want != 405 || resp.StatusCode != 404) {
				t.Errorf("%s at %s: %s, want %d", request, address, resp.Status, want)
			}
		}
	}
}

// The unit that deploy/ has is one that systemd takes.
func TestSystemdUnit(t *testing.T) {
	dir := needPrograms(t)
	need(t, "systemd-analyze")
	unit := strings.ReplaceAll(text(t, "systemd/lamina-metrics.service"), "/usr/local/bin/lamina", dir+"/lamina")
	path := filepath.Join(t.TempDir(), "lamina-metrics.service")
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	verify(t, path, "")
	if err := os.WriteFile(path, []byte(strings.Replace(unit, "Restart=", "Restrat=", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	verify(t, path, "Restrat")
}

// verify expects systemd to say nothing about the unit, or something with complaint in it.
func verify(t *testing.T, path, complaint string) {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if complaint == "" && (err != nil || len(out) > 0) || !strings.Contains(string(out), complaint) {
		t.Errorf("systemd-analyze verify: %v, %q, want %q in it", err, out, complaint)
	}
}
