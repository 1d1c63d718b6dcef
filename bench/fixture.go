package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Fixtures are what workloads work on: trees that are made once, when first asked for, and only read from then on.
type Fixtures struct {
	Dir   string  // where they are made
	Scale float64 // of the number and size of objects; 1 is what the names of workloads say

	// Rootfs is a tar file of a system's root to work on; where it is empty, NoRootfs says why.
	Rootfs, NoRootfs string

	Bin   string // directory with lamina and laminafs
	NoFio bool   // own loops, even where fio is installed

	// Remove removes a tree in which files may belong to others than the caller; nil: os.RemoveAll.
	Remove func(dir string) error

	right   map[string][]string // what a workload gives on the plain directory
	failed  map[string]error    // of what could not be made
	orphans *orphans            // nil until launchers are measured
	places  int                 // how many directories launchers were given
}

// Close ends what launchers have left behind. The trees stay.
func (f *Fixtures) Close() error {
	if f.orphans == nil {
		return nil
	}
	return f.orphans.close()
}

// count scales a number of objects.
func (f *Fixtures) count(n int) int { return max(1, int(float64(n)*f.Scale)) }

// make returns the directory name, filled by fill if it is not there yet.
func (f *Fixtures) make(name string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(f.Dir, name)
	if err := f.failed[name]; err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = fill(dir)
	}
	if err != nil {
		err = fmt.Errorf("make %s: %w", name, err)
		if f.failed == nil {
			f.failed = map[string]error{}
		}
		f.failed[name] = err
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// remove removes what a launcher has made.
func (f *Fixtures) remove(dir string) error {
	if f.Remove == nil {
		return os.RemoveAll(dir)
	}
	return f.Remove(dir)
}

// single makes Layers of one directory, which is the plain directory too.
func single(dir string, err error) (*Layers, error) {
	return &Layers{Lowers: []string{dir}, Plain: dir}, err
}

// merged makes Layers whose plain directory is beside them, the lowest copied first.
func (f *Fixtures) merged(name string, lowers []string) (*Layers, error) {
	plain, err := f.make(name+"-plain", func(dir string) error {
		for i := len(lowers) - 1; i >= 0; i-- {
			if err := run("cp", "-a", lowers[i]+"/.", dir); err != nil {
				return err
			}
		}
		return nil
	})
	return &Layers{Lowers: lowers, Plain: plain}, err
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
		from := r.IntN(1 << 10) // not all the same
		n := size(r)
		if err := os.WriteFile(filepath.Join(parent, fmt.Sprintf("file%d", i)), data[from:max(from, min(from+n, len(data)))], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Small is a layer of 2,000 files of 4 KiB.
func (f *Fixtures) Small() (*Layers, error) {
	return single(f.make("small", func(dir string) error {
		return fillTree(dir, f.count(2_000), func(*rand.Rand) int { return 4 << 10 })
	}))
}

// Empty is a layer with nothing in it.
func (f *Fixtures) Empty() (*Layers, error) {
	return single(f.make("empty", func(string) error { return nil }))
}

// BigDir is a layer with one directory, "big", of n empty files.
func (f *Fixtures) BigDir(n int) (*Layers, error) {
	return single(f.make(fmt.Sprintf("bigdir%d", n), func(dir string) error {
		return fillDir(filepath.Join(dir, "big"), f.count(n))
	}))
}

func fillDir(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, nameOf(i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// nameOf is the name of the i-th file of a large directory.
func nameOf(i int) string { return fmt.Sprintf("some-name-%d", i) }

// ManyFiles is a layer of 1,000 directories with 1,000 empty files each.
func (f *Fixtures) ManyFiles() (*Layers, error) {
	return single(f.make("many", func(top string) error {
		for i := range f.count(1000) {
			if err := fillDir(filepath.Join(top, fmt.Sprintf("dir-%d", i)), 1000); err != nil {
				return err
			}
		}
		return nil
	}))
}

// manyObjects is how many objects ManyFiles has.
func (f *Fixtures) manyObjects() int64 { return int64(f.count(1000)) * 1001 }

// BigFile is a layer with one file, "big", of 512 MiB.
func (f *Fixtures) BigFile() (*Layers, error) {
	return single(f.make("bigfile", func(dir string) error {
		_, err := writeBig(filepath.Join(dir, "big"), f.count(bigBlocks))
		return err
	}))
}

// layerDirs is how many directories each of the Layers has, all the same: 100, or a few where everything is small.
func (f *Fixtures) layerDirs() int { return max(10, f.count(100)) }

// Layers are n layers, all with the same directories "dir0"..., each with a file of its own in every tenth.
func (f *Fixtures) Layers(n int) (*Layers, error) {
	name := fmt.Sprintf("l%d", n) // 500 of them are in one option
	top, err := f.make(name, func(top string) error {
		for i := range n {
			if err := f.fillLayer(filepath.Join(top, fmt.Sprint(i)), i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := &Layers{}
	for i := range n {
		all.Lowers = append(all.Lowers, filepath.Join(top, fmt.Sprint(i)))
	}
	all.Plain, err = f.make(name+"-plain", func(plain string) error {
		for i := range n {
			if err := f.fillLayer(plain, i); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

// fillLayer adds what the i-th of the Layers has.
func (f *Fixtures) fillLayer(layer string, i int) error {
	for d := range f.layerDirs() {
		dir := layerDir(layer, d)
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
	return nil
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
		if err := run("tar", "-C", src, "-cf", filepath.Join(dir, "archive.tar"), "."); err != nil {
			return err
		}
		return os.RemoveAll(src)
	})
	return filepath.Join(dir, "archive.tar"), err
}

// run runs a program; what it writes is in the error.
func run(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(4, len(argv))], " "), err, tail(out))
	}
	return nil
}

// tail is the end of what a program has written.
func tail(out []byte) string {
	const enough = 500
	return strings.TrimSpace(string(out[max(0, len(out)-enough):]))
}
