package regress

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// disk makes a filesystem in a file, mounts it and returns where.
func disk(t *testing.T, fstype string, megabytes int64, options string) string {
	t.Helper()
	uniontest.NeedRoot(t)
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("needs mkfs.%s: %v", fstype, err)
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, megabytes<<20), os.Mkdir(mnt, 0o755))
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fstype, err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,"+options, "-t", fstype, image, mnt).CombinedOutput(); err != nil {
		t.Skipf("needs %s on a loop device: %v %s", fstype, err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount %s: %v", fstype, err)
			_ = unix.Unmount(mnt, unix.MNT_DETACH)
		}
	})
	return mnt
}

// upperOn puts upper and workdir on the disk.
func upperOn(t *testing.T, l *uniontest.Layers, mnt string) {
	t.Helper()
	l.Upper, l.Work = mnt+"/upper", mnt+"/work"
	must(t, os.Mkdir(l.Upper, 0o755), os.Mkdir(l.Work, 0o755))
}

// A copy-up for which there is no room, or that meets an error of the disk, leaves everything as it was, and tells why.
func TestFailedCopyUpOnDisk(t *testing.T) {
	const size = 24 << 20
	for _, tt := range []struct {
		name, fstype, options string
		megabytes             int64
		quota                 string // of a subvolume
		fault                 string
		want                  error
	}{
		{"full", "ext4", "defaults", 16, "", "", unix.ENOSPC},
		{"quota", "btrfs", "defaults", 512, "8M", "", unix.EDQUOT},
		{"bad disk", "ext4", "defaults", 64, "", "copyup.chunk=EIO", unix.EIO},
		{"read-only disk", "ext4", "defaults", 64, "", "copyup.create=EROFS", unix.EROFS},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mnt := disk(t, tt.fstype, tt.megabytes, tt.options)
			if tt.quota != "" {
				sub := mnt + "/sub"
				for _, argv := range [][]string{{"quota", "enable", mnt}, {"subvolume", "create", sub}, {"qgroup", "limit", tt.quota, sub}} {
					if out, err := exec.Command("btrfs", argv...).CombinedOutput(); err != nil {
						t.Skipf("needs quotas of btrfs: btrfs %s: %v %s", argv, err, out)
					}
				}
				mnt = sub
			}
			l := newLayers(t)
			upperOn(t, l, mnt)
			low := l.Lowers[0]
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			must(t, os.MkdirAll(low+"/d/s", 0o755), os.Mkdir(low+"/p", 0o755), os.WriteFile(low+"/d/s/big", data, 0o644),
				os.WriteFile(low+"/d/small", []byte("small"), 0o644), os.Link(low+"/d/s/big", low+"/p/other"),
				os.WriteFile(low+"/p/own", data, 0o600))
			for _, name := range []string{"d/s/big", "p/own"} {
				must(t, os.Chown(low+"/"+name, 1, 1))
			}
			m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=off")
			upper := listing(t, l.Upper, l.Work+"/work", l.Work+"/index")
			big := l.Merged + "/d/s/big"
			for name, change := range map[string]func() error{
				"chmod":         func() error { return os.Chmod(big, 0o600) },
				"chmod own":     func() error { return os.Chmod(l.Merged+"/p/own", 0o640) },
				"other name":    func() error { return os.Chmod(l.Merged+"/p/other", 0o600) },
				"xattr":         func() error { return unix.Setxattr(big, "user.a", []byte("1"), 0) },
				"link":          func() error { return os.Link(big, l.Merged+"/link") },
				"rename":        func() error { return os.Rename(l.Merged+"/p/own", l.Merged+"/moved") },
				"rename of dir": func() error { return os.Rename(l.Merged+"/d", l.Merged+"/moved") },
				"exchange": func() error {
					return unix.Renameat2(unix.AT_FDCWD, l.Merged+"/d", unix.AT_FDCWD, l.Merged+"/p", unix.RENAME_EXCHANGE)
				},
				"truncate": func() error { return os.Truncate(big, size-1) },
				"write": func() error {
					f, err := os.OpenFile(big, os.O_WRONLY, 0)
					must(t, err)
					defer f.Close()
					_, err = f.Write([]byte("new"))
					return err
				},
			} {
				if err := armed(t, tt.fault, change); !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
				wantSame(t, name, upper, listing(t, l.Upper, l.Work+"/work", l.Work+"/index"))
			}
			for _, name := range []string{"d/s/big", "p/other", "p/own"} {
				var st unix.Stat_t
				must(t, unix.Stat(l.Merged+"/"+name, &st))
				if got, err := os.ReadFile(l.Merged + "/" + name); err != nil || !bytes.Equal(got, data) || st.Uid != 1 {
					t.Errorf("%s: %d bytes, owner %d, %v", name, len(got), st.Uid, err)
				}
			}
			write(t, l.Merged+"/d/small", "new")
			must(t, os.Truncate(big, 100), os.Rename(l.Merged+"/d", l.Merged+"/e"))
			m.Remount()
			wantContent(t, l.Merged+"/e/small", "new")
			wantContent(t, l.Merged+"/p/other", string(data[:100]))
		})
	}
}

// A union can be mounted when its disk is full: by what is deleted in it there will be room.
func TestMountOnFullDisk(t *testing.T) {
	uniontest.NeedRoot(t)
	mnt := t.TempDir()
	must(t, unix.Mount("none", mnt, "tmpfs", 0, "nr_inodes=32"))
	t.Cleanup(func() { must(t, unix.Unmount(mnt, 0)) })
	l := newLayers(t)
	upperOn(t, l, mnt)
	write(t, l.Lowers[0]+"/low", "low")
	m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir=on")
	made := 0
	for ; made < 64; made++ {
		err := os.WriteFile(fmt.Sprint(l.Merged, "/", made), []byte("new"), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		must(t, err)
	}
	if made == 0 || made == 64 {
		t.Fatalf("%d files were made on a disk for 32", made)
	}
	m.Remount()
	wantContent(t, l.Merged+"/low", "low")
	if err := os.Chown(l.Merged+"/low", 7, 8); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("chown: %v, want %v", err, unix.ENOSPC)
	}
	for i := range made {
		must(t, os.Remove(fmt.Sprint(l.Merged, "/", i)))
	}
	// What was removed is on the disk until the kernel, and then the server, have let go of it.
	err := os.Chown(l.Merged+"/low", 7, 8)
	for end := time.Now().Add(hangLimit); errors.Is(err, unix.ENOSPC) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		err = os.Chown(l.Merged+"/low", 7, 8)
	}
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(l.Upper+"/low", &st))
	if st.Uid != 7 || st.Gid != 8 {
		t.Errorf("the upper has it for %d:%d, want 7:8", st.Uid, st.Gid)
	}
	must(t, unix.Stat(l.Work+"/lock", &st))
	if st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the lock is %d:%d's, want 0:0's", st.Uid, st.Gid)
	}
}

// extents lists where a file's data is on its disk.
func extents(t *testing.T, path string) (where []string, shared int) {
	t.Helper()
	out, err := exec.Command("filefrag", "-s", "-v", path).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skipf("needs filefrag: %v", err)
	} else if err != nil {
		t.Fatalf("filefrag %s: %v\n%s", path, err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(line, ":") // number, logical, physical, length, ...
		if len(f) < 5 || !strings.Contains(f[1], "..") {
			continue
		}
		where = append(where, strings.Join(f[1:4], ":"))
		if strings.Contains(line, "shared") {
			shared++
		}
	}
	return where, shared
}

// Where the disk can share blocks, a copy-up copies none.
func TestCopyUpSharesBlocks(t *testing.T) {
	for _, fstype := range []string{"btrfs", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			mnt := disk(t, fstype, 512, "defaults")
			l := newLayers(t)
			l.Lowers = []string{mnt + "/lower"}
			must(t, os.Mkdir(l.Lowers[0], 0o755))
			upperOn(t, l, mnt)
			const size = 8 << 20
			data := make([]byte, size)
			for n := range data {
				data[n] = byte(n >> 8)
			}
			low := l.Lowers[0] + "/big"
			must(t, os.WriteFile(low, data, 0o644))
			f, err := os.OpenFile(low, os.O_RDWR, 0)
			must(t, err)
			must(t, f.Sync(), f.Close())
			uniontest.Start(t, uniontest.Laminafs, l)
			must(t, os.Chmod(l.Merged+"/big", 0o600))
			must(t, unix.Access(l.Upper+"/big", unix.F_OK))
			before, _ := extents(t, low)
			after, shared := extents(t, l.Upper+"/big")
			if len(before) == 0 || fmt.Sprint(before) != fmt.Sprint(after) || shared != len(after) {
				t.Errorf("lower: %q\nupper: %q, %d of them shared", before, after, shared)
			}
			g, err := os.OpenFile(l.Merged+"/big", os.O_WRONLY, 0)
			must(t, err)
			_, err = g.WriteAt([]byte("new"), size/2)
			must(t, err, g.Close())
			copy(data[size/2:], "new")
			wantContent(t, l.Merged+"/big", string(data))
		})
	}
}

// How many blocks a file has changes when the disk writes it back, and nobody has written to it then: what looks whether
// the lowers are untouched must not take it for a write.
func TestBlocksOfLowersMayChange(t *testing.T) {
	mnt := disk(t, "xfs", 512, "defaults")
	l := newLayers(t)
	l.Lowers = []string{mnt + "/lower"}
	must(t, os.Mkdir(l.Lowers[0], 0o755))
	path := l.Lowers[0] + "/growing"
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for range 100 {
		_, err = f.Write(make([]byte, 5000))
		must(t, err)
	}
	var before, after unix.Stat_t
	must(t, unix.Stat(path, &before))
	uniontest.Start(t, uniontest.Laminafs, l)
	must(t, f.Close()) // gives back what was allocated ahead
	must(t, unix.Stat(path, &after))
	if before.Blocks == after.Blocks || before.Ctim != after.Ctim {
		t.Errorf("%d blocks at %v, then %d at %v: this disk shows nothing", before.Blocks, before.Ctim, after.Blocks, after.Ctim)
	}
}

// Numbers of different devices may be the same: xino=off shows them as they are.
func TestXinoOff(t *testing.T) {
	l := newLayers(t)
	l.Lowers = []string{disk(t, "ext4", 16, "defaults"), disk(t, "ext4", 16, "defaults")}
	for n, dir := range l.Lowers {
		write(t, fmt.Sprintf("%s/f%d", dir, n), "content")
	}
	ino := func(path string) uint64 {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		return st.Ino
	}
	if a, b := ino(l.Lowers[0]+"/f0"), ino(l.Lowers[1]+"/f1"); a != b {
		t.Fatalf("numbers %d and %d: the test proves nothing", a, b)
	}
	for _, xino := range []string{"off", "on", "off"} {
		m := uniontest.Start(t, uniontest.Laminafs, l, "xino="+xino)
		for _, up := range []bool{false, true} {
			if up {
				must(t, os.Chmod(l.Merged+"/f0", 0o600), os.Chmod(l.Merged+"/f1", 0o600))
			}
			a, b := ino(l.Merged+"/f0"), ino(l.Merged+"/f1")
			if (a == b) != (xino == "off") {
				t.Errorf("xino=%s, copied up %v: numbers %d and %d", xino, up, a, b)
			}
			if low := ino(l.Lowers[0] + "/f0"); xino == "off" && a != low {
				t.Errorf("xino=off, copied up %v: number %d, in the lower %d", up, a, low)
			}
			list, err := os.ReadDir(l.Merged)
			must(t, err)
			if len(list) != 3 { // with lost+found
				t.Errorf("%d entries", len(list))
			}
			m.Remount()
			if now := ino(l.Merged + "/f0"); now != a {
				t.Errorf("xino=%s, copied up %v: number %d, after a remount %d", xino, up, a, now)
			}
		}
		m.Unmount()
	}
}
