package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// ociBlobs makes the files of an OCI layout of one image; index.json is last.
func ociBlobs(t testing.TB, index ocispec.Descriptor, cfg []byte, blobs ...[]byte) []file {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(cfg), Size: int64(len(cfg))}}
	out := []file{blobFile(cfg)}
	for _, b := range blobs {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b), Size: int64(len(b))})
		out = append(out, blobFile(b))
	}
	text := marshal(t, m)
	index.MediaType, index.Digest, index.Size = ocispec.MediaTypeImageManifest, digest.FromBytes(text), int64(len(text))
	return append(out, blobFile(text), indexFile(t, index))
}

func blobFile(b []byte) file { return file{name: blobName(digest.FromBytes(b)), body: b} }

func indexFile(t testing.TB, all ...ocispec.Descriptor) file {
	return file{name: "index.json", body: marshal(t, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: all})}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withName(name string) ocispec.Descriptor {
	return ocispec.Descriptor{Annotations: map[string]string{ocispec.AnnotationRefName: name}}
}

func TestLoadKinds(t *testing.T) {
	a, b := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "2"})
	cfg := imageConfig(t, "c", a, b)
	docker := dockerArchive(t, "c", []string{"docker.io/library/x:latest"}, a, b)
	oci := ociBlobs(t, withName("x"), cfg, gz(t, a), zst(t, b))
	manifest := func(layers ...string) file {
		return file{name: "manifest.json", body: marshal(t, []dockerManifest{{Config: "config", RepoTags: []string{"x:latest"}, Layers: layers}})}
	}
	for name, archive := range map[string][]byte{
		"docker":            docker,
		"docker gzip":       gz(t, docker),
		"docker zstd":       zst(t, docker),
		"OCI":               archiveTar(t, oci...),
		"OCI gzip":          gz(t, archiveTar(t, oci...)),
		"layers first":      archiveTar(t, oci...),
		"manifest first":    archiveTar(t, file{name: "config", body: cfg}, manifest("1", "2"), file{name: "1", body: a}, file{name: "2", body: b}),
		"compressed layers": archiveTar(t, manifest("1", "2"), file{name: "config", body: cfg}, file{name: "1", body: gz(t, a)}, file{name: "2", body: zst(t, b)}),
		"./ names": archiveTar(t, file{name: "./manifest.json", body: manifest("./1", "2").body}, file{name: "config", body: cfg},
			file{name: "1", body: a}, file{name: "./2", body: b}),
		"linked layers": archiveTar(t, file{name: "blob/1", body: a}, file{name: "blob/2", body: b}, file{name: "x/layer.tar", link: "../blob/1"},
			file{name: "y/layer.tar", link: "../../../blob/2"}, manifest("x/layer.tar", "y/layer.tar"), file{name: "config", body: cfg}),
	} {
		for _, from := range []string{"file", "stdin", "pipe"} {
			t.Run(name+" from "+from, func(t *testing.T) {
				s := openStore(t)
				path := filepath.Join(t.TempDir(), "archive")
				if err := os.WriteFile(path, archive, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				o := map[string]LoadOptions{"file": {Path: path}, "stdin": {Stdin: f}, "pipe": {Stdin: bytes.NewReader(archive)}}[from]
				loaded, err := s.Load(context.Background(), o)
				if err != nil {
					t.Fatal(err)
				}
				s.checkInvariants(t)
				if len(loaded) != 1 || loaded[0].ID != digest.FromBytes(cfg) || strings.Join(loaded[0].Tags, " ") != "x:latest" {
					t.Errorf("loaded %+v", loaded)
				}
				img, err := s.Get("x")
				if err != nil || len(img.Chain) != 2 || strings.Join(img.Config.Cmd, " ") != "c" {
					t.Errorf("%+v, %v", img, err)
				}
			})
		}
	}
	t.Run("OCI layout", func(t *testing.T) {
		dir := t.TempDir()
		for _, f := range oci {
			path := filepath.Join(dir, f.name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := openStore(t)
		if _, err := s.Load(context.Background(), LoadOptions{Path: dir}); err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
	})
}

func TestLoadIndexes(t *testing.T) {
	a, b := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "2"})
	platform := func(arch string) *ocispec.Platform { return &ocispec.Platform{OS: "linux", Architecture: arch} }
	one := ociBlobs(t, ocispec.Descriptor{Platform: platform(goruntime.GOARCH)}, imageConfig(t, "ours", a), a)
	two := ociBlobs(t, ocispec.Descriptor{Platform: platform("sparc")}, imageConfig(t, "theirs", b), b)
	descriptor := func(files []file) ocispec.Descriptor {
		var i ocispec.Index
		if err := json.Unmarshal(files[len(files)-1].body, &i); err != nil {
			t.Fatal(err)
		}
		return i.Manifests[0]
	}
	all := append(one[:len(one)-1], two[:len(two)-1]...)
	attestation := descriptor(two)
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}

	inner := marshal(t, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{descriptor(two), attestation, descriptor(one)}})
	outer := withName("multi:1")
	outer.MediaType, outer.Digest, outer.Size = ocispec.MediaTypeImageIndex, digest.FromBytes(inner), int64(len(inner))
	for name, index := range map[string]file{
		"an index in the index":          indexFile(t, outer),
		"platforms side by side":         indexFile(t, descriptor(two), descriptor(one)),
		"an attestation beside an image": indexFile(t, attestation, descriptor(one)),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			got := load(t, s, archiveTar(t, append(append([]file{blobFile(inner)}, all...), index)...))
			if len(got) != 1 {
				t.Fatalf("loaded %+v", got)
			}
			if img, err := s.Get(string(got[0].ID)); err != nil || img.Config.Cmd[0] != "ours" {
				t.Errorf("%+v, %v", img, err)
			}
		})
	}
}

// An image without layers says that it has none, in whatever way its maker does.
func TestLoadWithoutLayers(t *testing.T) {
	for _, root := range []string{`{}`, `{"type":"layers"}`, `{"type":"layers","diff_ids":null}`, `{"type":"layers","diff_ids":[]}`} {
		cfg := []byte(`{"os":"linux","rootfs":` + root + `}`)
		for name, archive := range map[string][]byte{
			"docker": archiveTar(t, file{name: "c", body: cfg}, file{name: "manifest.json", body: marshal(t, []dockerManifest{{Config: "c"}})}),
			"OCI":    archiveTar(t, ociBlobs(t, withName("x"), cfg)...),
		} {
			if got := load(t, openStore(t), archive); len(got) != 1 || got[0].ID != digest.FromBytes(cfg) {
				t.Errorf("%s, %s: loaded %+v", name, root, got)
			}
		}
	}
}

// legacyArchive is what docker save wrote until 1.9: two images on a common one.
func legacyArchive(t testing.TB, change func(files map[string]*file)) []byte {
	t.Helper()
	id := func(c string) string { return strings.Repeat(c, 64) }
	v1 := func(c, parent string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"parent":%q,"created":"2014-05-06T07:08:09Z","os":"linux","architecture":"amd64","Size":5,`+
			`"container_config":{"Cmd":["/bin/sh","-c","make %s"]},"config":{"Cmd":["%s"],"Env":["A=b"]}}`, id(c), parent, c, c)
	}
	order := []string{"a/json", "a/layer.tar", "b/json", "b/layer.tar", "c/json", "c/layer.tar", "repositories"}
	m := map[string]*file{
		"a/json": {body: v1("a", "")}, "b/json": {body: v1("b", id("a"))}, "c/json": {body: v1("c", id("a"))},
		"repositories": {body: fmt.Appendf(nil, `{"old/b":{"1":%q},"old/c":{"latest":%q}}`, id("b"), id("c"))},
	}
	for _, c := range []string{"a", "b", "c"} {
		m[c+"/layer.tar"] = &file{body: layerTar(t, entry{name: c, body: c})}
	}
	change(m)
	var files []file
	for _, name := range order {
		if f := m[name]; f != nil {
			f.name = name
			if c, rest, ok := strings.Cut(name, "/"); ok {
				f.name = id(c) + "/" + rest
			}
			files = append(files, *f)
		}
	}
	return archiveTar(t, files...)
}

func TestLoadLegacy(t *testing.T) {
	s := openStore(t)
	got := load(t, s, legacyArchive(t, func(map[string]*file) {}))
	if len(got) != 2 {
		t.Fatalf("loaded %+v", got)
	}
	for tag, cmd := range map[string]string{"old/b:1": "b", "old/c": "c"} {
		img, err := s.Get(tag)
		if err != nil {
			t.Fatal(err)
		}
		if img.Config.Cmd[0] != cmd || img.Config.Env[0] != "A=b" || len(img.Chain) != 2 || len(img.Spec.History) != 2 ||
			img.Spec.History[1].CreatedBy != "/bin/sh -c make "+cmd {
			t.Errorf("%s: %+v", tag, img)
		}
	}
	if layers, _ := s.names("layerdb/sha256"); len(layers) != 3 {
		t.Errorf("%d layers, want 3: the lowest is shared", len(layers))
	}
	s2 := openStore(t)
	load(t, s2, save(t, s, DockerArchive, "old/b:1"))
}

// spy is a Progress that keeps what it is told.
type spy struct {
	mu    sync.Mutex
	lines []string
}

// Update keeps a line where it says something new of the layer. What is not counted in bytes is an event of its own.
func (p *spy) Update(id, status string, _, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := id + " " + status
	if total > 0 {
		for _, before := range slices.Backward(p.lines) {
			if before == line {
				return
			}
			if strings.HasPrefix(before, id+" ") {
				break
			}
		}
	}
	p.lines = append(p.lines, line)
}

func TestLayersAreShared(t *testing.T) {
	s := openStore(t)
	a, b := layerTar(t, entry{name: "a", body: "1"}), layerTar(t, entry{name: "b", body: "2"})
	load(t, s, dockerArchive(t, "one", []string{"one:latest"}, a))
	// The lower layer is not even in the archive.
	text := dockerArchive(t, "two", []string{"two:latest"}, a, b)
	var without []file
	for name, body := range filesOf(t, text) {
		if !bytes.Equal(body, a) {
			without = append(without, file{name: name, body: body})
		}
	}
	p := &spy{}
	if _, err := s.Load(context.Background(), LoadOptions{Stdin: bytes.NewReader(archiveTar(t, without...)), Progress: p}); err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	if want := shortDigest(digest.FromBytes(a)) + " Already exists"; len(p.lines) < 2 || p.lines[0] != want {
		t.Errorf("progress %q, want %q first", p.lines, want)
	}
	if layers, _ := s.names("layerdb/sha256"); len(layers) != 2 {
		t.Errorf("%d layers, want 2", len(layers))
	}
	for _, tt := range []struct {
		remove string
		left   int
	}{{"one", 2}, {"two", 0}} {
		if _, err := s.Remove(tt.remove, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
		if layers, _ := s.names("layerdb/sha256"); len(layers) != tt.left {
			t.Errorf("after rmi %s: %d layers, want %d", tt.remove, len(layers), tt.left)
		}
	}
	// The same layer twice in one image.
	load(t, s, dockerArchive(t, "twice", nil, a, a, b))
	if layers, _ := s.names("layerdb/sha256"); len(layers) != 3 {
		t.Errorf("%d layers, want 3", len(layers))
	}
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBadArchives(t *testing.T) {
	good, other := layerTar(t, entry{name: "good", body: "1"}), layerTar(t, entry{name: "other", body: "2"})
	long := layerTar(t, entry{name: "long", body: strings.Repeat("x", 600)})
	evil := layerTar(t, entry{name: "../evil", body: "3"})
	cfg := imageConfig(t, "c", good, other)
	docker := func(m dockerManifest, files ...file) []byte {
		return archiveTar(t, append(files, file{name: "manifest.json", body: marshal(t, []dockerManifest{m})})...)
	}
	withConfig := func(cfg []byte, layers ...[]byte) []byte {
		m := dockerManifest{Config: "config", RepoTags: []string{"x:y"}}
		files := []file{{name: "config", body: cfg}}
		for i, l := range layers {
			m.Layers = append(m.Layers, fmt.Sprint(i))
			files = append(files, file{name: fmt.Sprint(i), body: l})
		}
		return docker(m, files...)
	}
	oci := func(change func(files []file)) []byte {
		files := ociBlobs(t, withName("x:y"), cfg, gz(t, good), gz(t, other))
		change(files)
		return archiveTar(t, files...)
	}
	// retyped has one blob, which the index calls what it is not.
	retyped := func(mediaType string, text []byte) []byte {
		return archiveTar(t, blobFile(text), indexFile(t, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}))
	}
	manifest := ociBlobs(t, withName("x:y"), cfg)[1].body
	resized := func(change func(m *ocispec.Manifest)) []byte {
		files := ociBlobs(t, withName("x:y"), cfg, gz(t, good), gz(t, other))
		var m ocispec.Manifest
		if err := json.Unmarshal(files[3].body, &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		text := marshal(t, m)
		return archiveTar(t, append(files[:3], blobFile(text), indexFile(t, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(text), Size: int64(len(text))}))...)
	}
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }
	shortGood := shortDigest(digest.FromBytes(good))
	shortOther := shortDigest(digest.FromBytes(other))
	big, err := io.ReadAll(io.LimitReader(zeros{}, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	endless := gz(t, big)
	whole := dockerArchive(t, "c", []string{"x:y"}, good, other)
	id := strings.Repeat("a", 64)
	for name, tt := range map[string]struct {
		archive []byte
		want    []string // in the error
	}{
		"nothing":                 {nil, []string{"empty"}},
		"no tar":                  {[]byte(strings.Repeat("text ", 400)), []string{"neither a tar nor a directory"}},
		"no image":                {archiveTar(t, file{name: "x"}), []string{"manifest.json", "index.json"}},
		"damaged gzip":            {append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), whole...), []string{"gzip"}},
		"damaged bzip2":           {append([]byte("BZh91AY&SY"), whole...), []string{"bzip2"}},
		"damaged xz":              {append([]byte("\xfd7zXZ\x00\x00\x04"), whole...), []string{"xz"}},
		"damaged zstd":            {append([]byte("\x28\xb5\x2f\xfd"), whole...), []string{"zstd"}},
		"a layer that is another": {withConfig(cfg, good, good), []string{shortOther, "2 of 2", "diffID", digest.FromBytes(good).String()}},
		"a layer that is damaged": {withConfig(cfg, flip(good), other), []string{shortGood, "1 of 2", "diffID"}},
		"too few layers":          {withConfig(cfg, good), []string{"layers length mismatch"}},
		"a layer that is not there": {docker(dockerManifest{Config: "c", Layers: []string{"../../../etc/passwd", "no"}}, file{name: "c", body: cfg}),
			[]string{shortGood, "1 of 2", "etc/passwd", "not in the archive"}},
		"a configuration that is not there":           {docker(dockerManifest{Config: "/etc/passwd"}), []string{"/etc/passwd", "not in the archive"}},
		"a configuration under the digest of another": {docker(dockerManifest{Config: id + ".json"}, file{name: id + ".json", body: cfg}), []string{id, "digest"}},
		"a configuration that is none":                {withConfig([]byte("{"), good), []string{"configuration"}},
		"a configuration that is null":                {withConfig([]byte("null")), []string{"no RootFS key"}},
		"a configuration without a root":              {withConfig([]byte("{}")), []string{"no RootFS key"}},
		"a configuration with a root that is null":    {withConfig([]byte(`{"rootfs":null}`)), []string{"no RootFS key"}},
		"a diffID that is a path":                     {withConfig([]byte(`{"rootfs":{"diff_ids":["sha256:../../../../x"]}}`), good), []string{"1 of 1", "invalid"}},
		"another system":                              {withConfig([]byte(`{"os":"windows","rootfs":{"diff_ids":[]}}`)), []string{"windows"}},
		"a manifest without images":                   {archiveTar(t, file{name: "manifest.json", body: []byte("null")}), []string{"no image"}},
		"a manifest that is too large": {archiveTar(t, file{name: "manifest.json", body: append([]byte("["), bytes.Repeat([]byte(" "), maxConfig)...)}),
			[]string{"manifest.json", "more than"}},
		"a bad tag":                            {docker(dockerManifest{Config: "c", RepoTags: []string{"../x:y"}}, file{name: "c", body: imageConfig(t, "c")}), []string{"../x:y"}},
		"links in a circle":                    {docker(dockerManifest{Config: "a"}, file{name: "a", link: "b"}, file{name: "b", link: "a"}), []string{`"a"`, "circle"}},
		"a link out of the archive":            {docker(dockerManifest{Config: "a"}, file{name: "a", link: "/etc/passwd"}), []string{"not in the archive"}},
		"an evil layer":                        {withConfig(imageConfig(t, "c", good, evil), good, evil), []string{shortDigest(digest.FromBytes(evil)), "2 of 2", "../evil"}},
		"a layer that is cut short":            {withConfig(imageConfig(t, "c", good, long[:900]), good, long[:900]), []string{"2 of 2", "cut short"}},
		"a compressed layer that is cut short": {withConfig(cfg, good, gz(t, other)[:60]), []string{shortOther, "cut short"}},
		"an endless layer":                     {withConfig(imageConfig(t, "c", big), endless), []string{shortDigest(digest.FromBytes(big)), "larger than allowed"}},
		"an endless archive":                   {endless, []string{"no archive", "zeros"}},
		"an endless file":                      {gz(t, archiveTar(t, file{name: "manifest.json", body: big})), []string{"larger than allowed"}},
		"skopeo's directory": {archiveTar(t, file{name: "version", body: []byte("Directory Transport Version: 1.1\n")},
			file{name: "manifest.json", body: marshal(t, ocispec.Manifest{})}), []string{"manifest.json", "registry", "dir:"}},
		"a manifest of another kind":   {archiveTar(t, file{name: "manifest.json", body: []byte(`[{"Layers":"x"}]`)}), []string{"manifest.json: it has a string"}},
		"an index of another kind":     {archiveTar(t, file{name: "index.json", body: []byte(`[]`)}), []string{"index.json: it has an array"}},
		"an archive that is cut":       {whole[:len(whole)-2000], []string{"cut short"}},
		"a compressed one that is":     {gz(t, whole)[:300], []string{"cut short"}},
		"an OCI blob that is damaged":  {oci(func(f []file) { f[2].body = flip(f[2].body) }), []string{"2 of 2", shortDigest(digest.FromBytes(gz(t, other)))}},
		"an OCI blob that is another":  {oci(func(f []file) { f[2].body = append(f[2].body, 0) }), []string{"2 of 2", "bytes"}},
		"an OCI configuration that is": {oci(func(f []file) { f[0].body = flip(f[0].body) }), []string{"configuration", "digest"}},
		"an OCI configuration of another size": {resized(func(m *ocispec.Manifest) { m.Config.Size++ }),
			[]string{"configuration", digest.FromBytes(cfg).String(), fmt.Sprintf("%d bytes, not %d", len(cfg), len(cfg)+1)}},
		"an OCI configuration without a root": {archiveTar(t, ociBlobs(t, withName("x:y"), []byte("{}"))...), []string{"no RootFS key"}},
		"an OCI manifest of another size": {oci(func(f []file) { f[4].body = bytes.Replace(f[4].body, []byte(`"size":`), []byte(`"size":1`), 1) }),
			[]string{"manifest", "bytes, not 1"}},
		"an OCI manifest that is": {oci(func(f []file) { f[3].body = append(f[3].body, ' ') }), []string{"manifest", "digest"}},
		"no OCI manifest":         {oci(func(f []file) { f[3].name = "blobs/sha256/x" }), []string{"manifest", "not in the archive"}},
		"an OCI digest that is a path": {archiveTar(t, file{name: "index.json", body: []byte(`{"manifests":[{"mediaType":"` +
			ocispec.MediaTypeImageManifest + `","digest":"sha256:../../../x"}]}`)}), []string{"invalid"}},
		"an OCI manifest that is called an index": {retyped(ocispec.MediaTypeImageIndex, manifest), []string{"no index, but", ocispec.MediaTypeImageManifest}},
		"an OCI manifest without a type that is": {retyped(ocispec.MediaTypeImageIndex, bytes.Replace(manifest, []byte(`"mediaType":"`+ocispec.MediaTypeImageManifest+`",`), nil, 1)),
			[]string{"the index names none with its platform"}},
		"an OCI index that is called a manifest": {retyped(ocispec.MediaTypeImageManifest, indexFile(t).body), []string{"no manifest, but", ocispec.MediaTypeImageIndex}},
		"an empty index":                         {archiveTar(t, indexFile(t)), []string{"no image"}},
		"only other platforms": {archiveTar(t, indexFile(t,
			ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Platform: &ocispec.Platform{OS: "plan9", Architecture: "sparc"}},
			ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Platform: &ocispec.Platform{OS: "plan9", Architecture: "mips"}})),
			[]string{"plan9/sparc", "plan9/mips"}},
		"legacy: its own parent": {legacyArchive(t, func(m map[string]*file) {
			m["a/json"].body = bytes.Replace(m["a/json"].body, []byte(`"parent":""`), []byte(`"parent":"`+strings.Repeat("b", 64)+`"`), 1)
		}), []string{"parent"}},
		"legacy: no parent":             {legacyArchive(t, func(m map[string]*file) { m["a/json"] = nil }), []string{id, "not in the archive"}},
		"legacy: no layer":              {legacyArchive(t, func(m map[string]*file) { m["a/layer.tar"] = nil }), []string{id, "not in the archive"}},
		"an archive with a sparse file": {sparseTar(t), []string{"hole", "sparse"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			load(t, s, dockerArchive(t, "before", []string{"x:y"}, layerTar(t, entry{name: "before"})))
			before := treeOf(t, s.Root())
			path := filepath.Join(t.TempDir(), "archive")
			if err := os.WriteFile(path, tt.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, o := range []LoadOptions{{Path: path}, {Stdin: bytes.NewReader(tt.archive)}} {
				o.MaxSize = 32 << 20
				_, err := s.Load(context.Background(), o)
				if err == nil {
					t.Fatal("it is loaded")
				}
				for _, want := range tt.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q, want %q in it", err, want)
					}
				}
				if strings.Contains(err.Error(), "Go ") {
					t.Errorf("error %q: it is in the words of the program", err)
				}
				if testing.Verbose() {
					t.Log(err)
				}
				s.checkInvariants(t)
				if after := treeOf(t, s.Root()); after != before {
					t.Errorf("the store was\n%s\nand is\n%s", before, after)
				}
			}
		})
	}
}

// treeOf lists all names below a folder.
func treeOf(t testing.TB, root string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

func TestLoadEndsWithItsContext(t *testing.T) {
	s := openStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(make([]byte, 1<<20))
		cancel()
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}()
	if _, err := s.Load(ctx, LoadOptions{Stdin: r}); err == nil {
		t.Error("it is loaded")
	}
	_ = r.Close()
	s.checkInvariants(t)
}
