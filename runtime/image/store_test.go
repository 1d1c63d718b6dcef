package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// entry is one entry of a layer's tar: a directory where name ends in "/".
type entry struct {
	name string
	body string
	h    tar.Header // further fields; Typeflag, Name and Size are filled in
}

// layerTar makes a layer's tar.
func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.h
		h.Name, h.Size = e.name, int64(len(e.body))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageConfig makes an image's configuration for layers.
func imageConfig(t testing.TB, cmd string, layers ...[]byte) []byte {
	t.Helper()
	ids := []digest.Digest{}
	history := []map[string]any{}
	for _, l := range layers {
		ids = append(ids, digest.FromBytes(l))
		history = append(history, map[string]any{"created": "2024-05-06T07:08:09Z", "created_by": "ADD " + string(ids[len(ids)-1])[:15]})
	}
	b, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
		"config": map[string]any{"Cmd": []string{cmd}, "Labels": map[string]string{"kind": cmd}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}, "history": history,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// file is one file of an archive.
type file struct {
	name string
	body []byte
	link string // of a symbolic link
}

// archiveTar makes an archive of files.
func archiveTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var entries []entry
	for _, f := range files {
		e := entry{name: f.name, body: string(f.body)}
		if f.link != "" {
			e.h = tar.Header{Typeflag: tar.TypeSymlink, Linkname: f.link}
		}
		entries = append(entries, e)
	}
	return layerTar(t, entries...)
}

// dockerArchive makes a docker-archive of one image.
func dockerArchive(t testing.TB, cmd string, tags []string, layers ...[]byte) []byte {
	t.Helper()
	c := imageConfig(t, cmd, layers...)
	name := digest.FromBytes(c).Encoded() + ".json"
	m := map[string]any{"Config": name, "RepoTags": tags}
	var names []string
	files := []file{{name: name, body: c}}
	seen := map[string]bool{}
	for _, l := range layers {
		n := digest.FromBytes(l).Encoded() + "/layer.tar"
		names = append(names, n)
		if !seen[n] {
			files = append(files, file{name: n, body: l})
			seen[n] = true
		}
	}
	m["Layers"] = names
	text, err := json.Marshal([]any{m})
	if err != nil {
		t.Fatal(err)
	}
	return archiveTar(t, append(files, file{name: "manifest.json", body: text})...)
}

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t testing.TB, s *Store, archive []byte) []Loaded {
	t.Helper()
	l, err := s.Load(context.Background(), LoadOptions{Stdin: bytes.NewReader(archive)})
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	return l
}

// checkInvariants says what is never true of a store at rest.
func (s *Store) checkInvariants(t testing.TB) {
	t.Helper()
	err := s.exclusive(func() error {
		if left, err := s.names("tmp"); err != nil || len(left) > 0 {
			t.Errorf("left in tmp: %q, %v", left, err)
		}
		images, bad, err := s.all()
		if err != nil {
			return err
		}
		for _, d := range bad {
			t.Error(d)
		}
		for _, img := range images {
			if _, err := s.layers(img.Chain); err != nil {
				t.Errorf("image %s: %v", img.ID, err)
			}
		}
		folders := map[string]bool{"l": true}
		links := map[string]string{}
		need, err := s.needed(nil, "")
		if err != nil {
			return err
		}
		chains, _ := s.names("layerdb/sha256")
		for _, name := range chains {
			l, err := s.layer(digest.NewDigestFromEncoded(digest.SHA256, name))
			if err != nil {
				t.Error(err)
				continue
			}
			if !need[l.Chain] {
				t.Errorf("nobody needs layer %s", l.Chain)
			}
			folders[l.CacheID] = true
		}
		mounts, _ := s.names("layerdb/mounts")
		for _, m := range mounts {
			id, err := s.mountID(m)
			if err != nil {
				t.Error(err)
			}
			folders[id], folders[id+"-init"] = true, true
		}
		got, _ := s.names("layers")
		for _, name := range got {
			if !folders[name] {
				t.Errorf("nobody knows layers/%s", name)
			}
			delete(folders, name)
			if name == "l" {
				continue
			}
			link, err := s.link(name)
			if err != nil {
				t.Error(err)
			}
			links[strings.TrimPrefix(link, "l/")] = name
			lower, _ := os.ReadFile(s.path("layers", name, "lower"))
			for _, dir := range s.below(string(lower)) {
				if _, err := os.Stat(dir); err != nil {
					t.Errorf("layers/%s: lower: %v", name, err)
				}
			}
		}
		for name := range folders {
			t.Errorf("layers/%s is missing", name)
		}
		got, _ = s.names("layers/l")
		for _, name := range got {
			to, err := os.Readlink(s.path("layers/l", name))
			if err != nil || to != "../"+links[name]+"/diff" || len(name) != 26 {
				t.Errorf("layers/l/%s leads to %q", name, to)
			}
			delete(links, name)
		}
		if len(links) > 0 {
			t.Errorf("links missing: %v", links)
		}
		refs, err := s.readRepositories()
		if err != nil {
			return err
		}
		for _, m := range refs.Repositories {
			for name, id := range m {
				if !s.exists(contentPath(id)) {
					t.Errorf("%s is the name of %s, which is not there", name, id)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLayout(t *testing.T) {
	s := openStore(t)
	a := layerTar(t, entry{name: "etc/"}, entry{name: "etc/passwd", body: "root\n"})
	b := layerTar(t, entry{name: "bin/"}, entry{name: "bin/sh", body: "#!"}, entry{name: ".wh.etc"})
	got := load(t, s, dockerArchive(t, "sh", []string{"busybox:1"}, a, b))
	if len(got) != 1 || strings.Join(got[0].Tags, " ") != "busybox:1" {
		t.Fatalf("loaded %+v", got)
	}
	c := imageConfig(t, "sh", a, b)
	if raw, err := os.ReadFile(filepath.Join(s.Root(), "imagedb/content/sha256", digest.FromBytes(c).Encoded())); err != nil || !bytes.Equal(raw, c) {
		t.Errorf("configuration: %q, %v", raw, err)
	}
	chain := digest.FromString(digest.FromBytes(a).String() + " " + digest.FromBytes(b).String())
	dir := filepath.Join(s.Root(), "layerdb/sha256", chain.Encoded())
	for name, want := range map[string]string{
		"diff": digest.FromBytes(b).String(), "parent": digest.FromBytes(a).String(), "size": "2",
	} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", name, text, err, want)
		}
	}
	cache, err := os.ReadFile(filepath.Join(dir, "cache-id"))
	if err != nil || len(cache) != 64 {
		t.Fatalf("cache-id %q, %v", cache, err)
	}
	layer := filepath.Join(s.LayersDir(), string(cache))
	for name, want := range map[string]string{"diff/bin/sh": "#!", "diff/.wh.etc": "", "committed": ""} {
		if text, err := os.ReadFile(filepath.Join(layer, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", name, text, err, want)
		}
	}
	lower, err := os.ReadFile(filepath.Join(layer, "lower"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(s.LayersDir(), string(lower), "etc/passwd")); err != nil || string(text) != "root\n" {
		t.Errorf("through lower %q: %q, %v", lower, text, err)
	}
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
