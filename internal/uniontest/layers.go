package uniontest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Layers are the directories of a union on disk. Lowers are topmost first. With Upper and Work empty the union is
// read-only.
type Layers struct {
	Dir         string
	Lowers      []string
	Upper, Work string
	Merged      string

	// Trust leaves out the proof that the lowers were not written to, which reads them twice: for trees so large
	// that this costs more than the test.
	Trust bool

	helper *Helper
}

// layersPrefix begins the name of the directory that layers are in.
const layersPrefix = "uniontest-"

// NewLayers makes the directories of a union with so many lowers, for the test process itself or for a helper, whose
// own they then are. What goes into them a helper has to make, too, so that it has the owners the test means.
func NewLayers(t testing.TB, lowers int, as ...*Helper) *Layers {
	t.Helper()
	var h *Helper
	if len(as) > 0 {
		h = as[0]
	}
	dir, err := os.MkdirTemp("", layersPrefix)
	if err != nil {
		t.Fatal(err)
	}
	l := &Layers{Dir: dir, helper: h}
	t.Cleanup(func() { l.remove(t) })
	mk := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		// The umask of the test process is not the test's business.
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
		if h != nil {
			if err := os.Chown(p, h.uid, h.gid); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	if err := os.Chmod(dir, 0o755); err != nil { // Go's 0700 would keep the helper out
		t.Fatal(err)
	}
	for i := range lowers {
		l.Lowers = append(l.Lowers, mk(fmt.Sprintf("lower%d", i+1)))
	}
	l.Upper, l.Work, l.Merged = mk("upper"), mk("work"), mk("merged")
	return l
}

// Helper returns who these layers belong to; nil is the test process itself.
func (l *Layers) Helper() *Helper { return l.helper }

// remove removes the directories, unless something is still mounted there: then it would remove what is mounted.
func (l *Layers) remove(t testing.TB) {
	if left := mountsBelow(l.Dir); len(left) > 0 {
		t.Errorf("mounts left behind: %v", left)
		for _, m := range left {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
		return
	}
	err := os.RemoveAll(l.Dir)
	if err != nil && l.helper != nil { // files of subordinate ids, and we are not root
		_, _ = l.helper.Exec(Command{Argv: []string{"sh", "-c", `chmod -R u+rwx "$0"/*; rm -rf "$0"/*`, l.Dir}})
		err = os.RemoveAll(l.Dir)
	}
	if err != nil {
		t.Errorf("remove layers: %v", err)
	}
}

// mountsBelow lists the mount points in this mount namespace at or below dir, innermost first.
func mountsBelow(dir string) []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if p := unescape.Replace(f[4]); p == dir || dir == "/" || strings.HasPrefix(p, dir+"/") {
			found = append(found, p)
		}
	}
	slices.Reverse(found)
	return found
}

// treeHash says everything about every object of a tree that writing to it would change, by path. The access time
// is left out for symbolic links, which cannot be read without moving it; the number of blocks for all, which the disk
// counts anew when it writes a file back.
type treeHash map[string]string

// maxContent is how many bytes of a tree have their content compared. Behind it the change time, which nobody can
// set, has to do.
const maxContent = 64 << 20

func hashTree(dir string) (treeHash, error) {
	h := hasher{seen: treeHash{}, buf: make([]byte, 64<<10)}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	if err := h.object(fd, ".", "."); err != nil {
		return nil, err
	}
	return h.seen, nil
}

type hasher struct {
	seen treeHash
	read int64
	buf  []byte // for whatever is read: a tree may have very many objects
}

// object records the object name in the directory open as dirfd, and all below it.
func (h *hasher) object(dirfd int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mode=%o uid=%d gid=%d ino=%d nlink=%d rdev=%d mtime=%d.%09d ctime=%d.%09d",
		st.Mode, st.Uid, st.Gid, st.Ino, st.Nlink, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		fmt.Fprintf(&b, " atime=%d.%09d", st.Atim.Sec, st.Atim.Nsec)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		fmt.Fprintf(&b, " size=%d", st.Size)
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NOATIME
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dirfd, name, buf)
		if err != nil {
			return fmt.Errorf("readlink %s: %w", path, err)
		}
		fmt.Fprintf(&b, " target=%q", buf[:n])
	case unix.S_IFREG, unix.S_IFDIR:
		fd, err := unix.Openat(dirfd, name, flags, 0)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			break // not ours to read; its times tell
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		b.WriteString(h.xattrsOf(fd))
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			if st.Size <= maxContent-h.read {
				h.read += st.Size
				sum := sha256.New()
				if _, err := io.CopyBuffer(sum, struct{ io.Reader }{f}, h.buf); err != nil {
					return fmt.Errorf("read %s: %w", path, err)
				}
				b.WriteString(" sha256=" + hex.EncodeToString(sum.Sum(nil)))
			}
			break
		}
		names, err := f.Readdirnames(-1)
		if err != nil {
			return fmt.Errorf("list %s: %w", path, err)
		}
		for _, n := range names {
			if err := h.object(fd, n, path+"/"+n); err != nil {
				return err
			}
		}
	}
	h.seen[path] = b.String()
	return nil
}

func (h *hasher) xattrsOf(fd int) string {
	n, err := unix.Flistxattr(fd, h.buf)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(h.buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		if n, err = unix.Fgetxattr(fd, name, h.buf); err == nil {
			fmt.Fprintf(&b, " %s=%q", name, h.buf[:n])
		}
	}
	return b.String()
}

var atimes = regexp.MustCompile(` atime=[0-9.]+`)

// diff says in what two records of one tree differ, at most ten lines. Access times are compared on demand: there are
// filesystems that cannot leave them alone.
func (before treeHash) diff(after treeHash, atime bool) []string {
	var out []string
	for path, line := range before {
		now, ok := after[path]
		if !atime {
			line, now = atimes.ReplaceAllString(line, ""), atimes.ReplaceAllString(now, "")
		}
		switch {
		case !ok:
			out = append(out, path+" is gone")
		case now != line:
			out = append(out, fmt.Sprintf("%s\n   was %s\n   is  %s", path, line, now))
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			out = append(out, path+" is new")
		}
	}
	sort.Strings(out)
	if len(out) > 10 {
		out = append(out[:10], fmt.Sprintf("and %d more", len(out)-10))
	}
	return out
}

// hashLowers records all lowers, as root where we are, because only root sees trusted attributes.
func (l *Layers) hashLowers(t testing.TB) []treeHash {
	t.Helper()
	if l.Trust {
		return nil
	}
	h := l.helper
	if os.Getuid() == 0 {
		h = nil
	}
	var all []treeHash
	for _, dir := range l.Lowers {
		var hash treeHash
		if err := h.call(0, "hash", dir, &hash); err != nil {
			t.Fatalf("hash %s: %v", dir, err)
		}
		all = append(all, hash)
	}
	return all
}

// TreeState is everything about every object of some trees that writing to them would change.
type TreeState struct{ trees []treeHash }

// StateOf records the trees. It writes nothing, not even access times.
func StateOf(t testing.TB, dirs ...string) (s TreeState) {
	t.Helper()
	for _, dir := range dirs {
		h, err := hashTree(dir)
		if err != nil {
			t.Fatalf("state of %s: %v", dir, err)
		}
		s.trees = append(s.trees, h)
	}
	return s
}

// Diff says in what a later state of the same trees differs, at most ten lines for each.
func (s TreeState) Diff(later TreeState) (lines []string) {
	for i, h := range s.trees {
		lines = append(lines, h.diff(later.trees[i], true)...)
	}
	return lines
}

// Len is the number of objects.
func (s TreeState) Len() (n int) {
	for _, h := range s.trees {
		n += len(h)
	}
	return n
}
