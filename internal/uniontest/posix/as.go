package posix

import (
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Users and groups of the cases. They need no entry in passwd(5); all fit in a range of 65,536 subordinate ids.
const (
	alice = 2001
	bob   = 2002
	staff = 3001
)

// isolated runs fn on a thread that has umask and working directory for itself, and that ends with it. One isolated
// call in another starts over: a fresh thread has the credentials of the process.
func (t *T) isolated(fn func()) {
	t.inside(func() {
		goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
		t.ok(unix.Unshare(unix.CLONE_FS))
		fn()
	})
	if t.failed() {
		goruntime.Goexit()
	}
}

// as runs fn with the credentials of a user: uid, gid and supplementary groups. Credentials belong to a thread
// (credentials(7)); the library's calls would change them for all threads, so these are the bare system calls.
func (t *T) as(uid, gid int, groups []int, fn func()) {
	t.isolated(func() {
		ids := make([]uint32, len(groups)+1)
		for i, g := range groups {
			ids[i] = uint32(g)
		}
		check := func(errno unix.Errno) {
			if errno != 0 {
				t.Fatalf("changing to user %d: %v", uid, errno)
			}
		}
		_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&ids[0])), 0)
		check(e)
		_, _, e = unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		check(e)
		_, _, e = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		check(e)
		fn()
	})
}

// alice runs fn as a user who owns what a tree gives to 2001, in the group of the same number.
func (t *T) alice(fn func()) { t.as(alice, alice, nil, fn) }

// bob runs fn as another user, a stranger to alice's files.
func (t *T) bob(fn func()) { t.as(bob, bob, nil, fn) }

// umask runs fn with the umask.
func (t *T) umask(mask int, fn func()) {
	t.isolated(func() {
		unix.Umask(mask)
		fn()
	})
}

// in runs fn with the working directory name.
func (t *T) in(name string, fn func()) {
	t.isolated(func() {
		t.ok(unix.Chdir(t.p(name)))
		fn()
	})
}
