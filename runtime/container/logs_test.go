package container

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// logged is a container of whose log nothing but the files is there: the oldest first.
func logged(t *testing.T, files ...[]logEntry) *Container {
	t.Helper()
	conf := api.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1g", "max-file": strconv.Itoa(len(files) + 1)}}
	c := &Container{s: &Store{root: t.TempDir()}, r: &record{ID: "c", HostConfig: &api.HostConfig{LogConfig: conf}}}
	if err := os.MkdirAll(c.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, entries := range files {
		l, err := openLog(rotated(c.logPath(), len(files)-1-i), logConfig{maxFiles: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := l.write(e); err != nil {
				t.Fatal(err)
			}
		}
		l.close()
	}
	return c
}

func TestTail(t *testing.T) {
	at := func(s int, log string) logEntry {
		return logEntry{Log: log, Stream: "stdout", Time: time.Unix(int64(s), 0)}
	}
	for _, tt := range []struct {
		name  string
		files [][]logEntry
		o     LogsOptions
		want  []string // by Tail
	}{
		{"nothing", [][]logEntry{{}}, LogsOptions{}, []string{"", ""}},
		{"lines", [][]logEntry{{at(1, "a\n"), at(1, "b"), at(1, "c\n"), at(2, "d\n")}}, LogsOptions{},
			[]string{"", "d\n", "bc\nd\n", "a\nbc\nd\n", "a\nbc\nd\n"}},
		{"no newline at the end", [][]logEntry{{at(1, "a\n"), at(1, "b")}}, LogsOptions{}, []string{"", "b", "a\nb", "a\nb"}},
		{"rotated", [][]logEntry{{at(1, "a\n"), at(1, "b\n")}, {}, {at(2, "c\n")}, {at(3, "d\n")}}, LogsOptions{},
			[]string{"", "d\n", "c\nd\n", "b\nc\nd\n", "a\nb\nc\nd\n"}},
		{"rotated in a line", [][]logEntry{{at(1, "a\n"), at(1, "b1")}, {at(1, "b2")}, {at(1, "b3\n"), at(2, "c\n")}}, LogsOptions{},
			[]string{"", "c\n", "b1b2b3\nc\n", "a\nb1b2b3\nc\n"}},
		{"since", [][]logEntry{{at(1, "a\n"), at(2, "b\n")}, {at(3, "c\n")}}, LogsOptions{Since: time.Unix(2, 0)},
			[]string{"", "c\n", "b\nc\n", "b\nc\n"}},
		{"until", [][]logEntry{{at(1, "a\n"), at(2, "b\n")}, {at(3, "c\n")}}, LogsOptions{Until: time.Unix(2, 0)},
			[]string{"", "b\n", "a\nb\n", "a\nb\n"}},
		{"nothing in the interval", [][]logEntry{{at(1, "a\n")}}, LogsOptions{Since: time.Unix(2, 0)}, []string{"", "", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := logged(t, tt.files...)
			for n, want := range tt.want {
				var out bytes.Buffer
				tt.o.Stdout, tt.o.Tail = &out, n
				if err := c.Logs(context.Background(), tt.o); err != nil || out.String() != want {
					t.Errorf("the last %d: %q, %v; want %q", n, out.String(), err, want)
				}
			}
		})
	}
}

// However many lines are asked for, and there are.
func TestTailOfMany(t *testing.T) {
	const all = 5 * maxMarks
	var entries []logEntry
	for i := range all {
		entries = append(entries, logEntry{Log: strconv.Itoa(i) + "\n", Stream: "stdout"})
	}
	c := logged(t, entries[:maxMarks], entries[maxMarks:])
	for _, n := range []int{1, maxMarks, 2*maxMarks + 1, 3*maxMarks - 1, 3*maxMarks + 1, all - 1, all, all + 1, 1 << 40} {
		var out bytes.Buffer
		if err := c.Logs(context.Background(), LogsOptions{Stdout: &out, Tail: n}); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(out.String(), "\n")
		if got, want := strings.Count(out.String(), "\n"), min(n, all); got != want || first != strconv.Itoa(all-want) {
			t.Errorf("the last %d: %d lines from %s on, want %d", n, got, first, want)
		}
		l := newLineMarks(n)
		for i := range all {
			l.add(0, int64(i), true)
			if len(l.list) > 2*maxMarks+2 {
				t.Fatalf("the last %d: %d places are kept", n, len(l.list))
			}
		}
	}
}

// heapAt measures what is held when the first line is printed.
type heapAt struct {
	held  uint64 // bytes
	wrote int
}

func (h *heapAt) Write(p []byte) (int, error) {
	if h.wrote == 0 {
		h.held = heapHeld()
	}
	h.wrote += len(p)
	return len(p), nil
}

func heapHeld() uint64 {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A line that is longer than the memory that the container may have is none of who reads it.
func TestTailOfLongLine(t *testing.T) {
	const parts = 2000 // 32 MB
	entries := slices.Repeat([]logEntry{{Log: strings.Repeat("x", maxLine), Stream: "stdout"}}, parts)
	c := logged(t, append(entries, logEntry{Log: "\n", Stream: "stdout"}, logEntry{Log: "end\n", Stream: "stdout"}))
	var h heapAt
	before := heapHeld()
	if err := c.Logs(context.Background(), LogsOptions{Stdout: &h, Tail: 2}); err != nil {
		t.Fatal(err)
	}
	if want := parts*maxLine + len("\nend\n"); h.wrote != want {
		t.Errorf("%d bytes of %d", h.wrote, want)
	}
	if h.held > before+4<<20 {
		t.Errorf("%d KiB are held for a line of %d", (h.held-before)>>10, parts*maxLine>>10)
	}
}

// What a crash of the machine leaves in a log may be of any length, and the longest entry is none of it.
func TestReadLogPastGarbage(t *testing.T) {
	worst := logEntry{Log: strings.Repeat("\x01", maxLine), Stream: "stdout"}
	c := logged(t, []logEntry{{Log: "a\n", Stream: "stdout"}})
	f, err := os.OpenFile(c.logPath(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const hole = 64 << 20
	fi, err := f.Stat()
	if err == nil {
		err = f.Truncate(fi.Size() + hole)
	}
	if err == nil {
		_, err = f.WriteString("\n{\"log\":\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(c.logPath(), logConfig{maxFiles: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.write(worst); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	before := m.TotalAlloc
	if err := c.Logs(context.Background(), LogsOptions{Stdout: &out, Tail: -1}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a\n"+worst.Log {
		t.Errorf("%d bytes, want those of the two entries", out.Len())
	}
	goruntime.ReadMemStats(&m)
	if used := m.TotalAlloc - before; used > hole/8 {
		t.Errorf("%d KiB were used for %d of garbage", used>>10, hole>>10)
	}
}

// TestMoreEventsThanAreKept: whoever waits, and is slow to look, misses events and nothing else.
func TestMoreEventsThanAreKept(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if kept > 1<<17 {
		t.Skipf("needs fs.inotify.max_queued_events below %d", 1<<17)
	}
	c := logged(t, nil)
	// Two files in turn: the same event twice is one.
	var files [2]*os.File
	for i := range files {
		if files[i], err = os.Create(filepath.Join(c.dir(), strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	happen := func(events int) {
		for i := range events {
			if _, err := files[i%2].WriteAt([]byte("x"), 0); err != nil {
				t.Error(err)
			}
		}
	}
	looks := 0
	err = c.waitFor(t.Context(), func() (bool, error) {
		if looks%kept == 0 {
			happen(2 * kept) // while nobody looks
		}
		looks++
		return looks > 3*kept, nil
	})
	if err != nil {
		t.Errorf("after %d looks: %v", looks, err)
	}
}
