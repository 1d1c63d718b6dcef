package bench

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// goroot is where the toolchain is that built us, or would.
func goroot() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// GoTree is the Go distribution, up to 15,000 of its files, as three layers: all of it, and above it two in which every tenth file
// is there again with a line more.
func (f *Fixtures) GoTree() (*Layers, error) {
	top, err := f.make("gotree", func(top string) error {
		root, err := goroot()
		if err != nil {
			return err
		}
		return copyTree(root, top, f.count(15_000))
	})
	if err != nil {
		return nil, err
	}
	return f.merged("gotree", []string{top + "/2", top + "/1", top + "/0"})
}

// copyTree copies the first n files below root to the layers "0", "1" and "2" of top.
func copyTree(root, top string, n int) error {
	copied := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		layers := []string{"0"}
		if above := copied % 10; above == 1 || above == 2 {
			layers = append(layers, fmt.Sprint(above))
		}
		for _, layer := range layers {
			to := filepath.Join(top, layer, path[len(root):])
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if layer != "0" {
				data = append(data, "// of a layer above\n"...)
			}
			if err := os.WriteFile(to, data, 0o644); err != nil {
				return err
			}
		}
		if copied++; copied == n {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, layer := range []string{"0", "1", "2"} { // of one file there are none above
		if err := os.MkdirAll(filepath.Join(top, layer), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// smallBuild is the scale below which only the package of buildTarget is there to be compiled.
const smallBuild = 0.1

// buildTarget is what compile builds: a command with 60 packages below it, or less where all is smaller.
func (f *Fixtures) buildTarget() string {
	switch {
	case f.Scale < smallBuild:
		return "internal/goarch"
	case f.Scale < 1:
		return "reflect"
	}
	return "cmd/gofmt"
}

// Toolchain is a Go distribution that can compile, as two layers: the toolchain with its library, and the commands above.
func (f *Fixtures) Toolchain() (*Layers, error) {
	top, err := f.make("toolchain", func(top string) error {
		root, err := goroot()
		if err != nil {
			return err
		}
		lower := top + "/0"
		if err := os.MkdirAll(top+"/1/src", 0o755); err != nil {
			return err
		}
		if err := os.MkdirAll(lower+"/src", 0o755); err != nil {
			return err
		}
		for _, part := range []string{"bin", "pkg", "VERSION", "go.env", "lib"} {
			if err := run("cp", "-RL", filepath.Join(root, part), lower); err != nil {
				return err
			}
		}
		if f.Scale < smallBuild {
			if err := os.MkdirAll(lower+"/src/internal", 0o755); err != nil {
				return err
			}
			return run("cp", "-R", root+"/src/internal/goarch", root+"/src/go.mod", lower+"/src/internal")
		}
		if err := run("cp", "-R", root+"/src", lower); err != nil {
			return err
		}
		return run("mv", lower+"/src/cmd", top+"/1/src/cmd")
	})
	if err != nil {
		return nil, err
	}
	return f.merged("toolchain", []string{top + "/1", top + "/0"})
}
