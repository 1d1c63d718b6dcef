package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// bigBlocks is how many blocks of 1 MiB a big file has, and randomOps how many blocks of 4 KiB are read or written at random.
const (
	bigBlocks = 512
	blockSize = 1 << 20
	randomOps = 20_000
	pageSize  = 4 << 10
)

// fillBlock makes the i-th block unlike the others.
func fillBlock(block []byte, i int) {
	for j := 0; j < len(block); j += 8 {
		binary.LittleEndian.PutUint64(block[j:], uint64(i)<<32|uint64(j))
	}
}

// writeBig writes a file of n blocks.
func writeBig(path string, n int) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	block := make([]byte, blockSize)
	for i := range n {
		fillBlock(block, i)
		if _, err := f.Write(block); err != nil {
			return "", errors.Join(err, f.Close())
		}
	}
	return "", f.Close()
}

// readBig reads a file in blocks of 1 MiB.
func readBig(path string) (string, error) {
	n, sum, err := contentSum(path, make([]byte, blockSize))
	return fmt.Sprintf("%d bytes, sum %016x", n, sum), err
}

// offsets are those of pages of a file, the same for everybody.
func offsets(size int64, n int) []int64 {
	r := rand.New(rand.NewPCG(3, 4))
	list := make([]int64, n)
	for i := range list {
		list[i] = r.Int64N(size/pageSize) * pageSize
	}
	return list
}

// readRandom reads n pages of a file.
func readRandom(path string, n int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	page := make([]byte, pageSize)
	var sum uint64
	for _, at := range offsets(info.Size(), n) {
		if _, err := f.ReadAt(page, at); err != nil {
			return "", err
		}
		sum += maphash.Bytes(seed, page)
	}
	return fmt.Sprintf("%d pages, sum %016x", n, sum), nil
}

// writeRandom writes n pages of a file that is there.
func writeRandom(path string, n int) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	info, err := f.Stat()
	if err != nil {
		return "", errors.Join(err, f.Close())
	}
	page := make([]byte, pageSize)
	for i, at := range offsets(info.Size(), n) {
		fillBlock(page, i)
		if _, err := f.WriteAt(page, at); err != nil {
			return "", errors.Join(err, f.Close())
		}
	}
	return "", f.Close()
}

// mapped calls do with a file's memory.
func mapped(path string, flags, prot int, do func(mem []byte) error) (err error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap %s: %w", path, err)
	}
	return errors.Join(do(mem), unix.Munmap(mem))
}

// readMapped reads a file through its mapping, one end to the other.
func readMapped(path string) (string, error) {
	var saw string
	err := mapped(path, os.O_RDONLY, unix.PROT_READ, func(mem []byte) error {
		saw = fmt.Sprintf("%d bytes, sum %016x", len(mem), maphash.Bytes(seed, mem))
		return nil
	})
	return saw, err
}

// writeMapped changes n pages of a file through its mapping, and waits until they are written.
func writeMapped(path string, n int) (string, error) {
	return "", mapped(path, os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE, func(mem []byte) error {
		for i, at := range offsets(int64(len(mem)), n) {
			fillBlock(mem[at:at+pageSize], i)
		}
		return unix.Msync(mem, unix.MS_SYNC)
	})
}
