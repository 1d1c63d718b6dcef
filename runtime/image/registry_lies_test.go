package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func init() {
	retryBackoff.Duration = time.Millisecond // a test's registry is soon well again
}

// fake is a registry with one image, "img:latest", that can be made to lie.
type fake struct {
	*httptest.Server
	mu        sync.Mutex
	manifests map[string][]byte // by tag and by digest
	types     map[string]string // by digest; OCI manifests otherwise
	blobs     map[string][]byte // by digest
	asked     []string          // METHOD PATH, and RANGE where there is one

	// answer, when set, may answer a request in the registry's place.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t testing.TB) *fake {
	f := &fake{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	last := parts[len(parts)-1]
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/") && f.manifests[last] != nil:
		m := f.manifests[last]
		mediaType := f.types[string(digest.FromBytes(m))]
		if mediaType == "" {
			mediaType = ocispec.MediaTypeImageManifest
		}
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(m)
	case strings.Contains(r.URL.Path, "/blobs/") && f.blobs[last] != nil:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.blobs[last]))
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
	}
}

func (f *fake) name() string { return strings.TrimPrefix(f.URL, "http://") + "/img" }

// blob adds a blob, and describes it.
func (f *fake) blob(mediaType string, b []byte) ocispec.Descriptor {
	d := digest.FromBytes(b)
	f.blobs[string(d)] = b
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// manifest adds a manifest under its digest.
func (f *fake) manifest(t testing.TB, mediaType string, v any) ocispec.Descriptor {
	b := marshal(t, v)
	d := digest.FromBytes(b)
	f.manifests[string(d)], f.types[string(d)] = b, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// image adds an image, whose layers are compressed with gzip.
func (f *fake) image(t testing.TB, config []byte, layers ...[]byte) (ocispec.Manifest, ocispec.Descriptor) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: f.blob(ocispec.MediaTypeImageConfig, config)}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, f.blob(ocispec.MediaTypeImageLayerGzip, gz(t, l)))
	}
	return m, f.manifest(t, m.MediaType, m)
}

func (f *fake) tag(d ocispec.Descriptor) { f.manifests["latest"] = f.manifests[string(d.Digest)] }

// noise is a file that does not get much smaller by compression.
func noise(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// isBlob reports whether the request is for the blob.
func isBlob(r *http.Request, d digest.Digest) bool {
	return strings.HasSuffix(r.URL.Path, "/blobs/"+string(d))
}

// TestLyingRegistries: each ends with an error that says what is wrong, and leaves the store as it was.
func TestLyingRegistries(t *testing.T) {
	layer := layerTar(t, entry{name: "f", body: noise(300_000)})
	other := layerTar(t, entry{name: "g", body: "other"})
	config := imageConfig(t, "cmd", layer)
	endless := func(w http.ResponseWriter, header string) {
		_, _ = io.WriteString(w, header)
		for b := bytes.Repeat([]byte(" "), 1<<20); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
	instead := func(b []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { _, err := w.Write(b); return err == nil }
	}
	tests := []struct {
		name string
		// prepare changes what the registry has; by default it is a good image. What it returns answers for the first layer.
		prepare func(t *testing.T, f *fake, m ocispec.Manifest) func(w http.ResponseWriter, r *http.Request) bool
		want    string
		size    int64 // MaxSize
	}{
		{name: "another layer", want: "its digest is", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			bad := bytes.Clone(f.blobs[string(m.Layers[0].Digest)])
			bad[len(bad)/2] ^= 1
			return instead(bad)
		}},
		{name: "longer than its size", want: "the manifest says", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return instead(append(bytes.Clone(f.blobs[string(m.Layers[0].Digest)]), 0))
		}},
		{name: "endless layer", want: "larger than", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { endless(w, ""); return true }
		}},
		{name: "shorter than its size", want: "as the manifest says", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return instead([]byte("short"))
		}},
		{name: "always cut", want: "it ends after", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = io.WriteString(w, "cut") // its end says that it is all
				w.(http.Flusher).Flush()
				return true
			}
		}},
		{name: "wrong part", want: "were asked for", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") == "" {
					_, _ = w.Write(f.blobs[string(m.Layers[0].Digest)][:1000])
					w.(http.Flusher).Flush()
					return true
				}
				w.Header().Set("Content-Range", "bytes 0-9/10")
				w.WriteHeader(http.StatusPartialContent)
				return true
			}
		}},
		{name: "layer is missing", want: "404", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusNotFound); return true }
		}},
		{name: "always ill", want: "503", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		}},
		{name: "redirects in a circle", want: "redirects without end", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
				return true
			}
		}},
		{name: "redirects to a file", want: "unsupported protocol", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
				return true
			}
		}},
		{name: "not the image's layer", want: "diffID", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Layers[0] = f.blob(ocispec.MediaTypeImageLayerGzip, gz(t, other))
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "layer that is no tar", want: "layer", prepare: func(t *testing.T, f *fake, _ ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			bad := []byte(strings.Repeat("no tar ", 1000))
			_, d := f.image(t, imageConfig(t, "cmd", bad), bad)
			f.tag(d)
			return nil
		}},
		{name: "layer that leads outside", want: "../x", prepare: func(t *testing.T, f *fake, _ ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			bad := layerTar(t, entry{name: "../x", body: "x"})
			_, d := f.image(t, imageConfig(t, "cmd", bad), bad)
			f.tag(d)
			return nil
		}},
		{name: "gzip bomb", want: "larger than allowed", size: 10 << 20, prepare: func(t *testing.T, f *fake, _ ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			bomb := make([]byte, 64<<20)
			_, d := f.image(t, imageConfig(t, "cmd", bomb), bomb)
			f.tag(d)
			return nil
		}},
		{name: "layer larger than the disk", want: "there is room for", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Layers[0].Size = 1 << 60
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "size below zero", want: "its size is -1", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Layers[0].Size = -1
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "digest that is a path", want: "digest", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Layers[0].Digest = "sha256:../../../../etc/passwd"
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "another configuration", want: "configuration", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.blobs[string(m.Config.Digest)] = bytes.Replace(config, []byte("cmd"), []byte("dmc"), 1)
			return nil
		}},
		{name: "huge configuration", want: "more than", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Config.Size = 1 << 40
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "configuration for more layers", want: "2 in its configuration", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			_, d := f.image(t, imageConfig(t, "cmd", layer, other), layer)
			f.tag(d)
			return nil
		}},
		{name: "no image", want: "it is no image", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
			f.tag(f.manifest(t, m.MediaType, m))
			return nil
		}},
		{name: "schema 1", want: "schema 1", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.tag(f.manifest(t, "application/vnd.docker.distribution.manifest.v1+prettyjws", map[string]any{"schemaVersion": 1}))
			return nil
		}},
		{name: "manifest and index in one", want: "index as well", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.tag(f.manifest(t, m.MediaType, struct {
				ocispec.Manifest
				Manifests []string `json:"manifests"`
			}{m, []string{}}))
			return nil
		}},
		{name: "huge manifest", want: "larger than", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
					endless(w, "{")
				}
				return strings.Contains(r.URL.Path, "/manifests/")
			}
			return nil
		}},
		{name: "endless greeting", want: "", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.answer = func(w http.ResponseWriter, r *http.Request) bool { endless(w, ""); return true }
			return nil
		}},
		{name: "manifest that is no JSON", want: "manifest", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.manifests["latest"] = []byte("<html>")
			return nil
		}},
		{name: "index of another size", want: "as the index says", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			d := f.manifest(t, m.MediaType, m)
			d.Size++
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
			f.tag(f.manifest(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}))
			return nil
		}},
		{name: "index with another manifest", want: "does not match", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			d := f.manifest(t, m.MediaType, m)
			d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
			f.tag(f.manifest(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}))
			f.manifests[string(d.Digest)] = []byte(`{"schemaVersion":2}`)
			return nil
		}},
		{name: "indexes without end", want: "one in the other", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			d := f.manifest(t, m.MediaType, m)
			for range 10 {
				d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
				d = f.manifest(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
			}
			f.tag(d)
			return nil
		}},
		{name: "for other machines only", want: "only for linux/arm64, windows/amd64", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			a, b := f.manifest(t, m.MediaType, m), f.manifest(t, m.MediaType, m)
			a.Platform, b.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}, &ocispec.Platform{OS: "windows", Architecture: "amd64"}
			f.tag(f.manifest(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b}}))
			return nil
		}},
		{name: "without permission", want: "pull access denied", prepare: func(t *testing.T, f *fake, m ocispec.Manifest) func(http.ResponseWriter, *http.Request) bool {
			f.answer = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, s := newFake(t), openStore(t)
			m, d := f.image(t, config, layer)
			f.tag(d)
			if answer := tt.prepare(t, f, m); answer != nil {
				f.answer = func(w http.ResponseWriter, r *http.Request) bool {
					return isBlob(r, m.Layers[0].Digest) && answer(w, r)
				}
			}
			load(t, s, dockerArchive(t, "old", []string{"old:latest"}, other))
			before := treeOf(t, s.Root())
			p, err := s.Pull(context.Background(), f.name(), PullOptions{MaxSize: tt.size})
			if tt.name == "endless greeting" { // whatever follows it is cut off, and nobody minds
				if err != nil {
					s.checkInvariants(t)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "pull "+f.name()+":latest: ") {
				t.Errorf("%+v, error %v; want one that says %s", p, err, tt.want)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if after := treeOf(t, s.Root()); after != before {
				t.Errorf("the store was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// TestDownloadsGoOn: what breaks off is taken up again where it was, also by a registry that only begins anew.
func TestDownloadsGoOn(t *testing.T) {
	layer := layerTar(t, entry{name: "f", body: noise(5 << 20)})
	config := imageConfig(t, "cmd", layer)
	old := stall
	stall = time.Second
	defer func() { stall = old }()
	for _, tt := range []struct {
		name   string
		ranges bool
		fail   func(w http.ResponseWriter, r *http.Request, b []byte)
	}{
		{"cut", true, func(w http.ResponseWriter, r *http.Request, b []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = w.Write(b[:len(b)/3])
		}},
		{"cut, no ranges", false, func(w http.ResponseWriter, r *http.Request, b []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = w.Write(b[:len(b)/3])
		}},
		{"reset", true, func(w http.ResponseWriter, r *http.Request, b []byte) {
			_, _ = w.Write(b[:len(b)/3])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"stands still", true, func(w http.ResponseWriter, r *http.Request, b []byte) {
			_, _ = w.Write(b[:len(b)/3])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"ill for a while", true, func(w http.ResponseWriter, r *http.Request, b []byte) { w.WriteHeader(http.StatusBadGateway) }},
		{"too many requests", true, func(w http.ResponseWriter, r *http.Request, b []byte) { w.WriteHeader(http.StatusTooManyRequests) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s := newFake(t), openStore(t)
			m, d := f.image(t, config, layer)
			f.tag(d)
			failures := 2
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r, m.Layers[0].Digest) {
					return false
				}
				if !tt.ranges {
					r.Header.Del("Range")
				}
				f.mu.Lock()
				failing := failures > 0 && r.Header.Get("Range") == ""
				if failing {
					failures--
				}
				f.mu.Unlock()
				if failing {
					tt.fail(w, r, f.blobs[string(m.Layers[0].Digest)])
				}
				return failing
			}
			p := pull(t, s, f.name(), PullOptions{})
			if p.ID != digest.FromBytes(config) {
				t.Errorf("pulled %+v", p)
			}
		})
	}
}

// TestDownloadGoesOnSlowly: a registry that only begins anew takes longer than it may stand still to come to where it broke off.
func TestDownloadGoesOnSlowly(t *testing.T) {
	layer := layerTar(t, entry{name: "f", body: noise(1 << 20)})
	config := imageConfig(t, "cmd", layer)
	old := stall
	stall = time.Second
	defer func() { stall = old }()
	f, s := newFake(t), openStore(t)
	m, d := f.image(t, config, layer)
	f.tag(d)
	asked := 0
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r, m.Layers[0].Digest) {
			return false
		}
		b := f.blobs[string(m.Layers[0].Digest)]
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		f.mu.Lock()
		asked++
		first := asked == 1
		f.mu.Unlock()
		if first {
			_, _ = w.Write(b[:len(b)*9/10])
			return true
		}
		for part := range slices.Chunk(b, len(b)/10+1) {
			_, _ = w.Write(part)
			w.(http.Flusher).Flush()
			time.Sleep(stall / 5)
		}
		return true
	}
	if p := pull(t, s, f.name(), PullOptions{}); p.ID != digest.FromBytes(config) {
		t.Errorf("pulled %+v", p)
	}
}

// TestPullEndsWithItsContext, and leaves nothing.
func TestPullEndsWithItsContext(t *testing.T) {
	f, s := newFake(t), openStore(t)
	layer := layerTar(t, entry{name: "f", body: noise(1 << 20)})
	m, d := f.image(t, imageConfig(t, "cmd", layer), layer)
	f.tag(d)
	ctx, cancel := context.WithCancel(context.Background())
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r, m.Layers[0].Digest) {
			return false
		}
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
		return true
	}
	_, _ = s.Get("none") // makes the lock's file
	before := treeOf(t, s.Root())
	if _, err := s.Pull(ctx, f.name(), PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want Canceled", err)
	}
	if after := treeOf(t, s.Root()); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}
}

// TestPlatforms: the image for this machine, or for the one that is asked for.
func TestPlatforms(t *testing.T) {
	f := newFake(t)
	var all []ocispec.Descriptor
	ids := map[string]digest.Digest{}
	for _, p := range []ocispec.Platform{
		{OS: "linux", Architecture: "arm64", Variant: "v8"}, {OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm", Variant: "v7"},
		{OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "linux", Architecture: "386"},
	} {
		layer := layerTar(t, entry{name: "arch", body: p.Architecture + p.Variant})
		config := bytes.Replace(imageConfig(t, "cmd", layer), []byte(`"amd64"`), []byte(`"`+p.Architecture+`"`), 1)
		_, d := f.image(t, config, layer)
		d.Platform = &p
		all = append(all, d)
		ids[p.Architecture+p.Variant] = digest.FromBytes(config)
	}
	attestation := all[0]
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index := f.manifest(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: append([]ocispec.Descriptor{attestation}, all...)})
	f.tag(index)
	for platform, want := range map[string]string{"": "amd64", "linux/amd64": "amd64", "linux/arm64": "arm64v8", "linux/arm/v7": "armv7", "linux/arm/v6": "armv6", "linux/386": "386"} {
		s := openStore(t)
		if p := pull(t, s, f.name(), PullOptions{Platform: platform}); p.ID != ids[want] || p.Digest != index.Digest {
			t.Errorf("%q: image %s, want %s", platform, p.ID, ids[want])
		}
	}
	for platform, want := range map[string]string{"linux/s390x": "only for linux/arm64", "linux/arm/v5": "only for", "x y": "platform"} {
		if _, err := openStore(t).Pull(context.Background(), f.name(), PullOptions{Platform: platform}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %s", platform, err, want)
		}
	}
	// An image that is in no index.
	f.manifests["latest"] = f.manifests[string(all[0].Digest)]
	if p := pull(t, openStore(t), f.name(), PullOptions{}); p.ID != ids["arm64v8"] {
		t.Errorf("image %s, want the only one there is", p.ID)
	}
	if _, err := openStore(t).Pull(context.Background(), f.name(), PullOptions{Platform: "linux/amd64"}); err == nil || !strings.Contains(err.Error(), "only for linux/arm64") {
		t.Errorf("error %v", err)
	}
}

// TestPlainHTTP is for registries on this machine, and others only when the user says so.
func TestPlainHTTP(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.1.2.3": true, "[::1]:5000": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "example.com": false, "localhost.example.com": false, "docker.io": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	g := &guard{ask: http.DefaultTransport, send: http.DefaultTransport}
	req := httptest.NewRequest(http.MethodGet, "http://192.168.0.1/v2/", nil)
	if resp, err := g.RoundTrip(req); err == nil {
		t.Errorf("answered %v by plain HTTP", resp.Status)
	}
}

// TestCertificates: nobody vouches for the registry's, until the user does or does not care.
func TestCertificates(t *testing.T) {
	f := &fake{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // a refused certificate is what is tested
	f.StartTLS()
	defer f.Close()
	layer := layerTar(t, entry{name: "f", body: "x"})
	_, d := f.image(t, imageConfig(t, "cmd", layer), layer)
	f.tag(d)
	name := strings.TrimPrefix(f.URL, "https://") + "/img"
	pull(t, openStore(t), name, PullOptions{}) // on loopback
	r, err := newRepository(mustParse(t, name), RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.base, err = newTransport(r.repo.Registry, false); err != nil { // as if it were elsewhere
		t.Fatal(err)
	}
	if _, err := r.login(context.Background(), "pull"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v, want one about its certificate", err)
	}
}

// TestRedirects: a registry may send us to another server for a blob, but not from the net into a private one.
func TestRedirects(t *testing.T) {
	f, cdn, s := newFake(t), newFake(t), openStore(t)
	layer := layerTar(t, entry{name: "f", body: "x"})
	m, d := f.image(t, imageConfig(t, "cmd", layer), layer)
	f.tag(d)
	cdn.blobs = f.blobs
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(r, m.Layers[0].Digest) {
			http.Redirect(w, r, cdn.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	pull(t, s, f.name(), PullOptions{})
	if len(cdn.asked) != 1 {
		t.Errorf("the other server was asked %q", cdn.asked)
	}
	for _, tt := range []struct {
		from, to string
		ok       bool
	}{
		{"https://registry.example.com", "https://cdn.example.com", true}, {"https://registry.example.com", "https://169.254.169.254", false},
		{"https://registry.example.com", "https://127.0.0.1", false}, {"https://registry.example.com", "https://[::1]:80", false},
		{"https://registry.example.com", "https://10.1.2.3", false}, {"https://10.1.2.3", "https://10.1.2.4", true},
		{"https://127.0.0.1:5000", "https://127.0.0.1:6000", true},
	} {
		via, req := httptest.NewRequest("GET", tt.from, nil), httptest.NewRequest("GET", tt.to, nil)
		if err := checkRedirect(req, []*http.Request{via}); (err == nil) != tt.ok {
			t.Errorf("%s to %s: %v", tt.from, tt.to, err)
		}
	}
}

// TestAlreadyThere: a layer that is in the store is not even asked for.
func TestAlreadyThere(t *testing.T) {
	f, s := newFake(t), openStore(t)
	base, top := layerTar(t, entry{name: "base", body: "1"}), layerTar(t, entry{name: "top", body: "2"})
	load(t, s, dockerArchive(t, "old", []string{"old:latest"}, base))
	m, d := f.image(t, imageConfig(t, "new", base, top), base, top)
	f.tag(d)
	delete(f.blobs, string(m.Layers[0].Digest))
	var said spy
	pull(t, s, f.name(), PullOptions{Progress: &said})
	expectCounts(t, &said, map[string]int{"Already exists": 1, "Downloading": 1, "Download complete": 1, "Pull complete": 1})
	if asked := strings.Join(f.asked, " "); strings.Contains(asked, string(m.Layers[0].Digest)) {
		t.Errorf("asked for a layer that is there: %s", asked)
	}
}

// TestLayersInParallel: three at once, and no more.
func TestLayersInParallel(t *testing.T) {
	f, s := newFake(t), openStore(t)
	var layers [][]byte
	for i := range 7 {
		layers = append(layers, layerTar(t, entry{name: fmt.Sprint(i), body: noise(1000 + i)}))
	}
	_, d := f.image(t, imageConfig(t, "cmd", layers...), layers...)
	f.tag(d)
	var mu sync.Mutex
	now, most := 0, 0
	all := make(chan struct{})
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || isBlob(r, digest.FromBytes(imageConfig(t, "cmd", layers...))) {
			return false
		}
		mu.Lock()
		now++
		if most = max(most, now); most == downloadsAtOnce && now == downloadsAtOnce {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		mu.Unlock()
		<-all // the first ones wait for each other
		f.serve(w, r)
		mu.Lock()
		now--
		mu.Unlock()
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.Pull(ctx, f.name(), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if most != downloadsAtOnce {
		t.Errorf("%d downloads at once, want %d", most, downloadsAtOnce)
	}
	if blobs, _ := os.ReadDir(s.path("tmp")); len(blobs) != 0 {
		t.Errorf("left in tmp: %v", blobs)
	}
}

// TestUploadsGoOn: a connection that breaks, and a registry that is ill for a while, do not end a push.
func TestUploadsGoOn(t *testing.T) {
	addr := startRegistry(t)
	u, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host }}
	var mu sync.Mutex
	failures := map[string]int{"PATCH": 1, "PUT": 2, "POST": 1}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		fails := failures[r.Method] > 0
		failures[r.Method]--
		mu.Unlock()
		switch {
		case fails && r.Method == "PATCH":
			_, _ = io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		case fails:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	a, b := openStore(t), openStore(t)
	name := strings.TrimPrefix(server.URL, "http://") + "/img:latest"
	layer := layerTar(t, entry{name: "f", body: noise(3 << 20)})
	id := load(t, a, dockerArchive(t, "cmd", []string{name}, layer))[0].ID
	push(t, a, name, PushOptions{})
	if p := pull(t, b, name, PullOptions{}); p.ID != id {
		t.Errorf("pulled %s, want %s", p.ID, id)
	}
}
