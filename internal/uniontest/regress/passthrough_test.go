package regress

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// passing mounts l with passthrough, which only root of the machine may.
func passing(t *testing.T, l *uniontest.Layers, opts ...string) *uniontest.Mount {
	t.Helper()
	m := uniontest.Start(t, uniontest.Laminafs, l, append(opts, "passthrough")...)
	if strings.Contains(m.Log(), "passthrough: not possible") {
		t.Skipf("needs a kernel with FUSE passthrough: %s", m.Log())
	}
	return m
}

// The rule of the option: what is written never goes to a lower file, whoever has it open already and however.
func TestPassthroughWritesToUpperOnly(t *testing.T) {
	l := newLayers(t)
	data := bytes.Repeat([]byte("lower"), 100_000)
	for _, name := range []string{"written", "truncated", "mapped", "appended"} {
		must(t, os.WriteFile(filepath.Join(l.Lowers[0], name), data, 0o644))
	}
	m := passing(t, l) // which compares the lowers at the end
	var readers []*os.File
	for _, name := range []string{"written", "truncated", "mapped", "appended"} {
		r, err := os.Open(filepath.Join(m.Dir(), name))
		must(t, err)
		defer r.Close()
		_, err = r.Read(make([]byte, 10))
		must(t, err)
		readers = append(readers, r)
	}
	for round := range 2 { // the first copies up, the second finds a file of the upper
		w, err := os.OpenFile(filepath.Join(m.Dir(), "written"), os.O_RDWR, 0)
		must(t, err)
		_, err = w.WriteAt([]byte("UPPER"), int64(round)*5)
		must(t, err, w.Close())

		w, err = os.OpenFile(filepath.Join(m.Dir(), "truncated"), os.O_RDWR|os.O_TRUNC, 0)
		must(t, err)
		_, err = w.Write([]byte("UPPER"))
		must(t, err, w.Close())

		w, err = os.OpenFile(filepath.Join(m.Dir(), "appended"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = w.Write([]byte("UPPER"))
		must(t, err, w.Close())

		w, err = os.OpenFile(filepath.Join(m.Dir(), "mapped"), os.O_RDWR, 0)
		must(t, err)
		mem, err := unix.Mmap(int(w.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		copy(mem[round*5:], "UPPER")
		must(t, unix.Msync(mem, unix.MS_SYNC), unix.Munmap(mem), w.Close())
	}
	over := append([]byte("UPPERUPPER"), data[10:]...)
	want := map[string][]byte{
		"written": over, "truncated": []byte("UPPER"), "mapped": over, "appended": append(bytes.Clone(data), "UPPERUPPER"...),
	}
	for i, name := range []string{"written", "truncated", "mapped", "appended"} {
		for _, path := range []string{filepath.Join(m.Dir(), name), filepath.Join(l.Upper, name), "/proc/self/fd/" + strconv.Itoa(int(readers[i].Fd()))} {
			got, err := os.ReadFile(path)
			must(t, err)
			if !bytes.Equal(got, want[name]) {
				t.Errorf("%s of %s holds %d bytes, %.20q; want %d, %.20q", path, name, len(got), got, len(want[name]), want[name])
			}
		}
	}
}

// A file of the upper is read and written without a request, and all who ask see what was written.
func TestPassthroughOfUpper(t *testing.T) {
	l := newLayers(t)
	m := passing(t, l)
	path := filepath.Join(m.Dir(), "file")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	defer f.Close()
	before := requestsOf(t, m)
	block := bytes.Repeat([]byte("x"), 4096)
	for i := range 200 {
		_, err := f.WriteAt(block, int64(i)*4096)
		must(t, err)
		st, err := os.Stat(path)
		must(t, err)
		if st.Size() != int64(i+1)*4096 {
			t.Fatalf("after %d blocks the size is %d", i+1, st.Size())
		}
		_, err = f.ReadAt(make([]byte, 4096), int64(i)*4096)
		must(t, err)
	}
	after := requestsOf(t, m)
	if n := after["WRITE"] + after["READ"] - before["WRITE"] - before["READ"]; n != 0 {
		t.Errorf("200 writes and reads sent %d requests", n)
	}
	// Through a mapping, and seen by others at once.
	mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(mem, "mapped")
	if got := read(t, path)[:6]; got != "mapped" {
		t.Errorf("beside a mapping %q is read", got)
	}
	must(t, unix.Munmap(mem))
	must(t, os.Rename(path, path+"2"), os.Remove(path+"2"))
	if _, err := f.WriteAt([]byte("unlinked"), 0); err != nil {
		t.Error(err)
	}
	got := make([]byte, 8)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "unlinked" {
		t.Errorf("of an unlinked file %q is read, %v", got, err)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	if st.Nlink != 0 || st.Size != 200*4096 {
		t.Errorf("an unlinked file has %d links and %d bytes", st.Nlink, st.Size)
	}
}

// Without an upper nobody writes, and files of lowers are passed through.
func TestPassthroughOfLower(t *testing.T) {
	l := newLayers(t)
	must(t, os.WriteFile(filepath.Join(l.Lowers[0], "big"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644))
	l.Upper = ""
	m := passing(t, l)
	f, err := os.Open(filepath.Join(m.Dir(), "big"))
	must(t, err)
	defer f.Close()
	for i := range 256 {
		got := make([]byte, 16)
		if _, err := f.ReadAt(got, int64(i*4096)); err != nil || string(got) != "0123456789abcdef" {
			t.Fatalf("at %d: %q, %v", i*4096, got, err)
		}
	}
	if n := requestsOf(t, m)["READ"]; n != 0 {
		t.Errorf("%d READ requests", n)
	}
	if _, err := os.OpenFile(filepath.Join(m.Dir(), "big"), os.O_RDWR, 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("open for writing: %v", err)
	}
}

// Who is not root of the machine is told so, and is served all the same.
func TestPassthroughWithoutPrivilege(t *testing.T) {
	for _, id := range []uniontest.Identity{uniontest.UserNS, uniontest.User} {
		uniontest.NeedFuse(t)
		l := uniontest.NewLayers(t, 1, uniontest.As(t, id))
		m := uniontest.Start(t, uniontest.Laminafs, l, "passthrough")
		uniontest.Run(t, m, "sh", "-c", fmt.Sprintf("cd %s && echo text >new && cat new", m.Dir()))
		if log := m.Log(); !strings.Contains(log, "passthrough: not possible") {
			t.Errorf("as %v the log says %q", id, log)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}
