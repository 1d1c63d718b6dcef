package scrape

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/laminafs/lamina/internal/uniontest"
	"github.com/laminafs/lamina/internal/uniontest/leak"
)

// limit is how long a test waits for what happens at once.
const limit = 60 * time.Second

func TestMain(m *testing.M) {
	os.Exit(leak.Run(func() int {
		code := m.Run()
		if programs != "" {
			_ = os.RemoveAll(programs)
		}
		return code
	}))
}

var programs string // the directory of the programs that build has made

// build makes our programs. laminafs and lamina find those that serve metrics beside them or in $PATH.
var build = sync.OnceValues(func() (dir string, err error) {
	if programs, err = os.MkdirTemp("", "scrape-bin-"); err != nil {
		return "", err
	}
	if err := os.Chmod(programs, 0o755); err != nil { // also for the ordinary user
		return "", err
	}
	args, env := []string{"build", "-o", programs + "/"}, append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("LAMINA_RACE") == "1" {
		args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	for _, p := range []string{"lamina", "lamina-metrics", "laminafs", "laminafs-metrics"} {
		args = append(args, "github.com/laminafs/lamina/cmd/"+p)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return programs, os.Setenv("PATH", programs+":"+os.Getenv("PATH"))
})

func needPrograms(t testing.TB) (dir string) {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
}

// freePorts are n ports of loopback that nobody has now, each another.
func freePorts(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// client asks the endpoint at an address as metrics= has it.
func client(address string) *http.Client {
	return &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			if path, ok := strings.CutPrefix(address, "unix:"); ok {
				return d.DialContext(ctx, "unix", path)
			}
			return d.DialContext(ctx, "tcp", address)
		}}}
}

// values are all samples: by "name" or "name label=value ...", the labels in the order of the alphabet.
type values map[string]float64

// read scrapes the endpoint.
func read(address string) (values, string, error) {
	resp, err := client(address).Get("http://metrics/metrics")
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s: %s", resp.Status, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		return nil, "", err
	}
	v := values{}
	for name, f := range families {
		for _, m := range f.Metric {
			key := name + labels(m)
			switch {
			case m.Counter != nil:
				v[key] = m.Counter.GetValue()
			case m.Gauge != nil:
				v[key] = m.Gauge.GetValue()
			case m.Histogram != nil:
				v[key] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return v, string(text), nil
}

func labels(m *dto.Metric) string {
	var s strings.Builder
	for _, l := range m.Label {
		fmt.Fprintf(&s, " %s=%s", l.GetName(), l.GetValue())
	}
	return s.String()
}

// scrape reads what a mount tells that answers. On a busy machine it may not do so in time, and is scraped once more.
func scrape(t testing.TB, address string) values {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		v, _, err := read(address)
		if err != nil {
			t.Fatal(err)
		}
		if v["laminafs_up"] == 1 {
			return v
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the mount does not answer within %v", address, limit)
		}
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// socketDir is a directory in which anybody may make a socket.
func socketDir(t testing.TB, l *uniontest.Layers) string {
	t.Helper()
	dir := filepath.Join(l.Dir, "sockets")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}
