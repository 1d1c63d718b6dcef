package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/runtime/layertar"
	"golang.org/x/sys/unix"
)

// patch writes an entry's header block with a field overwritten, which tar.Writer would not let be written.
func patch(t testing.TB, e entry, offset int, value string) []byte {
	t.Helper()
	b := archive(t, e)
	copy(b[offset:], value)
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// Offsets of fields in a ustar header.
const (
	offUID  = 108
	offSize = 124
	offType = 156
)

// concat puts pieces of tars together.
func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// unended cuts off the two blocks of zeros that end an archive.
func unended(b []byte) []byte { return b[:len(b)-1024] }

// TestHostile: each is refused with an error that names the entry, and what lies outside the layer is as it was.
func TestHostile(t *testing.T) {
	deep := strings.Repeat("d/", 600)
	tests := []struct {
		name    string
		layer   []byte
		want    error  // ErrInvalid where nil
		mention string // what the error must say
	}{
		{"dot dot", archive(t, file("../victim", "new")), nil, `"../victim"`},
		{"dot dot behind a directory", archive(t, dir("a/", 0o755), file("a/../../victim", "new")), nil, `"a/../../victim"`},
		{"dot dot that stays inside", archive(t, dir("a/", 0o755), file("a/../b", "new")), nil, `".."`},
		{"dot dot at the end", archive(t, dir("a/..", 0o777)), nil, `".."`},
		{"dot dot absolute", archive(t, file("/../victim", "new")), nil, `".."`},
		{"link in the middle", archive(t, link(tar.TypeSymlink, "a", ".."), file("a/victim", "new")), nil, "symbolic link"},
		{"absolute link in the middle", archive(t, link(tar.TypeSymlink, "a", "/tmp"), file("a/victim", "new")), nil, "symbolic link"},
		{"link to the layer's inside in the middle", archive(t, dir("b/", 0o755), link(tar.TypeSymlink, "a", "b"), file("a/x", "")), nil, "symbolic link"},
		{"directory below a link", archive(t, link(tar.TypeSymlink, "a", ".."), dir("a/b/", 0o755)), nil, "symbolic link"},
		{"whiteout below a link", archive(t, link(tar.TypeSymlink, "a", ".."), file("a/.wh.victim", "")), nil, "symbolic link"},
		{"file in the middle", archive(t, file("a", ""), file("a/b", "")), nil, "not a directory"},
		{"fifo in the middle", archive(t, link(tar.TypeFifo, "a", ""), file("a/b", "")), nil, "not a directory"},
		{"hard link to outside", archive(t, link(tar.TypeLink, "a", "../victim")), nil, `"../victim"`},
		{"hard link to outside, absolute", archive(t, link(tar.TypeLink, "a", "/etc/passwd")), nil, "no such entry"},
		{"hard link through a link", archive(t, link(tar.TypeSymlink, "up", ".."), link(tar.TypeLink, "a", "up/victim")), nil, "symbolic link"},
		{"hard link to a directory", archive(t, dir("d/", 0o755), link(tar.TypeLink, "a", "d")), nil, "directory"},
		{"hard link to the root", archive(t, link(tar.TypeLink, "a", ".")), nil, "root"},
		{"hard link to a later entry", archive(t, link(tar.TypeLink, "a", "b"), file("b", "")), nil, "no such entry"},
		{"hard link to itself", archive(t, link(tar.TypeLink, "a", "a")), nil, "no such entry"},
		{"hard link to nothing", archive(t, link(tar.TypeLink, "a", "")), nil, "root"},
		{"hard link to what it replaces", archive(t, file("d/x", ""), link(tar.TypeLink, "d", "d/x")), unix.ENOENT, `"d"`},
		{"whiteout of dot dot", archive(t, file("a/.wh...", "")), nil, "whiteout"},
		{"whiteout of dot", archive(t, file("a/.wh..", "")), nil, "whiteout"},
		{"whiteout of nothing", archive(t, file("a/.wh.", "")), nil, "whiteout"},
		{"whiteout as a directory", archive(t, dir(".wh.a/", 0o755)), nil, "whiteout"},
		{"whiteout in the middle", archive(t, file(".wh.a/b", "")), nil, "whiteout"},
		{"whiteout as a link", archive(t, link(tar.TypeSymlink, ".wh.a", "/etc")), nil, "whiteout"},
		{"opaque mark as a directory", archive(t, dir(".wh..wh..opq", 0o755)), nil, "whiteout"},
		{"root that is a file", archive(t, file(".", "")), nil, "root"},
		{"root that is a link", archive(t, link(tar.TypeSymlink, ".", "/etc")), nil, "root"},
		{"unknown type", patch(t, file("a", ""), offType, "Z"), nil, "type"},
		{"multi-volume", patch(t, file("a", ""), offType, "M"), nil, "type"},
		{"owner below zero", patch(t, file("a", ""), offUID, "\xff\xff\xff\xff\xff\xff\xff\xff"), nil, "owner"},
		{"owner that means none", patch(t, file("a", ""), offUID, "\x80\x00\x00\x00\xff\xff\xff\xff"), nil, "owner"},
		{"device out of range", archive(t, entry{tar.Header{Name: "a", Typeflag: tar.TypeChar, Devmajor: 1 << 12, Format: tar.FormatGNU}, ""}), nil, "device"},
		{"too deep", archive(t, dir(deep, 0o755)), nil, "components"},
		{"longer than a path", archive(t, file(strings.Repeat("long/", 1000)+"x", "")), nil, "longer"},
		{"component longer than a name", archive(t, file(strings.Repeat("x", 300), "")), unix.ENAMETOOLONG, "xxx"},
		{"link without target", archive(t, link(tar.TypeSymlink, "a", "")), unix.ENOENT, `"a"`},
		{"link target longer than a path", archive(t, link(tar.TypeSymlink, "a", strings.Repeat("x", 5000))), unix.ENAMETOOLONG, `"a"`},
		{"huge file", patch(t, file("a", ""), offSize, "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), layertar.ErrTooLarge, `"a"`},
		{"size below zero", patch(t, file("a", ""), offSize, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), tar.ErrHeader, "first entry"},
		{"cut in a file", archive(t, file("before", ""), file("a", "0123456789"))[:512+512+5], io.ErrUnexpectedEOF, `"a"`},
		{"cut in a header", archive(t, file("before", ""), file("a", ""))[:512+100], io.ErrUnexpectedEOF, `"before"`},
		{"garbage", bytes.Repeat([]byte("garbage!"), 200), tar.ErrHeader, "first entry"},
		{"garbage after an entry", concat(unended(archive(t, file("before", ""))), bytes.Repeat([]byte("garbage!"), 200)), tar.ErrHeader, `"before"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, d := newDir(t)
			victim := filepath.Join(filepath.Dir(path), "victim")
			if err := os.WriteFile(victim, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := describe(t, filepath.Dir(path))
			_, err := layertar.Apply(t.Context(), d, bytes.NewReader(tt.layer), layertar.Options{})
			want := tt.want
			if want == nil {
				want = layertar.ErrInvalid
			}
			if !errors.Is(err, want) || !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("error %v; want %v that says %s", err, want, tt.mention)
			}
			after := describe(t, filepath.Dir(path))
			for name := range after {
				if name == "layer" || strings.HasPrefix(name, "layer/") {
					delete(after, name)
				}
			}
			delete(before, "layer")
			same(t, after, before)
		})
	}
}

// TestHarmless: odd, and found in images. They mean what Docker takes them for.
func TestHarmless(t *testing.T) {
	pax := func(e entry, records map[string]string) entry {
		e.Format, e.PAXRecords = tar.FormatPAX, records
		return e
	}
	gnu := func(e entry) entry { e.Format = tar.FormatGNU; return e }
	long := strings.Repeat("n", 200) + "/" + strings.Repeat("m", 200)
	tests := []struct {
		name  string
		layer []byte
		want  string // the names that are there
	}{
		{"empty", archive(t), ""},
		{"nothing at all", nil, ""},
		{"absolute name", archive(t, file("/a/b", "")), "a a/b"},
		{"dots and slashes", archive(t, file(".//a/./b//c", "")), "a a/b a/b/c"},
		{"root", archive(t, dir("./", 0o700), file("./a", "")), "a"},
		{"no end blocks", unended(archive(t, file("a", "data"))), "a"},
		{"one end block", archive(t, file("a", ""))[:1024], "a"},
		{"garbage after the end", concat(archive(t, file("a", "")), bytes.Repeat([]byte("x"), 100000)), "a"},
		{"another archive after the end", concat(archive(t, file("a", "")), archive(t, file("b", ""))), "a"},
		{"PAX long name", archive(t, pax(file(long, ""), nil)), strings.Repeat("n", 200) + " " + long},
		{"GNU long name", archive(t, gnu(file(long, ""))), strings.Repeat("n", 200) + " " + long},
		{"GNU long link", archive(t, gnu(link(tar.TypeSymlink, "a", strings.Repeat("x", 4000)))), "a"},
		{"not UTF-8", archive(t, gnu(file("\xff\xfe\n\x01", "")), pax(file("\xc3\x28", ""), nil)), "\xc3\x28 \xff\xfe\n\x01"},
		{"global header", archive(t, entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, ""}, file("a", "")), "a"},
		{"old file type", patch(t, file("a", ""), offType, "\x00"), "a"},
		{"contiguous file", patch(t, file("a", ""), offType, "7"), "a"},
		{"link to outside", archive(t, link(tar.TypeSymlink, "a", "/etc/passwd"), link(tar.TypeSymlink, "b", "../../x")), "a b"},
		{"hard link, absolute", archive(t, file("d/a", ""), link(tar.TypeLink, "b", "/d/a")), "b d d/a"},
		{"hard link to itself", archive(t, file("a", "data"), link(tar.TypeLink, "./a", "a")), "a"},
		{"hard link to a whiteout", archive(t, file(".wh.a", ""), link(tar.TypeLink, "d/.wh.b", ".wh.a")), ".wh.a d d/.wh.b"},
		{"whiteouts and opaque marks", archive(t, file("d/.wh..wh..opq", ""), dir("d/", 0o755), dir("e/", 0o755), file("e/x", ""),
			file("e/.wh..wh..opq", ""), file(".wh.f", ""), file("f", "")), ".wh.f d d/.wh..wh..opq e e/.wh..wh..opq e/x f"},
		{"what AUFS keeps", archive(t, dir(".wh..wh.plnk/", 0o700), file(".wh..wh.plnk/1.2", "data"), link(tar.TypeLink, "a", ".wh..wh.plnk/1.2")),
			".wh..wh.plnk .wh..wh.plnk/1.2 a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := apply(t, tt.layer, layertar.Options{})
			if got := names(describe(t, path)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestLaterEntryWins: of one name the last entry counts, whatever the types. A directory keeps what is in it.
func TestLaterEntryWins(t *testing.T) {
	kinds := map[string]entry{
		"file": file("x", "new"), "dir": dir("x/", 0o711), "symlink": link(tar.TypeSymlink, "x", "/etc"),
		"hard link": link(tar.TypeLink, "x", "other"), "fifo": link(tar.TypeFifo, "x", ""),
	}
	alone := map[string]string{}
	prepare := []entry{dir("./", 0o755), file("other", "data")}
	for kind, e := range kinds {
		alone[kind] = describe(t, apply(t, archive(t, append(prepare, e)...), layertar.Options{}))["x"]
	}
	for before, a := range kinds {
		for after, b := range kinds {
			first := []entry{a}
			if before == "dir" {
				first = append(first, file("x/in/deep", "data"), link(tar.TypeSymlink, "x/l", ".."))
			}
			tree := describe(t, apply(t, archive(t, append(append(prepare, first...), b)...), layertar.Options{}))
			if tree["x"] != alone[after] {
				t.Errorf("%s, then %s: %s, want %s", before, after, tree["x"], alone[after])
			}
			want := "other x"
			if before == "dir" && after == "dir" {
				want = "other x x/in x/in/deep x/l"
			}
			if names(tree) != want {
				t.Errorf("%s, then %s: %q, want %q", before, after, names(tree), want)
			}
		}
	}
}

// TestReplacedFileIsNotWrittenTo: another name of the old one keeps its content.
func TestReplacedFileIsNotWrittenTo(t *testing.T) {
	path := apply(t, archive(t, file("a", "old"), link(tar.TypeLink, "b", "a"), file("a", "new")), layertar.Options{})
	for name, want := range map[string]string{"a": "new", "b": "old"} {
		if got, err := os.ReadFile(filepath.Join(path, name)); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// endless gives zeros, or the same bytes again and again.
type endless struct {
	pattern []byte
	read    int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.pattern[e.read%int64(len(e.pattern)):])
	e.read += int64(n)
	return n, nil
}

func TestLimits(t *testing.T) {
	many := &endless{pattern: unended(archive(t, dir("a/", 0o755)))}
	names := &endless{pattern: unended(patch(t, file("a", "name"), offType, "L"))} // never an entry, only long names
	data := &endless{pattern: unended(archive(t, file("a", strings.Repeat("x", 1<<20))))}
	for _, tt := range []struct {
		name  string
		layer io.Reader
		o     layertar.Options
		want  error
	}{
		{"entries", many, layertar.Options{MaxEntries: 1000}, layertar.ErrTooLarge},
		{"bytes of the tar", many, layertar.Options{MaxSize: 1 << 20}, layertar.ErrTooLarge},
		{"headers without an entry", names, layertar.Options{MaxSize: 1 << 20}, layertar.ErrTooLarge},
		{"bytes of files", data, layertar.Options{MaxSize: 5<<20 - 1}, layertar.ErrTooLarge},
		{"zeros after the end", &endless{pattern: make([]byte, 512)}, layertar.Options{MaxSize: 1 << 20}, layertar.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, d := newDir(t)
			if _, err := layertar.Apply(t.Context(), d, tt.layer, tt.o); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	t.Run("exactly the limit", func(t *testing.T) {
		layer := archive(t, file("a", "1234"))
		_, d := newDir(t)
		n, err := layertar.Apply(t.Context(), d, bytes.NewReader(layer), layertar.Options{MaxSize: int64(len(layer)), MaxEntries: 1})
		if n != 4 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// TestCancel: an endless layer ends with its context, also where archive/tar reads on without an entry.
func TestCancel(t *testing.T) {
	for name, pattern := range map[string][]byte{
		"entries": unended(archive(t, file("a", "x"))),
		"names":   unended(patch(t, file("a", "name"), offType, "L")),
		"data":    append(unended(patch(t, file("a", ""), offSize, "\x80\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")), make([]byte, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			_, d := newDir(t)
			e := &endless{pattern: pattern}
			after := int64(1 << 20)
			_, err := layertar.Apply(ctx, d, readFunc(func(p []byte) (int, error) {
				if e.read > after {
					cancel()
				}
				return e.Read(p)
			}), layertar.Options{})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want Canceled", err)
			}
		})
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
