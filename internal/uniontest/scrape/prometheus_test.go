package scrape

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/uniontest"
)

// prometheus starts the real one with what is in deploy/, but for the addresses and the interval, and returns where it
// listens.
func prometheus(t *testing.T, lamina, laminafs string) string {
	t.Helper()
	need(t, "prometheus")
	config := strings.NewReplacer("127.0.0.1:9477", lamina, "targets: []", `targets: ["`+laminafs+`"]`, "15s", "500ms").
		Replace(text(t, "prometheus/prometheus.yml"))
	dir := t.TempDir()
	for name, text := range map[string]string{"prometheus.yml": config, "lamina.rules.yml": text(t, "prometheus/lamina.rules.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	address := freePorts(t, 1)[0]
	start(t, "prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data",
		"--web.listen-address="+address, "--log.level=warn")
	return address
}

// start runs a program until the test ends, which shows what it said where it fails.
func start(t *testing.T, argv ...string) {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended, and that is seen in what it did
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s: %s", argv[0], text)
		}
		_ = log.Close() // read by name
	})
}

// query asks Prometheus; the values are by their labels.
func query(address, q string) (map[string]float64, error) {
	resp, err := client(address).Get("http://prometheus/api/v1/query?query=" + url.QueryEscape(q))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", q, answer.Error)
	}
	v := map[string]float64{}
	for _, r := range answer.Data.Result {
		n, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		v[r.Metric["job"]+" "+r.Metric["container"]] = n
	}
	return v, nil
}

func TestPrometheus(t *testing.T) {
	dir := needPrograms(t)
	need(t, "busybox")
	l := layers(t)
	ports := freePorts(t, 2)
	one, all := ports[0], ports[1]
	m := uniontest.Start(t, uniontest.Laminafs, l, "metrics="+one)

	// A container with a root of its own, and one that has failed.
	root := t.TempDir()
	flags := []string{"--root", root + "/store", "--runroot", root + "/run"}
	lamina := func(args ...string) string {
		cmd := exec.Command(dir+"/lamina", append(append([]string{}, flags...), args...)...)
		out, err := cmd.CombinedOutput()
		if fails := args[0] == "run" && slices.Contains(args, "failed"); fails != (err != nil) {
			t.Errorf("lamina %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	rootfs := root + "/rootfs"
	script := `mkdir -p "$1/bin" "$1/d" && cp "$(command -v busybox)" "$1/bin/" && cd "$1/bin" && ln -s busybox sh && ln -s busybox rm && ln -s busybox sleep && echo x >../d/gone`
	if out, err := exec.Command("sh", "-c", script, "sh", rootfs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { lamina("rm", "-f", "web", "failed") })
	lamina("run", "-d", "--name", "web", "--network", "none", "--rootfs", rootfs, "/bin/sh", "-c", "rm /d/gone && exec sleep 1000")
	lamina("run", "--name", "failed", "--network", "none", "--rootfs", rootfs, "/bin/sh", "-c", "exit 7")
	start(t, append([]string{dir + "/lamina"}, append(flags, "metrics", "--listen", all)...)...)
	eventually(t, "lamina metrics answers", func() bool { _, _, err := read(all); return err == nil })
	_, text, err := read(all)
	if err != nil {
		t.Fatal(err)
	}
	checkMetrics(t, text)

	prom := prometheus(t, all, one)
	is := func(q, labels string, want float64) {
		t.Helper()
		var got map[string]float64
		var err error
		eventually(t, fmt.Sprintf("%s of %q is %v", q, labels, want), func() bool {
			got, err = query(prom, q)
			v, ok := got[labels]
			return err == nil && ok && v == want
		})
	}
	is(`up`, "lamina ", 1)
	is(`up`, "laminafs ", 1)
	uniontest.Run(t, m, "python3", "-c", work, m.Dir())
	is(`laminafs_requests_total{opcode="MKDIR"}`, "laminafs ", 3)
	is(`laminafs_request_errors_total{errno="ENOTEMPTY",opcode="RMDIR"}`, "laminafs ", 1)
	is(`laminafs_request_duration_seconds_count{opcode="MKDIR"}`, "laminafs ", 3)
	is(`sum by (job) (laminafs_request_duration_seconds_bucket{le="+Inf",opcode="MKDIR"})`, "laminafs ", 3)
	is(`laminafs_up{container="web"}`, "lamina web", 1)
	is(`laminafs_whiteouts_total{container="web"}`, "lamina web", 1)
	is(`lamina_container_state{state="running"} == 1`, "lamina web", 1)
	is(`lamina_container_exit_code`, "lamina failed", 7)
	is(`count by (job, container) (ALERTS{alertname="LaminaContainerFailed",alertstate="firing"})`, "lamina failed", 1)
	is(`lamina:containers:count{state="exited"}`, "lamina ", 1)
	for where, q := range queries(t) {
		if _, err := query(prom, q); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}
