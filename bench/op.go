package bench

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Operations return what they saw; two that saw the same return the same.

// walk stats every object of the tree, as find -size does.
func walk(dir string) (string, error) {
	var p print
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size := info.Size()
		if d.IsDir() {
			size = 0 // of a directory it is the filesystem's own business
		}
		p.add(path[len(dir):], size, uint64(info.Mode()))
		return nil
	})
	return p.String(), err
}

// statAll stats objects by their names, relative to the tree.
func statAll(dir string, names []string) (string, error) {
	var p print
	var st unix.Stat_t
	for _, name := range names {
		if err := unix.Lstat(dir+name, &st); err != nil {
			return "", &os.PathError{Op: "lstat", Path: dir + name, Err: err}
		}
		size := st.Size
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size = 0
		}
		p.add(name, size, uint64(st.Mode))
	}
	return p.String(), nil
}

// namesBelow lists all objects of a tree by their names, relative to it.
func namesBelow(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, path[len(dir):])
		}
		return err
	})
	return names, err
}

// listAll reads all directories of the tree, and nothing else.
func listAll(dir string) (string, error) {
	var p print
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			p.add(path[len(dir):], 0, uint64(d.Type()))
		}
		return err
	})
	return p.String(), err
}

// readAll reads every file of the tree to its end.
func readAll(dir string) (string, error) {
	var p print
	buf := make([]byte, 128<<10)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, sum, err := contentSum(path, buf)
		p.add(path[len(dir):], n, sum)
		return err
	})
	return p.String(), err
}

// readParallel reads every file of the tree, two readers for each CPU.
func readParallel(dir string) (string, error) {
	paths := make(chan string)
	prints := make([]print, 2*goruntime.NumCPU())
	var group errgroup.Group
	for i := range prints {
		group.Go(func() (err error) {
			buf := make([]byte, 128<<10)
			for path := range paths { // to the end, so that nobody waits to be read
				n, sum, e := contentSum(path, buf)
				prints[i].add(path[len(dir):], n, sum)
				err = errors.Join(err, e)
			}
			return err
		})
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths <- path
		}
		return err
	})
	close(paths)
	err = errors.Join(err, group.Wait())
	var all print
	for _, p := range prints {
		all.plus(p)
	}
	return all.String(), err
}

// grep is grep -r for a word that some files have.
func grep(dir string) (string, error) {
	cmd := exec.Command("grep", "-r", "-F", "-e", "unsafe.Pointer", "-e", "of a layer above", ".")
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("grep: %w: %s", err, tail([]byte(complaints.String())))
	}
	return linesPrint(string(out)), nil
}

// linesPrint tells lines apart, not their order.
func linesPrint(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return fmt.Sprintf("%d lines, sum %016x", len(lines), maphash.String(seed, strings.Join(lines, "\n")))
}

// appendAll adds a byte to every file of the tree.
func appendAll(dir string) (string, error) {
	var p print
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		p.add(path[len(dir):], 0)
		return appendByte(path)
	})
	return p.String(), err
}

func appendByte(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{'x'})
	return errors.Join(err, f.Close())
}

// statMissing asks for n names that are not there, in all dirs directories of Layers in turn.
func statMissing(dir, prefix string, dirs, n int) (string, error) {
	var st unix.Stat_t
	for i := range n {
		path := filepath.Join(layerDir(dir, i%dirs), fmt.Sprintf("%s-%d", prefix, i))
		if err := unix.Lstat(path, &st); err != unix.ENOENT {
			return "", fmt.Errorf("lstat %s: %v, want ENOENT", path, err)
		}
	}
	return fmt.Sprintf("%d names missing", n), nil
}

// list reads the names in a directory.
func list(dir string) (string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var p print
	for _, name := range names {
		p.add(name, 0)
	}
	return p.String(), err
}

// storm creates, stats, renames and unlinks n files, and leaves every tenth.
func storm(dir string, n int) (string, error) {
	var st unix.Stat_t
	for i := range n {
		a, b := filepath.Join(dir, fmt.Sprintf("a%d", i)), filepath.Join(dir, fmt.Sprintf("b%d", i))
		if err := os.WriteFile(a, []byte("x"), 0o644); err != nil {
			return "", err
		}
		if err := unix.Lstat(a, &st); err != nil || st.Size != 1 {
			return "", fmt.Errorf("lstat %s: %d bytes, error %v", a, st.Size, err)
		}
		if err := os.Rename(a, b); err != nil {
			return "", err
		}
		if i%10 == 0 {
			continue
		}
		if err := os.Remove(b); err != nil {
			return "", err
		}
	}
	return "", nil
}

// untar unpacks the archive.
func untar(dir, archive string) (string, error) {
	return "", run("tar", "-C", dir, "-xf", archive)
}

// removeAll is rm -rf of everything in the tree.
func removeAll(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	argv := []string{"rm", "-rf", "--"}
	for _, e := range entries {
		argv = append(argv, filepath.Join(dir, e.Name()))
	}
	return "", run(argv...)
}
