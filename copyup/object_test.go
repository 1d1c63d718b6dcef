package copyup_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/copyup"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// objectTests run on every filesystem.
var objectTests = []struct {
	name string
	test func(t *testing.T, e *env)
}{
	{"data", testData},
	{"limit", testLimit},
	{"holes", testHoles},
	{"sparse terabyte", testSparse},
	{"reflink", testReflink},
	{"mode and times", testModeAndTimes},
	{"owner", testOwner},
	{"xattrs", testXattrs},
	{"xattr options", testXattrOptions},
	{"acl", testACL},
	{"capability", testCapability},
	{"directory", testDirectory},
	{"symlink", testSymlink},
	{"special files", testSpecial},
	{"anonymous", testAnonymous},
	{"held by descriptor", testByDescriptor},
}

func TestObject(t *testing.T) {
	onEachFilesystem(t, func(t *testing.T, lowerIn, workIn string) {
		for _, tt := range objectTests {
			t.Run(tt.name, func(t *testing.T) {
				e := newEnv(t, lowerIn, workIn)
				t.Cleanup(func() { e.workEmpty(t) }) // runs after the copies are discarded
				tt.test(t, e)
			})
		}
	})
}

// random is n bytes that do not repeat.
func random(n int) string {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return string(b)
}

func testData(t *testing.T, e *env) {
	for _, size := range []int{0, 1, 511, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, 5<<20 + 123} {
		name := fmt.Sprint(size)
		e.write(t, name, random(size))
		c := e.object(t, name)
		if c.Bytes != int64(size) && c.Bytes != 0 { // 0: reflinked
			t.Errorf("size %d: %d bytes written", size, c.Bytes)
		}
	}
}

func testLimit(t *testing.T, e *env) {
	e.write(t, "f", random(3<<20))
	src := e.source(t, "f")
	for _, limit := range []int64{0, 1, 4096, 5000, 1<<20 + 1, 3 << 20, 4 << 20} {
		c := e.objectAs(t, src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: limit})
		if want := min(limit, 3<<20); c.Bytes != want && c.Bytes != 0 {
			t.Errorf("limit %d: %d bytes written", limit, c.Bytes)
		}
	}
}

// extents lists where the file has data, as offset and end.
func extents(t *testing.T, path string) (list [][2]int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for end := int64(0); ; {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if err != nil {
			return list
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		list = append(list, [2]int64{start, end})
	}
}

// writeAt makes a lower file of the size with data at the offsets and holes elsewhere.
func (e *env) writeAt(t *testing.T, name string, size int64, data string, offsets ...int64) {
	t.Helper()
	f, err := os.OpenFile(e.path(name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range offsets {
		if _, err := f.WriteAt([]byte(data), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func testHoles(t *testing.T, e *env) {
	data := random(256 << 10)
	for _, tt := range []struct {
		name    string
		size    int64
		offsets []int64
	}{
		{"all", 8 << 20, nil},
		{"first", 4<<20 + 256<<10, []int64{4 << 20}},
		{"last", 8<<20 + 5, []int64{0}},
		{"between", 16 << 20, []int64{1 << 20, 3 << 20, 9 << 20}},
	} {
		e.writeAt(t, tt.name, tt.size, data, tt.offsets...)
		c := e.object(t, tt.name)
		want, got := extents(t, e.path(tt.name)), extents(t, filepath.Join(e.work, c.At.Name))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: data at %v, in the lower at %v", tt.name, got, want)
		}
		if n := int64(len(tt.offsets) * len(data)); c.Bytes != n && c.Bytes != 0 {
			t.Errorf("%s: %d bytes written, %d are data", tt.name, c.Bytes, n)
		}
	}
}

func testSparse(t *testing.T, e *env) {
	const size = 1<<40 + 17
	e.writeAt(t, "f", size, "data", 1<<39, size-4)
	c := e.object(t, "f")
	f, err := os.Open(filepath.Join(e.work, c.At.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{1 << 39, size - 4} {
		buf := make([]byte, 4)
		if _, err := f.ReadAt(buf, off); err != nil || string(buf) != "data" {
			t.Errorf("at %d: %q, %v", off, buf, err)
		}
	}
	if st := stat(t, c.At); st.Blocks > 1024 { // 512-byte blocks
		t.Errorf("the copy takes %d blocks", st.Blocks)
	}
}

func testReflink(t *testing.T, e *env) {
	e.write(t, "f", random(1<<20))
	probe := filepath.Join(e.work, "probe")
	if !canReflink(t, e.path("f"), probe) {
		t.Skip("no reflinks between these directories")
	}
	if c := e.object(t, "f"); c.Bytes != 0 {
		t.Errorf("%d bytes were written where a reflink was possible", c.Bytes)
	}
}

func canReflink(t *testing.T, from, to string) bool {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	defer os.Remove(to)
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

func setTimes(t *testing.T, a sys.At, atime, mtime unix.Timespec) {
	t.Helper()
	if err := sys.Utimens(a, atime, mtime); err != nil {
		t.Fatal(err)
	}
}

func testModeAndTimes(t *testing.T, e *env) {
	for _, mode := range []uint32{0, 0o400, 0o644, 0o7777, 0o4755, 0o2755, 0o2644, 0o1666} {
		if mode&0o400 == 0 && os.Geteuid() != 0 {
			continue // we could not read it
		}
		name := fmt.Sprintf("%o", mode)
		e.write(t, name, "data")
		if err := sys.Chmod(e.lowerAt(name), mode); err != nil {
			t.Fatal(err)
		}
		if stat(t, e.lowerAt(name)).Mode&0o7777 != mode {
			t.Skip("cannot give a file all mode bits") // set-gid without privilege, in a foreign group
		}
		// The access time is older than the modification time: relatime would move it on any read.
		setTimes(t, e.lowerAt(name), unix.Timespec{Sec: 1e9, Nsec: 123456789}, unix.Timespec{Sec: 2e9, Nsec: 987654321})
		e.object(t, name)
	}
	e.write(t, "old", "data")
	setTimes(t, e.lowerAt("old"), unix.Timespec{Sec: 0, Nsec: 1}, unix.Timespec{Sec: -1, Nsec: 999999999})
	e.object(t, "old")
}

func testOwner(t *testing.T, e *env) {
	needRoot(t)
	for i, mode := range []uint32{0o6755, 0o600} {
		name := fmt.Sprint(i)
		e.write(t, name, "data")
		if err := sys.Chown(e.lowerAt(name), 1234, 5678); err != nil {
			t.Fatal(err)
		}
		if err := sys.Chmod(e.lowerAt(name), mode); err != nil {
			t.Fatal(err)
		}
		e.object(t, name)
	}
	src := e.source(t, "0")
	m := copyup.MetaOf(&src.Stat)
	m.UID, m.GID, m.Mode = 4_000_000_000, 77, unix.S_IFREG|0o4711
	e.objectAs(t, src, m, copyup.ObjectOptions{Limit: -1})
}

// setXattrs sets attributes of a lower object, and skips the test where that cannot be done.
func (e *env) setXattrs(t *testing.T, name string, attrs map[string]string) {
	t.Helper()
	for attr, value := range attrs {
		err := sys.Setxattr(e.lowerAt(name), attr, []byte(value), 0)
		if err == unix.ENOTSUP || err == unix.EPERM && os.Geteuid() != 0 {
			t.Skipf("cannot set %s here: %v", attr, err)
		}
		if err != nil {
			t.Fatalf("set %s: %v", attr, err)
		}
	}
}

// checkXattrs fails the test unless the copy has these attributes and no others of their namespaces.
func checkXattrs(t *testing.T, c copyup.Copy, want map[string]string) {
	t.Helper()
	got := xattrs(t, c.At)
	for _, name := range []string{
		"security.selinux",                                // the machine's own
		"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT", // XFS: its ACLs, once more
	} {
		delete(got, name)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the copy has %q, want %q", got, want)
	}
}

func testXattrs(t *testing.T, e *env) {
	needRoot(t) // for trusted
	e.write(t, "f", "data")
	attrs := map[string]string{
		"user.empty":             "",
		"user.binary":            "a\x00b\xff",
		"user.big":               random(2000), // ext4 has one block for all of them
		"user.overlay.overlay.x": "an inner overlay's",
		"trusted.t":              "t",
		"security.lamina-test":   "s",
	}
	e.setXattrs(t, "f", attrs)
	e.setXattrs(t, "f", map[string]string{
		"user.overlay.origin": "o", "trusted.overlay.origin": "o", "user.overlay.lamina.origin": "1:2:3",
		"user.containers.override_stat": "1:2:0755", "user.fuseoverlayfs.opaque": "y",
	})
	// A file that its owner may not write to takes user attributes no longer: they must come before the mode.
	if err := sys.Chmod(e.lowerAt("f"), 0o444); err != nil {
		t.Fatal(err)
	}
	checkXattrs(t, e.object(t, "f"), attrs)
}

func testXattrOptions(t *testing.T, e *env) {
	e.write(t, "f", "data")
	e.setXattrs(t, "f", map[string]string{"user.a": "1", "user.b": "2"})
	src := e.source(t, "f")
	m := copyup.MetaOf(&src.Stat)

	c := e.objectAs(t, src, m, copyup.ObjectOptions{Limit: -1, SkipXattr: true})
	checkXattrs(t, c, map[string]string{})

	keep := func(name string) bool { return name == "user.b" }
	c = e.objectAs(t, src, m, copyup.ObjectOptions{Limit: -1, KeepXattr: keep})
	checkXattrs(t, c, map[string]string{"user.b": "2"})

	var marked uint64
	mark := func(a sys.At, ino uint64) error {
		marked = ino
		return sys.Setxattr(a, "user.lamina.mark", []byte("m"), 0)
	}
	c = e.objectAs(t, src, m, copyup.ObjectOptions{Limit: 0, KeepXattr: keep, Mark: mark})
	checkXattrs(t, c, map[string]string{"user.b": "2", "user.lamina.mark": "m"})
	if marked != c.Ino {
		t.Errorf("Mark was told of inode %d, the copy is %d", marked, c.Ino)
	}

	mark = func(sys.At, uint64) error { return unix.EDQUOT }
	_, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1, Mark: mark})
	wantErr(t, err, unix.EDQUOT, "copy up: mark")
}

// acl is the value of a POSIX ACL attribute: user::7 user:1234:entry group::5 mask::mask other::0
// (linux/posix_acl_xattr.h).
func acl(entry, mask uint16) string {
	b := binary.LittleEndian.AppendUint32(nil, 2) // version
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{
		{0x01, 7, ^uint32(0)}, {0x02, entry, 1234}, {0x04, 5, ^uint32(0)}, {0x10, mask, ^uint32(0)}, {0x20, 0, ^uint32(0)},
	} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

func testACL(t *testing.T, e *env) {
	const access, byDefault = "system.posix_acl_access", "system.posix_acl_default"
	e.write(t, "f", "data")
	attrs := map[string]string{access: acl(7, 3)}
	e.setXattrs(t, "f", attrs)
	if mode := stat(t, e.lowerAt("f")).Mode & 0o777; mode != 0o730 {
		t.Fatalf("mode %o after setting the ACL, want the mask in it", mode)
	}
	checkXattrs(t, e.object(t, "f"), attrs)

	if err := os.Mkdir(e.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	attrs = map[string]string{access: acl(5, 5), byDefault: acl(7, 7)}
	e.setXattrs(t, "d", attrs)
	checkXattrs(t, e.object(t, "d"), attrs)

	noACL := func(name string) bool { return name != access && name != byDefault }
	src := e.source(t, "d")
	c := e.objectAs(t, src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1, KeepXattr: noACL})
	checkXattrs(t, c, map[string]string{})
	if got := len(xattrs(t, c.At)); got != 0 {
		t.Errorf("%d attributes on the copy", got)
	}
}

func testCapability(t *testing.T, e *env) {
	needRoot(t)
	e.write(t, "f", "#!/bin/sh\n")
	if err := os.Chown(e.path("f"), 1234, 1234); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(e.path("f"), 0o755); err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data, revision 2: CAP_NET_RAW, permitted and effective.
	var caps bytes.Buffer
	for _, v := range []uint32{0x02000001, 1 << 13, 0, 0, 0} {
		binary.Write(&caps, binary.LittleEndian, v)
	}
	attrs := map[string]string{"security.capability": caps.String()}
	e.setXattrs(t, "f", attrs)
	checkXattrs(t, e.object(t, "f"), attrs)
}

func testDirectory(t *testing.T, e *env) {
	if err := os.MkdirAll(e.path("d/below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []uint32{0o755, 0o1777, 0o2770, 0} {
		if mode == 0 && os.Geteuid() != 0 {
			continue // we could not read it
		}
		if err := sys.Chmod(e.lowerAt("d"), mode); err != nil {
			t.Fatal(err)
		}
		setTimes(t, e.lowerAt("d"), unix.Timespec{Sec: 1e9, Nsec: 5}, unix.Timespec{Sec: 2e9, Nsec: 999999999})
		c := e.object(t, "d")
		entries, err := os.ReadDir(filepath.Join(e.work, c.At.Name))
		if len(entries) != 0 || err != nil {
			t.Errorf("mode %o: the copy has entries %v, %v", mode, entries, err)
		}
	}
}

func testSymlink(t *testing.T, e *env) {
	for name, target := range map[string]string{
		"relative": "a/../b", "absolute": "/etc/passwd", "long": strings.Repeat("x/", 500), "bytes": "\xff\x01 ",
	} {
		if err := os.Symlink(target, e.path(name)); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := sys.Chown(e.lowerAt(name), 1234, 5678); err != nil {
				t.Fatal(err)
			}
			e.setXattrs(t, name, map[string]string{"trusted.t": "t"})
		}
		setTimes(t, e.lowerAt(name), unix.Timespec{Sec: 1e9, Nsec: 5}, unix.Timespec{Sec: 2e9, Nsec: 999999999})
		c := e.object(t, name)
		if os.Geteuid() == 0 {
			checkXattrs(t, c, map[string]string{"trusted.t": "t"})
		}
	}
}

func testSpecial(t *testing.T, e *env) {
	for name, o := range map[string]struct {
		mode uint32
		rdev uint64
	}{
		"fifo":   {unix.S_IFIFO | 0o640, 0},
		"socket": {unix.S_IFSOCK | 0o777, 0},
		"char":   {unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)},
		"block":  {unix.S_IFBLK | 0o600, unix.Mkdev(259, 200_000)},
	} {
		if o.rdev != 0 && os.Geteuid() != 0 {
			continue
		}
		if err := sys.Mknod(e.lowerAt(name), o.mode, o.rdev); err != nil {
			t.Fatal(err)
		}
		setTimes(t, e.lowerAt(name), unix.Timespec{Sec: 1e9, Nsec: 5}, unix.Timespec{Sec: 2e9, Nsec: 999999999})
		e.object(t, name)

		// Without privilege a regular file stands for it.
		src := e.source(t, name)
		m := copyup.MetaOf(&src.Stat)
		m.Mode, m.Rdev = unix.S_IFREG|0o600, 0
		c, err := e.s.Object(src, m, copyup.ObjectOptions{Limit: -1})
		if err != nil {
			t.Fatal(err)
		}
		st := stat(t, c.At)
		checkMeta(t, &st, m)
		if st.Size != 0 {
			t.Errorf("what stands for the %s has %d bytes", name, st.Size)
		}
		e.s.Discard(c.At)
	}
	// A regular file that stands for a device, as a layer made without privilege has it, becomes the device.
	if os.Geteuid() == 0 {
		e.write(t, "stands", "")
		src := e.source(t, "stands")
		m := copyup.MetaOf(&src.Stat)
		m.Mode, m.Rdev = unix.S_IFCHR|0o644, unix.Mkdev(5, 1)
		e.objectAs(t, src, m, copyup.ObjectOptions{Limit: -1})
	}
}

func testAnonymous(t *testing.T, e *env) {
	e.write(t, "f", random(100_000))
	src := e.source(t, "f")
	held, err := sys.Open(src.At, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(held)
	want := hash(t, src.At, src.Stat.Size)
	if err := os.Remove(e.path("f")); err != nil {
		t.Fatal(err)
	}
	src.At = sys.Fd(held)
	fd, c, err := e.s.Anonymous(src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	e.workEmpty(t)
	st := stat(t, sys.Fd(fd))
	checkMeta(t, &st, copyup.MetaOf(&src.Stat))
	if st.Ino != c.Ino || st.Nlink != 0 || c.At != sys.Fd(fd) || c.Fd != -1 {
		t.Errorf("copy %+v, stat(2) says %+v", c, st)
	}
	if hash(t, sys.Fd(fd), src.Stat.Size) != want {
		t.Error("the data differs")
	}
	if _, err := unix.Pwrite(fd, []byte("new"), 0); err != nil {
		t.Errorf("write to the copy: %v", err)
	}
}

// testByDescriptor copies what the caller holds by O_PATH descriptors only.
func testByDescriptor(t *testing.T, e *env) {
	e.write(t, "file", "data")
	if err := os.Symlink("target", e.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(e.path("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "link", "dir"} {
		src := e.source(t, name)
		fd, err := sys.Open(src.At, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		src.At = sys.Fd(fd)
		e.objectAs(t, src, copyup.MetaOf(&src.Stat), copyup.ObjectOptions{Limit: -1})
		sys.Close(fd)
	}
}

// TestKeepOpen: the copy's descriptor reads and writes it, and is not left open by a copy that fails.
func TestKeepOpen(t *testing.T) {
	dir := t.TempDir()
	e := newEnv(t, dir, dir)
	e.write(t, "f", "content")
	src := e.source(t, "f")
	opt := copyup.ObjectOptions{Limit: -1, KeepOpen: true}
	c := e.objectAs(t, src, copyup.MetaOf(&src.Stat), opt)
	defer sys.Close(c.Fd)
	if st := stat(t, sys.Fd(c.Fd)); st.Ino != c.Ino {
		t.Errorf("descriptor of inode %d, the copy is %d", st.Ino, c.Ino)
	}
	buf := make([]byte, 8)
	if n, err := unix.Pread(c.Fd, buf, 0); string(buf[:n]) != "content" || err != nil {
		t.Errorf("read: %q, %v", buf[:n], err)
	}
	if _, err := unix.Pwrite(c.Fd, []byte("x"), 0); err != nil {
		t.Errorf("write: %v", err)
	}

	before := descriptors(t)
	opt.Mark = func(sys.At, uint64) error { return unix.EDQUOT }
	_, err := e.s.Object(src, copyup.MetaOf(&src.Stat), opt)
	wantErr(t, err, unix.EDQUOT, "copy up: ")
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors open after the failure, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
