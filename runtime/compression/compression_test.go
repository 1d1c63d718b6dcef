package compression

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tool runs a program of the machine on text.
func tool(t testing.TB, text []byte, argv ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("needs %s", argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, stderr.String())
	}
	return out.Bytes()
}

// sample is text that has everything: noise, repetitions near and far.
func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		switch r.IntN(3) {
		case 0:
			fmt.Fprintf(&b, "line %d of a file\n", r.IntN(1000))
		case 1:
			noise := make([]byte, 100)
			for i := range noise {
				noise[i] = byte(r.Uint32())
			}
			b.Write(noise)
		case 2:
			if at := b.Len(); at > 0 {
				from := r.IntN(at)
				b.Write(bytes.Clone(b.Bytes()[from:min(from+500, at)]))
			}
		}
	}
	return b.Bytes()[:n]
}

func read(t testing.TB, compressed []byte) ([]byte, error) {
	t.Helper()
	z, err := Open(t.Context(), bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(z)
	if closeErr := z.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return b, err
}

var tools = []struct {
	argv []string
	kind Kind
}{
	{[]string{"cat"}, Plain},
	{[]string{"gzip", "-1"}, Gzip},
	{[]string{"gzip", "-9"}, Gzip},
	{[]string{"bzip2", "-1"}, Bzip2},
	{[]string{"bzip2", "-9"}, Bzip2},
	{[]string{"xz", "-0"}, XZ},
	{[]string{"xz", "-9e"}, XZ},
	{[]string{"xz", "--check=none"}, XZ},
	{[]string{"xz", "--check=crc32"}, XZ},
	{[]string{"xz", "--check=sha256"}, XZ},
	{[]string{"xz", "-T2", "--block-size=64KiB"}, XZ},
	{[]string{"xz", "--x86", "--delta=dist=2", "--lzma2=preset=6"}, XZ},
	{[]string{"zstd", "-c", "-1"}, Zstd},
	{[]string{"zstd", "-c", "-19"}, Zstd},
	{[]string{"zstd", "-c", "--long=27"}, Zstd},
}

// TestTools: what the usual programs compress is read, one stream or several of them.
func TestTools(t *testing.T) {
	for _, tt := range tools {
		t.Run(strings.Join(tt.argv, " "), func(t *testing.T) {
			for _, size := range []int{0, 1, 700, 1 << 20} {
				text := sample(size)
				z := tool(t, text, tt.argv...)
				if got := Detect(z[:min(len(z), HeadSize)]); got != tt.kind {
					t.Errorf("%d bytes: kind %d, want %d", size, got, tt.kind)
				}
				if got, err := read(t, z); err != nil || !bytes.Equal(got, text) {
					t.Errorf("%d bytes: %d, %v", size, len(got), err)
				}
				if got, err := read(t, append(bytes.Clone(z), z...)); err != nil || !bytes.Equal(got, append(bytes.Clone(text), text...)) {
					t.Errorf("twice %d bytes: %d, %v", size, len(got), err)
				}
			}
		})
	}
}

// TestDamaged: what is cut off or changed is an error that names the compression, and not other text.
func TestDamaged(t *testing.T) {
	text := sample(100_000)
	for _, command := range []string{"gzip", "bzip2", "xz -0", "xz -T2 --block-size=16KiB", "zstd -c"} {
		t.Run(command, func(t *testing.T) {
			argv := strings.Fields(command)
			whole := tool(t, text, argv...)
			r := rand.New(rand.NewPCG(3, 4))
			for range 50 {
				cut := whole[:HeadSize+r.IntN(len(whole)-HeadSize)]
				if got, err := read(t, cut); err == nil || !strings.HasPrefix(err.Error(), argv[0]) {
					t.Errorf("the first %d of %d bytes: %d bytes, %v", len(cut), len(whole), len(got), err)
				}
				// Not at the beginning, where it would be something else: nor in fields of gzip's header that mean nothing.
				changed := bytes.Clone(whole)
				at := HeadSize + r.IntN(len(whole)-HeadSize)
				changed[at] ^= 1 << r.IntN(8)
				got, err := read(t, changed)
				if err == nil && !bytes.Equal(got, text) {
					t.Errorf("byte %d of %d changed: other text without an error", at, len(whole))
				}
				if err != nil && !strings.HasPrefix(err.Error(), argv[0]) {
					t.Errorf("byte %d of %d changed: %v", at, len(whole), err)
				}
			}
		})
	}
}

// TestDetect: names of files that look like the beginning of a stream are none.
func TestDetect(t *testing.T) {
	for _, head := range []string{"", "B", "BZh9", "BZh9/usr/lib\x00\x00", "BZh91AY&S", "\x1f\x8b", "\xfd7zXZ", "PK\x03\x04", "Q*M", "ustar"} {
		if got := Detect([]byte(head)); got != Plain {
			t.Errorf("%q is %d, want %d", head, got, Plain)
		}
	}
	if got := Detect([]byte("\x5a\x2a\x4d\x18\x04\x00\x00\x00")); got != Zstd {
		t.Errorf("a frame that is skipped is %d, want %d", got, Zstd)
	}
}

// TestTooMuchMemory: a stream that asks for more is refused before anything is read of it.
func TestTooMuchMemory(t *testing.T) {
	for _, tt := range []struct{ argv, want string }{
		{"xz --lzma2=dict=96MiB", "xz: needs a dictionary of more than 67108864 bytes"},
		{"zstd -c -1 --long=28", "zstd: needs a window of 268435456 bytes, more than 134217728"},
	} {
		z := tool(t, sample(1000), strings.Fields(tt.argv)...)
		if got, err := read(t, z); err == nil || err.Error() != tt.want || len(got) != 0 {
			t.Errorf("%s: %d bytes, %v; want %q", tt.argv, len(got), err, tt.want)
		}
	}
}

// TestMemoryIsShared: who needs much waits for the others, and may give up.
func TestMemoryIsShared(t *testing.T) {
	z := tool(t, sample(1000), "xz")
	first, err := Open(t.Context(), bytes.NewReader(z))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if second, err := Open(ctx, bytes.NewReader(z)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second: %v, %v; want %v", second, err, context.DeadlineExceeded)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	// One that cannot be begun keeps nothing.
	if _, err := read(t, z[:8]); err == nil {
		t.Error("8 bytes are no error")
	}
	if _, err := read(t, z); err != nil {
		t.Error(err)
	}
}

// FuzzOpen: no stream makes us crash, or go on for ever.
func FuzzOpen(f *testing.F) {
	for _, tt := range tools {
		f.Add(tool(f, sample(2000), tt.argv...))
	}
	f.Fuzz(func(t *testing.T, compressed []byte) {
		z, err := Open(t.Context(), bytes.NewReader(compressed))
		if err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, z, 1<<20)
		if err := z.Close(); err != nil {
			t.Error(err)
		}
	})
}
