package model

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"math/rand/v2"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// TestReplay does again every sequence that has ever failed, on everything it has to hold for.
func TestReplay(t *testing.T) {
	uniontest.NeedRoot(t)
	paths, err := filepath.Glob("testdata/failures/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := ReadRecord(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		tried := append([]Target{{uniontest.Plain, ""}}, laminafsTargets...)
		if own := (Target{uniontest.Laminafs, rec.Options}); rec.Options != "" && !slices.Contains(tried, own) {
			tried = append(tried, own)
		}
		for _, tg := range tried {
			t.Run(filepath.Base(path)+"/"+tg.String(), func(t *testing.T) {
				if msg := Replay(t, tg, rec); msg != "" {
					t.Errorf("%s\n%s", msg, rec.Comment)
				}
			})
		}
	}
}

func TestRecordText(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	entries := RandomLayers(r, 3)
	tree := Merge(entries, Caps{TmpFile: true, ZeroRange: true})
	gen := NewGen(r, tree)
	rec := &Record{Comment: "why\n", Options: "whiteout=wh", Layers: entries}
	for range 2000 {
		op := gen.Next()
		tree.Apply(op)
		rec.Ops = append(rec.Ops, op)
	}
	var b bytes.Buffer
	if err := rec.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecord(&b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, rec) {
		t.Error("a record that is written and read is another one")
	}
}

// TestGenCoversAll sees that every operation is made up, and that it mostly succeeds.
func TestGenCoversAll(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	tree := Merge(RandomLayers(r, 3), Caps{TmpFile: true, ZeroRange: true, CollapseRange: true})
	gen := NewGen(r, tree)
	done, good := map[string]int{}, map[string]int{}
	for range 8000 {
		op := gen.Next()
		done[op.Kind]++
		if w := tree.Apply(op); w.Errno == 0 && !w.Skip {
			good[op.Kind]++
		}
	}
	kinds := strings.Fields(`open close read write pread pwrite seek truncate fallocate copy fsync seekdata seekhole
		mmap mread mwrite munmap mkdir mknod symlink link linkfd unlink rmdir rename readdir getdents rewind
		stat readlink chmod chown utimens setxattr getxattr listxattr removexattr`)
	for _, k := range kinds {
		if good[k] < 10 || good[k]*10 < done[k] {
			t.Errorf("%s: %d of %d succeed", k, good[k], done[k])
		}
	}
}

// TestSameSeedSameRun holds what LAMINA_SEED promises.
func TestSameSeedSameRun(t *testing.T) {
	run := func() string {
		r := rand.New(rand.NewPCG(9, 9))
		tree := Merge(RandomLayers(r, 4), Caps{TmpFile: true})
		gen := NewGen(r, tree)
		var b strings.Builder
		for range 3000 {
			op := gen.Next()
			tree.Apply(op)
			fmt.Fprintln(&b, op)
		}
		return b.String()
	}
	if first, second := run(), run(); first != second {
		t.Error("two runs of one seed differ")
	}
}

// TestDiffSees changes a tree behind the model's back, in every way that Diff has to see.
func TestDiffSees(t *testing.T) {
	uniontest.NeedRoot(t)
	entries := []Entry{
		{Kind: "dir", Path: "d", Mode: 0o755, Mtime: 1000},
		{Kind: "file", Path: "d/f", Mode: 0o644, Len: 9000, Seed: 1, Mtime: 2000, Name: "user.one", Value: "v"},
		{Kind: "hardlink", Path: "d/g", To: "d/f"},
		{Kind: "file", Path: "big", Mode: 0o644, Len: 1<<40 + 10, Hole: 1 << 40, Seed: 2, Mtime: 2000},
		{Kind: "symlink", Path: "s", To: "d/f", Mtime: 2000},
	}
	tests := map[string]func(d string) error{
		"":                   func(string) error { return nil },
		"content":            func(d string) error { return writeByte(d+"/d/f", 8999) },
		"1099511627777: got": func(d string) error { return writeByte(d+"/big", 1<<40+1) },
		"st_size":            func(d string) error { return os.Truncate(d+"/d/f", 8999) },
		"st_mode":            func(d string) error { return os.Chmod(d+"/d/f", 0o640) },
		"owner":              func(d string) error { return os.Lchown(d+"/s", 0, 1) },
		"links to":           func(d string) error { return os.Symlink("d/x", d+"/t") },
		"st_nlink":           func(d string) error { return os.Link(d+"/d/f", d+"/d/h") },
		"does not list":      func(d string) error { return os.Remove(d + "/d/g") },
		"is not there":       func(d string) error { return os.Mkdir(d+"/d/x", 0o755) },
		"xattrs":             func(d string) error { return unix.Setxattr(d+"/d/f", "user.one", []byte("w"), 0) },
		"st_mtime":           func(d string) error { return os.Chtimes(d+"/d/f", unixTime(5), unixTime(5)) },
		"st_ino":             func(d string) error { return replace(d + "/s") },
		"d_type 4, want":     func(d string) error { return swapForDir(d + "/s") },
	}
	for want, tamper := range tests {
		t.Run(want, func(t *testing.T) {
			tree := Merge(entries, Caps{DirNlink: true, DirMtime: true, DirentIno: true})
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tree.WriteTree(dir); err != nil {
				t.Fatal(err)
			}
			look := func() string {
				s, err := TakeSnapshot(dir, tree.Pages())
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(tree.Diff(s), "\n")
			}
			if got := look(); got != "" {
				t.Fatalf("before: %s", got)
			}
			if want == "links to" {
				if err := os.Remove(dir + "/s"); err != nil {
					t.Fatal(err)
				}
			}
			if err := tamper(dir); err != nil {
				t.Fatal(err)
			}
			if want == "links to" {
				if err := os.Rename(dir+"/t", dir+"/s"); err != nil {
					t.Fatal(err)
				}
				tree.lookup("s").ino, tree.lookup("s").mtimeKnown = 0, false
			}
			if got := look(); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("says %q, want %q", got, want)
			}
		})
	}
}

func TestShrink(t *testing.T) {
	rec := &Record{}
	for n := range 100 {
		rec.Ops = append(rec.Ops, Op{Kind: "stat", Path: fmt.Sprint(n)})
	}
	has := func(ops []Op, path string) bool {
		return slices.ContainsFunc(ops, func(o Op) bool { return o.Path == path })
	}
	shrink(rec, func(r *Record) bool { return has(r.Ops, "17") && has(r.Ops, "93") })
	if len(rec.Ops) != 2 {
		t.Errorf("%d operations are left, want 2: %v", len(rec.Ops), rec.Ops)
	}
}
