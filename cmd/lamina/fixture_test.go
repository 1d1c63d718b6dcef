package main_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// fixture is what all tests share: the programs, and an archive with two images.
//
//	bin/lamina, bin/laminafs
//	images.tar    docker-archive: base:latest (two layers, busybox) and app:1 (one more, with a configuration)
//	nomap/        links to all programs of the machine but newuidmap and newgidmap
type fixture struct{ dir string }

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range made {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

var made []string // directories that go at the end

var shared = sync.OnceValues(func() (*fixture, error) {
	dir, err := os.MkdirTemp("", "lamina-cli-")
	if err != nil {
		return nil, err
	}
	made = append(made, dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	f := &fixture{dir}
	for _, step := range []func() error{f.build, f.images, f.noMap} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return f, nil
})

func needFixture(t *testing.T) *fixture {
	t.Helper()
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skipf("needs busybox: %v", err)
	}
	f, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

// build makes the programs: with the race detector where LAMINA_RACE=1 is set.
func (f *fixture) build() error {
	args := []string{"build", "-o", f.path("bin") + "/"}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if os.Getenv("LAMINA_RACE") == "1" {
		args, env = append(args, "-race"), append(os.Environ(), "CGO_ENABLED=1")
	}
	for _, name := range []string{"lamina", "lamina-metrics", "laminafs", "lamina-monitor", "lamina-init"} {
		if name != "lamina-init" || os.Getenv("LAMINA_RACE") != "1" { // it has to be static; lamina does without
			args = append(args, "github.com/laminafs/lamina/cmd/"+name)
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func (f *fixture) noMap() error {
	dir := f.path("nomap")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, from := range []string{"/usr/sbin", "/usr/bin"} {
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name() == "newuidmap" || e.Name() == "newgidmap" {
				continue
			}
			if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil && !os.IsExist(err) {
				return err
			}
		}
	}
	return nil
}

// entry is one object of a layer.
type entry struct {
	name     string
	kind     byte // of archive/tar; 0 is a regular file
	mode     int64
	uid, gid int
	text     string // of a file, or where a link leads to
	xattrs   map[string]string
}

// when is the time of everything in the images.
var when = time.Date(2001, 2, 3, 4, 5, 6, 700_000_000, time.UTC)

// layer makes the tar of a layer.
func layer(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.gid, ModTime: when, Format: tar.FormatPAX}
		if e.kind == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.text))
		} else {
			h.Linkname = e.text
		}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if e.kind == 0 {
			if _, err := io.WriteString(w, e.text); err != nil {
				return nil, err
			}
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// baseLayers are the layers of base, lowest first.
func baseLayers() ([][]entry, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	dir := func(name string, mode int64) entry { return entry{name: name, kind: tar.TypeDir, mode: mode} }
	lowest := []entry{dir("bin", 0o755), {name: "bin/busybox", mode: 0o755, text: string(busybox)}}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			lowest = append(lowest, entry{name: "bin/" + applet, kind: tar.TypeSymlink, mode: 0o777, text: "busybox"})
		}
	}
	lowest = append(lowest,
		dir("dev", 0o755), dir("etc", 0o755), dir("proc", 0o755), dir("sys", 0o755), dir("root", 0o700), dir("tmp", 0o1777),
		entry{name: "etc/passwd", mode: 0o644, text: "root:x:0:0:root:/root:/bin/sh\nfive:x:5:6:five:/tmp:/bin/sh\n"},
		entry{name: "etc/group", mode: 0o644, text: "root:x:0:\nsix:x:6:\nmore:x:7:five\n"},
		dir("own", 0o755),
		entry{name: "own/five", mode: 0o640, uid: 5, gid: 6, text: "five\n"},
		entry{name: "own/su", mode: 0o4755, text: string(busybox)},
		dir("gone", 0o755), entry{name: "gone/file", mode: 0o644, text: "gone\n"}, entry{name: "gone/stays", mode: 0o644, text: "stays\n"},
		dir("opaque", 0o755), entry{name: "opaque/old", mode: 0o644, text: "old\n"},
		dir("data", 0o755), entry{name: "data/file", mode: 0o644, text: "one\n"},
		entry{name: "data/link", kind: tar.TypeLink, mode: 0o644, text: "data/file"},
		entry{name: "noted", mode: 0o644, text: "noted\n", xattrs: map[string]string{"user.note": "kept"}},
		entry{name: "noexec", mode: 0o644, text: "#!/bin/sh\n"},
		entry{name: "badinterpreter", mode: 0o755, text: "#!/no/such\n"},
	)
	upper := []entry{
		{name: "gone/.wh.file", mode: 0o644},
		dir("opaque", 0o700), {name: "opaque/.wh..wh..opq", mode: 0o644}, {name: "opaque/new", mode: 0o644, text: "new\n"},
		{name: "data/file2", mode: 0o600, uid: 5, gid: 6, text: "two\n"},
	}
	return [][]entry{lowest, upper}, nil
}

// images writes images.tar.
func (f *fixture) images() error {
	layers, err := baseLayers()
	if err != nil {
		return err
	}
	base, err := addLayers(empty.Image, layers)
	if err != nil {
		return err
	}
	if base, err = configure(base, v1.Config{
		Env: []string{"PATH=/bin", "FROM=image"}, Cmd: []string{"sh"}, Labels: map[string]string{"from": "image"},
	}); err != nil {
		return err
	}
	app, err := addLayers(base, [][]entry{{
		{name: "vol", kind: tar.TypeDir, mode: 0o750, uid: 5, gid: 6},
		{name: "vol/seed", mode: 0o640, uid: 5, gid: 6, text: "seed\n"},
		{name: "app", mode: 0o755, text: "#!/bin/sh\necho \"app: $*\"\n"},
	}})
	if err != nil {
		return err
	}
	if app, err = configure(app, v1.Config{
		Env: []string{"PATH=/bin", "APP=yes"}, Entrypoint: []string{"/app"}, Cmd: []string{"default", "arguments"}, User: "five",
		WorkingDir: "/tmp/work", Volumes: map[string]struct{}{"/vol": {}}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
		StopSignal: "SIGUSR1",
	}); err != nil {
		return err
	}
	tag := func(s string) name.Tag { return must(name.NewTag(s)) }
	return tarball.MultiWriteToFile(f.path("images.tar"), map[name.Tag]v1.Image{tag("base:latest"): base, tag("app:1"): app})
}

func addLayers(img v1.Image, layers [][]entry) (v1.Image, error) {
	for i, entries := range layers {
		text, err := layer(entries)
		if err != nil {
			return nil, err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{
			Created: v1.Time{Time: when}, CreatedBy: fmt.Sprintf("ADD layer %d", i), Comment: "by hand"}})
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

func configure(img v1.Image, c v1.Config) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.Config, file.OS, file.Architecture, file.Created = c, "linux", "amd64", v1.Time{Time: when}
	return mutate.ConfigFile(img, file)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
