package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
)

// Fixtures are what workloads work on: trees that are made once, when first asked for, and only read from then on.
type Fixtures struct {
	Dir   string  // where they are made
	Scale float64 // of the number of objects; 1 is what the names of workloads say
}

// count scales a number of objects.
func (f *Fixtures) count(n int) int { return max(1, int(float64(n)*f.Scale)) }

// make returns the directory name, filled by fill if it is not there yet.
func (f *Fixtures) make(name string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(f.Dir, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := fill(dir); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return dir, nil
}

// sourceSize is the size of a file of a source tree, in bytes: most are a few KiB, some are large, as in a checkout.
func sourceSize(r *rand.Rand) int {
	switch p := r.IntN(100); {
	case p < 60:
		return r.IntN(4 << 10)
	case p < 95:
		return r.IntN(32 << 10)
	default:
		return r.IntN(256 << 10)
	}
}

// fillTree makes n files, nine to a directory and directories nested four deep, with sizes given by size.
func fillTree(dir string, n int, size func(*rand.Rand) int) error {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 256<<10)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for i := range n {
		d := i / 9
		parent := filepath.Join(dir, fmt.Sprintf("p%d", d%5), fmt.Sprintf("q%d", d/5%7), fmt.Sprintf("r%d", d/35%8), fmt.Sprintf("s%d", d/280))
		if i%9 == 0 {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(parent, fmt.Sprintf("file%d.go", i)), data[:size(r)], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Tree is a layer like a source tree, of 15,000 files.
func (f *Fixtures) Tree() (string, error) {
	return f.make("tree", func(dir string) error { return fillTree(dir, f.count(15_000), sourceSize) })
}

// Small is a layer of 2,000 files of 4 KiB.
func (f *Fixtures) Small() (string, error) {
	return f.make("small", func(dir string) error {
		return fillTree(dir, f.count(2_000), func(*rand.Rand) int { return 4 << 10 })
	})
}

// Empty is a layer with nothing in it.
func (f *Fixtures) Empty() (string, error) {
	return f.make("empty", func(string) error { return nil })
}

// BigDir is a layer with one directory, "big", of 50,000 empty files.
func (f *Fixtures) BigDir() (string, error) {
	return f.make("bigdir", func(dir string) error { return fillDir(filepath.Join(dir, "big"), f.count(50_000)) })
}

func fillDir(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("some-name-%d", i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// BigFile is a layer with one file, "big", of 512 MiB.
func (f *Fixtures) BigFile() (string, error) {
	return f.make("bigfile", func(dir string) error {
		return writeBig(filepath.Join(dir, "big"), f.count(bigBlocks))
	})
}

// layerDirs is how many directories each of the Layers has, all the same.
const layerDirs = 100

// Layers are n layers, all with the same directories "dir0"..., each with a file of its own in every tenth.
func (f *Fixtures) Layers(n int) ([]string, error) {
	top, err := f.make(fmt.Sprintf("layers%d", n), func(top string) error {
		for i := range n {
			for d := range layerDirs {
				dir := layerDir(filepath.Join(top, fmt.Sprint(i)), d)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				if d%10 != i%10 {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("of-layer-%d", i)), nil, 0o644); err != nil {
					return err
				}
			}
		}
		return nil
	})
	var dirs []string
	for i := range n {
		dirs = append(dirs, filepath.Join(top, fmt.Sprint(i)))
	}
	return dirs, err
}

func layerDir(root string, d int) string { return filepath.Join(root, fmt.Sprintf("dir%d", d)) }

// Archive is a tar file of 10,000 small files.
func (f *Fixtures) Archive() (string, error) {
	dir, err := f.make("archive", func(dir string) error {
		src := filepath.Join(dir, "src")
		small := func(r *rand.Rand) int { return r.IntN(16 << 10) }
		if err := fillTree(src, f.count(10_000), small); err != nil {
			return err
		}
		return run("tar", "-C", src, "-cf", filepath.Join(dir, "archive.tar"), ".")
	})
	return filepath.Join(dir, "archive.tar"), err
}

// run runs a program; what it writes to stderr is in the error.
func run(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return nil
}
