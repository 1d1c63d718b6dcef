package bench

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// walk stats every object of the tree, as find -size does.
func walk(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = d.Info()
		return err
	})
}

// readAll reads every file of the tree to its end.
func readAll(dir string) error {
	buf := make([]byte, 128<<10)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return readFile(path, buf)
	})
}

func readFile(path string, buf []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		_, err := f.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// appendAll adds a byte to every file of the tree.
func appendAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte{'x'}); err != nil {
			return errors.Join(err, f.Close())
		}
		return f.Close()
	})
}

// statMissing asks for n names that are not there, in all directories of Layers in turn.
func statMissing(dir, prefix string, n int) error {
	var st unix.Stat_t
	for i := range n {
		path := filepath.Join(layerDir(dir, i%layerDirs), fmt.Sprintf("%s-%d", prefix, i))
		if err := unix.Lstat(path, &st); err != unix.ENOENT {
			return fmt.Errorf("lstat %s: %v, want ENOENT", path, err)
		}
	}
	return nil
}

// list reads the names in a directory, n of them.
func list(dir string, n int) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err == nil && len(names) != n {
		err = fmt.Errorf("%s has %d names, want %d", dir, len(names), n)
	}
	return err
}

// churn creates, stats, renames and unlinks n files.
func churn(dir string, n int) error {
	var st unix.Stat_t
	for i := range n {
		a, b := filepath.Join(dir, fmt.Sprintf("a%d", i)), filepath.Join(dir, fmt.Sprintf("b%d", i))
		if err := os.WriteFile(a, []byte("x"), 0o644); err != nil {
			return err
		}
		if err := unix.Lstat(a, &st); err != nil {
			return err
		}
		if err := os.Rename(a, b); err != nil {
			return err
		}
		if err := os.Remove(b); err != nil {
			return err
		}
	}
	return nil
}

// bigBlocks is how many blocks of 1 MiB a big file has.
const bigBlocks = 512

// writeBig writes a file of n blocks.
func writeBig(path string, n int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	for range n {
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// readBig reads a file in blocks of 1 MiB.
func readBig(path string) error { return readFile(path, make([]byte, 1<<20)) }
