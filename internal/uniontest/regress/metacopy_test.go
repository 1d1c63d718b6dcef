package regress

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/laminafs/lamina/internal/uniontest"
	"golang.org/x/sys/unix"
)

// metacopyLayers makes three layers of which the upper two were written by kernel overlayfs with metacopy=on, one after
// the other.
func metacopyLayers(t *testing.T) *uniontest.Layers {
	t.Helper()
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	uniontest.NeedOverlay(t)
	l := uniontest.NewLayers(t, 3)
	bottom := l.Lowers[2]
	must(t, os.MkdirAll(bottom+"/d/s", 0o755), os.Mkdir(bottom+"/o", 0o755))
	for _, name := range []string{"same", "moved", "d/in", "d/s/deep", "twice", "trunc", "o/f"} {
		write(t, bottom+"/"+name, "data of "+name)
	}
	big, err := os.Create(bottom + "/sparse")
	must(t, err)
	_, err1 := big.WriteAt([]byte("end"), 1<<20)
	must(t, err1, big.Close())

	overlay := func(upper string, lowers string, change func(dir string)) {
		work, dir := t.TempDir(), t.TempDir()
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,metacopy=on,redirect_dir=on", lowers, upper, work)
		// The work directory has to be on the filesystem of the upper: all are below the temporary directory.
		must(t, unix.Mount("overlay", dir, "overlay", 0, opts))
		defer func() { must(t, unix.Unmount(dir, 0)) }()
		change(dir)
	}
	overlay(l.Lowers[1], bottom, func(dir string) {
		must(t, os.Chmod(dir+"/same", 0o640), os.Chmod(dir+"/twice", 0o600), os.Chown(dir+"/sparse", 1, 2),
			os.Chmod(dir+"/moved", 0o604), os.Rename(dir+"/moved", dir+"/d/moved"),
			os.Chmod(dir+"/d/in", 0o611), os.Rename(dir+"/d", dir+"/e"),
			os.Chmod(dir+"/trunc", 0o600), os.Truncate(dir+"/trunc", 4), os.Chmod(dir+"/o/f", 0o600))
	})
	overlay(l.Lowers[0], l.Lowers[1]+":"+bottom, func(dir string) {
		must(t, os.Chmod(dir+"/twice", 0o644), os.Rename(dir+"/twice", dir+"/thrice"),
			os.Chtimes(dir+"/e/s/deep", time.Unix(1, 0), time.Unix(2, 0)))
	})
	for path, want := range map[string]bool{l.Lowers[1] + "/same": true, l.Lowers[0] + "/thrice": true, l.Lowers[1] + "/trunc": false} {
		if _, err := unix.Getxattr(path, "trusted.overlay.metacopy", nil); (err == nil) != want {
			t.Fatalf("%s: metacopy %v, want %v: the test proves nothing", path, err, want)
		}
	}
	return l
}

var metacopied = map[string]string{"same": "data of same", "e/moved": "data of moved", "e/in": "data of d/in",
	"e/s/deep": "data of d/s/deep", "thrice": "data of twice", "trunc": "data", "o/f": "data of o/f"}

// A file that kernel overlayfs had copied up with metacopy=on was EIO, its data being in a layer below.
func TestMetacopyOfTheKernel(t *testing.T) {
	l := metacopyLayers(t)
	m := uniontest.Start(t, uniontest.Laminafs, l)
	modes := map[string]uint32{"same": 0o640, "e/moved": 0o604, "e/in": 0o611, "thrice": 0o644, "trunc": 0o600, "o/f": 0o600}
	for range 2 {
		for name, want := range metacopied {
			wantContent(t, l.Merged+"/"+name, want)
			var st unix.Stat_t
			must(t, unix.Stat(l.Merged+"/"+name, &st))
			if st.Size != int64(len(want)) || st.Blocks == 0 || modes[name] != 0 && st.Mode&0o777 != modes[name] {
				t.Errorf("%s: %d bytes, %d blocks, mode %o", name, st.Size, st.Blocks, st.Mode)
			}
			if n, err := unix.Listxattr(l.Merged+"/"+name, nil); err != nil || n != 0 {
				t.Errorf("%s shows attributes: %d bytes, %v", name, n, err)
			}
		}
		got, err := os.ReadFile(l.Merged + "/sparse")
		if err != nil || len(got) != 1<<20+3 || !bytes.HasSuffix(got, []byte("\x00end")) {
			t.Errorf("sparse: %d bytes, %v", len(got), err)
		}
		fd, err := unix.Open(l.Merged+"/sparse", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || off == 0 || off > 1<<20 {
			t.Errorf("data begins at %d, %v", off, err)
		}
		must(t, unix.Close(fd))
		// tar asks for the blocks before it reads.
		uniontest.Run(t, m, "sh", "-c", `d=$(mktemp -d) && cd "$1" && tar cSf - . | tar xSf - -C "$d" && diff -r . "$d" && rm -r "$d"`, "sh", l.Merged)
		m.Remount()
	}
}

// Copying such a file up takes its data from where that is.
func TestCopyUpOfMetacopy(t *testing.T) {
	for _, redirect := range []string{"off", "on"} {
		l := metacopyLayers(t)
		m := uniontest.Start(t, uniontest.Laminafs, l, "redirect_dir="+redirect)
		for name, want := range metacopied {
			var st unix.Stat_t
			must(t, unix.Stat(l.Merged+"/"+name, &st))
			f, err := os.OpenFile(l.Merged+"/"+name, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString("+")
			must(t, err, f.Close())
			wantContent(t, l.Merged+"/"+name, want+"+")
			var now unix.Stat_t
			must(t, unix.Stat(l.Merged+"/"+name, &now))
			if now.Ino != st.Ino || now.Mode != st.Mode || now.Uid != st.Uid {
				t.Errorf("%s: inode %d, mode %o; was %d, %o", name, now.Ino, now.Mode, st.Ino, st.Mode)
			}
		}
		var st unix.Stat_t
		must(t, os.Chmod(l.Merged+"/sparse", 0o600), unix.Stat(l.Upper+"/sparse", &st))
		if st.Blocks*512 > 1<<19 || st.Uid != 1 || st.Gid != 2 {
			t.Errorf("sparse: %d blocks, owner %d:%d", st.Blocks, st.Uid, st.Gid)
		}
		must(t, os.Rename(l.Merged+"/e", l.Merged+"/f"))
		for range 2 {
			wantContent(t, l.Merged+"/f/in", "data of d/in+")
			wantContent(t, l.Upper+"/same", "data of same+")
			if got, err := os.ReadFile(l.Merged + "/sparse"); err != nil || !bytes.HasSuffix(got, []byte("\x00end")) {
				t.Errorf("sparse: %d bytes, %v", len(got), err)
			}
			m.Remount()
		}
	}
}

// A layer can say what it likes of where the data is.
func TestHostileMetacopy(t *testing.T) {
	uniontest.NeedRoot(t)
	uniontest.NeedFuse(t)
	l := uniontest.NewLayers(t, 3)
	top, middle, bottom := l.Lowers[0], l.Lowers[1], l.Lowers[2]
	set := func(path, attr, value string) {
		must(t, unix.Setxattr(path, "trusted.overlay."+attr, []byte(value), 0))
	}
	const size = 6
	mark := func(dir, name string) {
		write(t, dir+"/"+name, "")
		must(t, os.Truncate(dir+"/"+name, size))
		set(dir+"/"+name, "metacopy", "")
	}
	must(t, os.MkdirAll(bottom+"/dir", 0o755), os.Mkdir(top+"/opaque", 0o755), os.Mkdir(bottom+"/opaque", 0o755),
		os.Symlink("secret", bottom+"/link"), unix.Mkfifo(bottom+"/fifo", 0o600), os.Symlink("/", bottom+"/out"),
		unix.Mknod(middle+"/whiteout", unix.S_IFCHR, 0))
	for _, name := range []string{"secret", "opaque/f", "whiteout", "wh", "user", "loop"} {
		write(t, bottom+"/"+name, "secret")
	}
	write(t, bottom+"/short", "1")
	write(t, middle+"/.wh.wh", "")
	write(t, l.Dir+"/outside", "secret")
	for _, name := range []string{"none", "short", "link", "fifo", "dir", "whiteout", "wh", "opaque/f"} {
		mark(top, name)
	}
	set(top+"/opaque", "opaque", "y")
	for name, redirect := range map[string]string{"absolute": "/../outside", "dots": "..", "through": "/out/etc/passwd",
		"empty": "", "slash": "/", "missing": "/nowhere/secret", "file": "/secret/x", "self": "/self"} {
		mark(top, name)
		set(top+"/"+name, "redirect", redirect)
	}
	mark(middle, "chain") // whose end is not there
	mark(top, "chain")
	write(t, top+"/user", "")
	must(t, os.Truncate(top+"/user", size), unix.Setxattr(top+"/user", "user.overlay.metacopy", nil, 0))

	uniontest.Start(t, uniontest.Laminafs, l)
	for _, name := range []string{"none", "short", "link", "fifo", "dir", "whiteout", "wh", "opaque/f", "absolute", "dots",
		"through", "empty", "slash", "missing", "file", "self", "chain", "user"} {
		path := l.Merged + "/" + name
		if got, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: reads %q, %v; want EIO", name, got, err)
		}
		if err := os.Chmod(path, 0o600); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: copy-up: %v, want EIO", name, err)
		}
		if err := os.WriteFile(path, []byte("anew"), 0o600); err != nil { // all that is missing is thrown away
			t.Errorf("%s: truncate: %v", name, err)
		}
		wantContent(t, path, "anew")
	}
}
