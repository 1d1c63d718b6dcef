package image

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startRegistry runs Debian's docker-registry on a loopback address, and returns that.
func startRegistry(t testing.TB, extra ...string) string {
	t.Helper()
	need(t, "docker-registry")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // its port is free a moment ago
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n%s",
		filepath.Join(dir, "data"), addr, strings.Join(extra, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("docker-registry: %s", out.String())
		}
	})
	for range 500 {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("docker-registry does not answer: %s", out.String())
	return ""
}

func pull(t testing.TB, s *Store, name string, o PullOptions) *Pulled {
	t.Helper()
	p, err := s.Pull(context.Background(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	return p
}

func push(t testing.TB, s *Store, name string, o PushOptions) []Pushed {
	t.Helper()
	p, err := s.Push(context.Background(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	return p
}

// saved is an image as save writes it.
func saved(t testing.TB, s *Store, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Save(context.Background(), SaveOptions{Images: []string{name}, Output: &b}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPushAndPull: what one store pushes another pulls, layer by layer the same; a second time nothing is sent.
func TestPushAndPull(t *testing.T) {
	addr := startRegistry(t)
	name := addr + "/some/image:v1"
	base := layerTar(t, entry{name: "bin/"}, entry{name: "bin/sh", body: strings.Repeat("shell", 100000)})
	top := layerTar(t, entry{name: "etc/"}, entry{name: "etc/.wh.gone"}, entry{name: "etc/x", body: "x"})
	a, b := openStore(t), openStore(t)
	id := load(t, a, dockerArchive(t, "cmd", []string{name}, base, top, base))[0].ID

	var said spy
	first := push(t, a, name, PushOptions{Progress: &said})
	t.Log(said.lines)
	got := pull(t, b, name, PullOptions{Progress: &said})
	if got.ID != id || got.Digest != first[0].Digest || got.UpToDate {
		t.Errorf("pulled %+v, want image %s, manifest %s", got, id, first[0].Digest)
	}
	if !bytes.Equal(saved(t, a, name), saved(t, b, name)) {
		t.Error("the saved images differ")
	}
}
