package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// startRegistry runs Debian's docker-registry on a loopback address, and returns that.
func startRegistry(t testing.TB, extra ...string) string {
	t.Helper()
	need(t, "docker-registry")
	var out string
	for range 5 { // somebody else may take the port that was free
		var addr string
		if addr, out = tryRegistry(t, extra); addr != "" {
			return addr
		}
	}
	t.Fatalf("docker-registry does not answer: ...%s", out[max(0, len(out)-2000):])
	return ""
}

// tryRegistry is startRegistry once. Without success addr is empty, and out is what the registry said.
func tryRegistry(t testing.TB, extra []string) (addr, out string) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_ = l.Close() // its port is free a moment ago
	conf := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n%s",
		filepath.Join(dir, "data"), addr, strings.Join(extra, "\n"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", conf)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed, or said what is wrong
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("docker-registry: ...%s", said.Bytes()[max(0, said.Len()-2000):])
		}
	})
	for range 3000 {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			if resp.Header.Get("Docker-Distribution-Api-Version") != "" { // and not whoever took the port
				return addr, ""
			}
		}
		select {
		case <-ended:
			return "", said.String()
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("docker-registry does not answer")
	return "", ""
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

// count counts the lines that a layer was given with the status.
func (p *spy) count(status string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i, l := range p.lines {
		if strings.HasSuffix(l, " "+status) && (i == 0 || p.lines[i-1] != l) {
			n++
		}
	}
	return n
}

func expectCounts(t *testing.T, p *spy, want map[string]int) {
	t.Helper()
	for status, n := range want {
		if got := p.count(status); got != n {
			t.Errorf("%d layers %q, want %d: %q", got, status, n, p.lines)
		}
	}
}

// TestPushAndPull: what one store pushes another pulls, layer by layer the same; a second time nothing is sent.
func TestPushAndPull(t *testing.T) {
	addr := startRegistry(t)
	name := addr + "/some/image:v1"
	base := layerTar(t, entry{name: "bin/"}, entry{name: "bin/sh", body: strings.Repeat("shell", 100000)})
	top := layerTar(t, entry{name: "etc/"}, entry{name: "etc/.wh.gone"}, entry{name: "etc/x", body: "x"})
	a, b := openStore(t), openStore(t)
	id := load(t, a, dockerArchive(t, "cmd", []string{name}, base, top, base))[0].ID

	first := push(t, a, name, PushOptions{})
	if len(first) != 1 || first[0].Ref.String() != name {
		t.Fatalf("pushed %+v", first)
	}
	var said spy
	got := pull(t, b, name, PullOptions{Progress: &said})
	if got.ID != id || got.Digest != first[0].Digest || got.UpToDate {
		t.Errorf("pulled %+v, want image %s, manifest %s", got, id, first[0].Digest)
	}
	if !bytes.Equal(saved(t, a, name), saved(t, b, name)) {
		t.Error("the saved images differ")
	}
	for _, s := range []*Store{a, b} {
		if refs, err := s.References(id); err != nil || len(refs) != 2 || refs[0].String() != name && refs[1].String() != name {
			t.Errorf("names %v, %v: want the tag and the digest", refs, err)
		}
		if img, err := s.Get(addr + "/some/image@" + string(got.Digest)); err != nil || img.ID != id {
			t.Errorf("by its digest: %v, %v", img, err)
		}
	}

	t.Run("again", func(t *testing.T) {
		var said spy
		if again := pull(t, b, name, PullOptions{Progress: &said}); !again.UpToDate || again.Digest != got.Digest {
			t.Errorf("pulled %+v", again)
		}
		expectCounts(t, &said, map[string]int{"Downloading": 0, "Extracting": 0})
		said = spy{}
		for _, s := range []*Store{a, b} {
			if again := push(t, s, name, PushOptions{Progress: &said}); again[0].Digest != first[0].Digest {
				t.Errorf("pushed %+v", again)
			}
		}
		expectCounts(t, &said, map[string]int{"Pushing": 0, "Layer already exists": 4})
	})
	t.Run("by digest", func(t *testing.T) {
		c := openStore(t)
		byDigest := addr + "/some/image@" + string(got.Digest)
		p := pull(t, c, byDigest, PullOptions{})
		if refs, _ := c.References(id); p.ID != id || len(refs) != 1 || refs[0].String() != byDigest {
			t.Errorf("pulled %+v, names %v", p, refs)
		}
	})
	t.Run("another repository", func(t *testing.T) {
		other := addr + "/other:v2"
		if err := b.Tag(name, other); err != nil {
			t.Fatal(err)
		}
		var said spy
		if p := push(t, b, other, PushOptions{Progress: &said}); p[0].Digest != first[0].Digest {
			t.Errorf("its manifest is %s, want %s", p[0].Digest, first[0].Digest)
		}
		expectCounts(t, &said, map[string]int{"Pushing": 0, "Mounted from some/image": 2})
	})
	t.Run("another layer on top", func(t *testing.T) {
		img, err := b.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		committed := commitLayer(t, b, img.ID, addr+"/some/image:more", 7, nil, entry{name: "new", body: "new"})
		var said spy
		push(t, b, addr+"/some/image:more", PushOptions{Progress: &said})
		expectCounts(t, &said, map[string]int{"Pushed": 1, "Layer already exists": 2})
		said = spy{}
		if p := pull(t, a, addr+"/some/image:more", PullOptions{Progress: &said}); p.ID != committed.ID {
			t.Errorf("pulled %s, want %s", p.ID, committed.ID)
		}
		expectCounts(t, &said, map[string]int{"Downloading": 1, "Already exists": 3})
	})
	t.Run("all tags", func(t *testing.T) {
		all := push(t, b, addr+"/some/image", PushOptions{AllTags: true})
		tags, err := b.Tags(context.Background(), addr+"/some/image", RegistryOptions{})
		if err != nil || len(all) != 2 || strings.Join(tags, " ") != "more v1" {
			t.Errorf("pushed %v; tags %v, %v", all, tags, err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for name, want := range map[string]string{
			addr + "/none": "not found", addr + "/some/image:none": "manifest unknown", "UPPER": "lowercase",
			addr + "/some/image@sha256:" + strings.Repeat("0", 64): "not found",
		} {
			before := treeOf(t, b.Root())
			if _, err := b.Pull(context.Background(), name, PullOptions{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("pull %s: error %v, want one that says %s", name, err, want)
			}
			if after := treeOf(t, b.Root()); after != before {
				t.Errorf("pull %s left something", name)
			}
		}
		if _, err := b.Push(context.Background(), addr+"/none", PushOptions{}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "does not exist locally") {
			t.Errorf("push: error %v", err)
		}
	})
}

// TestOtherProgramsAndTheRegistry: skopeo pushes in every form that there is, and we pull it; what we push, skopeo
// reads.
func TestOtherProgramsAndTheRegistry(t *testing.T) {
	need(t, "skopeo")
	addr := startRegistry(t)
	a := openStore(t)
	base := layerTar(t, entry{name: "bin/"}, entry{name: "bin/sh", body: strings.Repeat("shell", 1000)})
	top := layerTar(t, entry{name: "etc/"}, entry{name: "etc/.wh.gone"}, entry{name: "etc/x", body: "x"})
	archive := filepath.Join(t.TempDir(), "image.tar")
	id := load(t, a, dockerArchive(t, "cmd", []string{"x:latest"}, base, top))[0].ID
	if err := os.WriteFile(archive, saved(t, a, "x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, args string }{
		{"docker", "--format=v2s2"}, {"oci", "--format=oci"}, {"zstd", "--format=oci --dest-compress-format=zstd"},
		{"uncompressed", "--format=oci --dest-decompress"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := addr + "/" + tt.name
			words := append([]string{"skopeo", "copy", "-q", "--dest-tls-verify=false"}, strings.Fields(tt.args)...)
			command(t, append(words, "docker-archive:"+archive, "docker://"+name)...)
			s := openStore(t)
			p := pull(t, s, name, PullOptions{})
			img, err := s.Get(name)
			if err != nil || tt.name == "docker" && img.ID != id {
				t.Fatalf("image %v, %v", img, err)
			}
			if d := strings.TrimSpace(command(t, "skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", "docker://"+name)); d != string(p.Digest) {
				t.Errorf("digest %s, skopeo says %s", p.Digest, d)
			}
			// To a place where the blobs are, and to one where nothing is known: digests stay in the first.
			if again := push(t, s, name, PushOptions{}); again[0].Digest != p.Digest {
				t.Errorf("pushed back as %s, came as %s", again[0].Digest, p.Digest)
			}
			elsewhere := startRegistry(t) + "/copy:1"
			if err := s.Tag(name, elsewhere); err != nil {
				t.Fatal(err)
			}
			push(t, s, elsewhere, PushOptions{})
			out := filepath.Join(t.TempDir(), "out")
			command(t, "skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+elsewhere, "docker-archive:"+out+":copy:1")
			c := openStore(t)
			got, err := c.Load(context.Background(), LoadOptions{Path: out})
			if err != nil || len(got) != 1 {
				t.Fatalf("%v, %v", got, err)
			}
			back, err := c.Get("copy:1")
			if err != nil || fmt.Sprint(back.Spec.RootFS.DiffIDs) != fmt.Sprint(img.Spec.RootFS.DiffIDs) {
				t.Errorf("layers %v, %v; want %v", back.Spec.RootFS.DiffIDs, err, img.Spec.RootFS.DiffIDs)
			}
		})
	}
}

func mustParse(t testing.TB, name string) reference.Named {
	t.Helper()
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestForgotten: what is known of an image's registry goes with the image; what is known of layers stays, as Docker's.
func TestForgotten(t *testing.T) {
	f, s := newFake(t), openStore(t)
	layer := layerTar(t, entry{name: "f", body: "x"})
	m, d := f.image(t, imageConfig(t, "cmd", layer), layer)
	f.tag(d)
	p := pull(t, s, f.name(), PullOptions{})
	if k := s.knownManifest(p.ID); k == nil || digest.FromBytes(k.raw) != p.Digest {
		t.Errorf("its manifest is known as %+v", k)
	}
	if _, err := s.Remove(f.name(), RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if s.knownManifest(p.ID) != nil {
		t.Error("its manifest is kept")
	}
	known := s.known(digest.FromBytes(layer))
	if len(known) != 1 || known[0].Digest != m.Layers[0].Digest || known[0].SourceRepository != f.name() || known[0].Size != m.Layers[0].Size {
		t.Errorf("known of the layer: %+v", known)
	}
}
