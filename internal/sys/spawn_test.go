package sys

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func wait(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	if err := retry(func() error { _, err := unix.Wait4(pid, &status, 0, nil); return err }); err != nil {
		t.Fatal(err)
	}
	return status
}

func TestSpawn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	exe, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	var released int
	s := Spawn{
		Exe: int(exe.Fd()), Args: []string{"sh", "-c", "echo $FOO; pwd; [ -t 0 ] || echo 0 is no terminal >&2; exit 3"}, Env: []string{"FOO=bar"}, Dir: "/usr",
		// The same descriptor twice, and in an order that overwrites sources if it were done naively.
		Files: []int{int(r.Fd()), int(w.Fd()), int(w.Fd())},
	}
	pid, pidfd, err := s.Start(func(pid int) error { released = pid; return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer Close(pidfd)
	_ = w.Close()
	if st := wait(t, pid); st.ExitStatus() != 3 {
		t.Errorf("status %v", st)
	}
	buf := make([]byte, 200)
	n, _ := r.Read(buf)
	if got := string(buf[:n]); got != "bar\n/usr\n0 is no terminal\n" || released != pid {
		t.Errorf("%q, released %d, pid %d", got, released, pid)
	}
}

func TestSpawnFails(t *testing.T) {
	tests := []struct {
		step string
		err  error
		s    Spawn
	}{
		{"execve", unix.ENOENT, Spawn{Path: "/no/such/program", Args: []string{"x"}}},
		{"execve", unix.EACCES, Spawn{Path: "/etc/passwd", Args: []string{"x"}}},
		{"chdir", unix.ENOTDIR, Spawn{Path: "/bin/sh", Args: []string{"sh"}, Dir: "/etc/passwd"}},
		{"setns", unix.EBADF, Spawn{Path: "/bin/sh", Args: []string{"sh"}, Join: []Join{{Fd: 1 << 20}}}},
	}
	for _, tt := range tests {
		_, _, err := tt.s.Start(nil)
		var step *SpawnError
		if !errors.As(err, &step) || step.Step != tt.step || !errors.Is(err, tt.err) {
			t.Errorf("%v, want %s: %v", err, tt.step, tt.err)
		}
	}
	boom := errors.New("no map")
	var pid int
	s := Spawn{Path: "/bin/sh", Args: []string{"sh", "-c", "echo this must not run"}, Files: []int{0, 1, 2}}
	if _, _, err := s.Start(func(p int) error { pid = p; return boom }); !errors.Is(err, boom) {
		t.Errorf("%v, want the error of release", err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("process %d: %v, want that it is gone", pid, err)
	}
	if _, _, err := (&Spawn{Path: "/bin/sh", Args: []string{"sh"}, Files: []int{1 << 20}}).Start(nil); !errors.Is(err, unix.EBADF) {
		t.Errorf("%v, want EBADF", err)
	}
}
