package endpoint

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, want string // want begins with "error: " for one
		local    bool
	}{
		{"unix:/run/x.sock", "unix:/run/x.sock", true},
		{"unix:x.sock", "unix:x.sock", true},
		{"unix:/a:b,c", "unix:/a:b,c", true},
		{"127.0.0.1:9000", "127.0.0.1:9000", true},
		{"127.9.9.9:9000", "127.9.9.9:9000", true},
		{"localhost:9000", "127.0.0.1:9000", true},
		{"[::1]:9000", "[::1]:9000", true},
		{"[::ffff:127.0.0.1]:9000", "[::ffff:127.0.0.1]:9000", true},
		{"0.0.0.0:65535", "0.0.0.0:65535", false},
		{"[::]:1", "[::]:1", false},
		{"192.0.2.1:80", "192.0.2.1:80", false},
		{"", "error: want unix:PATH or 127.0.0.1:PORT", false},
		{"9000", "error: want unix:PATH or 127.0.0.1:PORT", false},
		{"/run/x.sock", "error: want unix:PATH or 127.0.0.1:PORT", false},
		{":9000", "error: no address: want 127.0.0.1:PORT, or 0.0.0.0:PORT for the whole network", false},
		{"example.org:80", `error: address "example.org": want a number, 127.0.0.1 for example`, false},
		{"127.0.0.1:0", `error: port "0": want 1 to 65535`, false},
		{"127.0.0.1:65536", `error: port "65536": want 1 to 65535`, false},
		{"127.0.0.1:http", `error: port "http": want 1 to 65535`, false},
		{"unix:", "error: unix: has no path behind it", false},
		{"unix:/", "error: unix:/ is a directory, no socket", false},
		{"unix://", "error: unix:/ is a directory, no socket", false},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			a, err := Parse(tt.in)
			if want, bad := strings.CutPrefix(tt.want, "error: "); bad {
				if err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
				return
			}
			if err != nil || a.String() != tt.want || a.Local() != tt.local {
				t.Errorf("got %s, local %v, %v", a, a.Local(), err)
			}
			if again, err := Parse(a.String()); err != nil || again != a {
				t.Errorf("read again it is %s, %v", again, err)
			}
		})
	}
}

func TestAbs(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"unix:x/s": "unix:" + wd + "/x/s", "unix:/x": "unix:/x", "127.0.0.1:1": "127.0.0.1:1",
	} {
		a, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if a, err = a.Abs(); err != nil || a.String() != want {
			t.Errorf("%s is %s, %v", in, a, err)
		}
	}
}

func TestPathThatIsTooLong(t *testing.T) {
	_, err := Listen(Address{Path: "/" + strings.Repeat("x", 107)})
	if err == nil || !strings.HasSuffix(err.Error(), ": the path of a socket has at most 107 bytes") {
		t.Error(err)
	}
}

func listenAt(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(Address{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestSocketIsTheOwners(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "s")
	l := listenAt(t, path)
	if st, err := os.Lstat(path); err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := Listen(Address{Path: path}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one does not listen any more: %v", err)
	} else {
		_ = c.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it stays: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	l := listenAt(t, path)
	// Replaced by another one in turn, the file is not ours any more.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenAt(t, path)
	_ = l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other one's file is gone: %v", err)
	}
}

// A listener that is asked by more than it has room for is one.
func TestBusySocketIsInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // which is one too many for the next
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := Parse("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(a); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%v, %v; want %v", l, err, unix.EADDRINUSE)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		_, err := Listen(Address{Path: path})
		if want := "listen at unix:" + path + ": file exists, and is no socket"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := Listen(Address{Path: filepath.Join(dir, "absent/s")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

// Of several who want one path, one gets it, also where a stale file has to go first.
func TestOneGetsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 20 {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		_ = dead.Close()
		var got atomic.Int32
		var wg sync.WaitGroup
		all := make(chan net.Listener, 8)
		for range cap(all) {
			wg.Go(func() {
				l, err := Listen(Address{Path: path})
				switch {
				case err == nil:
					got.Add(1)
					all <- l
				case !errors.Is(err, unix.EADDRINUSE):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d listen", got.Load())
		}
		_ = (<-all).Close()
	}
}

func TestPortInUse(t *testing.T) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	a, err := Parse(first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(a); err == nil || err.Error() != "listen at "+a.String()+": address already in use" {
		t.Error(err)
	}
}

// Who asks for the network of IPv4 is not reached by that of IPv6.
func TestAddressesOfOneFamily(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("needs IPv6: %v", err)
	} else {
		_ = l.Close()
	}
	for in, reached := range map[string]bool{"0.0.0.0": false, "[::ffff:0.0.0.0]": false, "127.0.0.1": false, "[::1]": true, "[::]": true} {
		t.Run(in, func(t *testing.T) {
			port := freePort(t)
			a, err := Parse(in + ":" + port)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Listen(a)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if c, err := net.Dial("tcp6", "[::1]:"+port); err == nil {
				_ = c.Close()
				if !reached {
					t.Error("it is reached by IPv6")
				}
			} else if reached || !errors.Is(err, unix.ECONNREFUSED) {
				t.Error(err)
			}
			c, err := net.Dial("tcp4", "127.0.0.1:"+port)
			if err == nil {
				_ = c.Close()
			}
			if want := in != "[::1]"; (err == nil) != want {
				t.Errorf("by IPv4: %v, want that it is reached: %v", err, want)
			}
		})
	}
}

// freePort is one that nobody has now, of either family.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
