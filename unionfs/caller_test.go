package unionfs

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	alice, bob = 2001, 2002
	staff      = 3001
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be others, and give files to them")
	}
}

// program starts a program that waits, and returns its pid.
func program(t *testing.T, attr *syscall.SysProcAttr) uint32 {
	t.Helper()
	needRoot(t)
	cmd := exec.Command("cat")
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait() // it was only to be there
	})
	return uint32(cmd.Process.Pid)
}

func credential(uid, gid uint32, groups ...uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
}

// inUserNamespace is a root of a user namespace that has the ids from first on.
func inUserNamespace(first, size int) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: size}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
}

// newCalled is a union with a lower file low and an upper file up, set-gid and of alice and staff, in the folder top.
func newCalled(t *testing.T, readOnly bool) (f *calls, top string) {
	t.Helper()
	needRoot(t)
	top = t.TempDir()
	cfg := Config{Lowers: []string{top + "/l"}}
	if !readOnly {
		cfg.Upper, cfg.Work = top+"/u", top+"/w"
	}
	for _, dir := range []string{"l", "u", "w"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"l/low", "u/up"} {
		path := filepath.Join(top, name)
		if err := os.WriteFile(path, []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, alice, staff); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, 0o2755); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return &calls{FS: fs, t: t, root: fuse.FUSE_ROOT_ID}, top
}

func by(uid, gid, pid uint32) fuse.Caller {
	return fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: pid}
}
