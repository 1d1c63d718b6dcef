package unionfs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// onDevices makes a directory on each of two filesystems.
func onDevices(t *testing.T) (a, b string) {
	t.Helper()
	a = t.TempDir()
	b, err := os.MkdirTemp("/dev/shm", "unionfs-")
	if err != nil {
		t.Skipf("needs a second filesystem: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(b) })
	var sa, sb unix.Stat_t
	if err := unix.Stat(a, &sa); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(b, &sb); err != nil {
		t.Fatal(err)
	}
	if sa.Dev == sb.Dev {
		t.Skip("needs a second filesystem: the temporary directory is on that of /dev/shm")
	}
	return a, b
}

// numbers lists the directory by READDIR, which makes no nodes, and returns d_ino of each name.
func (f *calls) numbers(dir uint64) map[string]uint64 {
	f.t.Helper()
	buf := make([]byte, 1<<16)
	list := fuse.NewDirEntryList(buf, 0)
	in := fuse.ReadIn{InHeader: *f.header(dir), Size: uint32(len(buf))}
	if s := f.ReadDir(nil, &in, list); s != fuse.OK {
		f.t.Fatal(s)
	}
	found := map[string]uint64{}
	for b := list.Bytes(); len(b) >= 24; { // struct fuse_dirent
		n := int(binary.NativeEndian.Uint32(b[16:]))
		found[string(b[24:24+n])] = binary.NativeEndian.Uint64(b)
		b = b[(24+n+7)&^7:]
	}
	return found
}

// A name of which the kernel had known the file and had forgotten it was listed with another number than the file has,
// where the layer lies on the second filesystem: the number was made one of the mount twice.
func TestNumberOfForgottenFile(t *testing.T) {
	a, b := onDevices(t)
	for _, name := range []string{a + "/first", b + "/second"} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(Config{Lowers: []string{a, b}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	f := &calls{FS: fs, t: t, root: fuse.FUSE_ROOT_ID}
	before := f.numbers(f.root)
	for _, name := range []string{"first", "second"} {
		id := f.lookup(f.root, name)
		ino := fs.nodes.get(id).ino.Load()
		fs.Forget(id, 1)
		fs.reaper.catchUp()
		if fs.nodes.get(id) != nil {
			t.Fatal("the node is still there")
		}
		if got := f.numbers(f.root)[name]; got != ino || before[name] != ino {
			t.Errorf("%s: listed as %#x, before anybody knew it as %#x, its number is %#x", name, got, before[name], ino)
		}
	}
}

// A directory that was made ready to be replaced, and was not after all, showed what was deleted in it, as soon as the kernel
// had forgotten it.
func TestDirThatWasNotReplacedStaysEmpty(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	for _, dir := range []string{"l/empty", "u/empty", "u/p/new", "w"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"l/empty/deleted", "u/empty/.wh.deleted"} {
		if err := os.WriteFile(filepath.Join(top, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := os.Open(top + "/u/p")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const immutable = 0x10 // linux/fs.h, FS_IMMUTABLE_FL
	flags, err := unix.IoctlGetInt(int(p.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(p.Fd()), unix.FS_IOC_SETFLAGS, flags|immutable)
	}
	if err != nil {
		t.Skipf("needs a filesystem with immutable files: %v", err)
	}
	defer func() {
		if err := unix.IoctlSetPointerInt(int(p.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Error(err)
		}
	}()
	fs, err := New(Config{Lowers: []string{top + "/l"}, Upper: top + "/u", Work: top + "/w"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	f := &calls{FS: fs, t: t, root: fuse.FUSE_ROOT_ID}
	look := func() {
		t.Helper()
		id := f.lookup(f.root, "empty")
		if names := f.numbers(id); len(names) != 2 {
			t.Errorf("empty holds %v", names)
		}
		fs.Forget(id, 1)
		fs.reaper.catchUp()
		if fs.nodes.get(id) != nil {
			t.Fatal("the node is still there")
		}
	}
	look()
	in := fuse.RenameIn{InHeader: *f.header(f.lookup(f.root, "p")), Newdir: f.root}
	if s := f.Rename(nil, &in, "new", "empty"); s != fuse.EPERM {
		t.Fatalf("rename from an immutable directory: %v", s)
	}
	look()
	look()
}
