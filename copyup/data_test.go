package copyup

import (
	"bytes"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func tempFile(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestReadWrite covers the way that is left where neither reflink nor copy_file_range(2) work.
func TestReadWrite(t *testing.T) {
	content := make([]byte, 3*bufferSize+777)
	rand.New(rand.NewSource(1)).Read(content)
	src, dst := tempFile(t, content), tempFile(t, nil)
	c := copier{dst: int(dst.Fd()), src: int(src.Fd())}
	if err := c.copyRange(0, int64(len(content))); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v: not the source's", len(got), err)
	}
	if c.written != int64(len(content)) {
		t.Errorf("%d bytes counted, want %d", c.written, len(content))
	}
}

// TestCopyFileRangeFallsBack has a source that copy_file_range(2) does not copy from, whatever the kernel:
// one made up as it is read is 0 bytes or EXDEV.
func TestCopyFileRangeFallsBack(t *testing.T) {
	src, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip("no procfs")
	}
	defer src.Close()
	dst := tempFile(t, nil)
	c := copier{dst: int(dst.Fd()), src: int(src.Fd()), inKernel: true}
	if err := c.copyRange(0, 10); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || string(got[:5]) != "Name:" {
		t.Errorf("%q, %v", got, err)
	}
	if c.inKernel {
		t.Error("copy_file_range is still believed to work")
	}
}

func TestSourceThatEndsEarly(t *testing.T) {
	for _, inKernel := range []bool{true, false} {
		src, dst := tempFile(t, make([]byte, 1000)), tempFile(t, nil)
		c := copier{dst: int(dst.Fd()), src: int(src.Fd()), inKernel: inKernel}
		if err := c.copyRange(0, 2000); !errors.Is(err, ErrLowerChanged) || !errors.Is(err, unix.EIO) {
			t.Errorf("in kernel %v: error %v, want ErrLowerChanged", inKernel, err)
		}
	}
}

func TestUnchanged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(f *os.File) error
		want   error
	}{
		{"nothing", func(*os.File) error { return nil }, nil},
		{"mode", func(f *os.File) error { return f.Chmod(0o400) }, nil},
		{"size", func(f *os.File) error { return f.Truncate(1) }, ErrLowerChanged},
		{"content", func(f *os.File) error {
			_, err := f.WriteAt([]byte("x"), 0)
			return errors.Join(err, os.Chtimes(f.Name(), time.Unix(1, 0), time.Unix(1, 0))) // clocks are coarse
		}, ErrLowerChanged},
	} {
		f := tempFile(t, []byte("data"))
		var before unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &before); err != nil {
			t.Fatal(err)
		}
		if err := tt.change(f); err != nil {
			t.Fatal(err)
		}
		if err := unchanged(int(f.Fd()), &before, true); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestNextDataWithoutSeeking: where the filesystem does not tell data from holes, all is data.
func TestNextDataWithoutSeeking(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if start, end := nextData(int(r.Fd()), 10, 100); start != 10 || end != 100 {
		t.Errorf("data from %d to %d, want 10 to 100", start, end)
	}
}
