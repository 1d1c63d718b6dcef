package image

import (
	"bytes"
	"hash/crc64"
	"math/rand/v2"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"
)

func TestCRC64(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 5000)
	_, _ = random.Read(data) // never fails
	for n := range 600 {
		same(t, data[:n], n/2)
	}
	for _, n := range []int{1000, 4095, 4096, 5000} {
		same(t, data[:n], n/3)
		same(t, bytes.Repeat([]byte{0}, n), 7)
		same(t, bytes.Repeat([]byte{0xff}, n), 64)
	}
}

func FuzzCRC64(f *testing.F) {
	f.Add([]byte("abc"), 1)
	f.Add(make([]byte, 300), 100)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		if at >= 0 && at <= len(data) {
			same(t, data, at)
		}
	})
}

// same compares with hash/crc64, for data written in two pieces.
func same(t *testing.T, data []byte, at int) {
	t.Helper()
	want := crc64.Checksum(data, storage.CRCTable)
	for _, write := range []func(*isoCRC, []byte){(*isoCRC).write, (*isoCRC).writeShifts} {
		var c isoCRC
		write(&c, data[:min(at, len(data))])
		write(&c, data[min(at, len(data)):])
		if c.sum() != want {
			t.Fatalf("%d bytes in two pieces, the first of %d: %x, want %x", len(data), at, c.sum(), want)
		}
	}
}

func BenchmarkCRC64(b *testing.B) {
	data := make([]byte, chunkSize)
	b.SetBytes(chunkSize)
	for b.Loop() {
		var c isoCRC
		c.write(data)
	}
}
