package unionfs

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Flags of ioctl_iflags(2), as in linux/fs.h.
const (
	fsAppend  = 0x20
	fsNodump  = 0x40
	fsProjInh = 0x20000000
)

func (f *calls) ioctl(who fuse.Caller, name string, cmd uint32, arg []byte) fuse.Status {
	in := fuse.IoctlIn{Cmd: cmd}
	in.NodeId, in.Caller = f.lookup(f.root, name), who
	return f.Ioctl(nil, &in, arg, new(fuse.IoctlOut), arg)
}

// needFlags skips where the filesystem of the layers has no flags.
func (f *calls) needFlags(t *testing.T) {
	t.Helper()
	if s := f.ioctl(by(0, 0, 0), "low", unix.FS_IOC_GETFLAGS, make([]byte, 4)); s != fuse.OK {
		t.Skipf("FS_IOC_GETFLAGS in %s: %v", os.TempDir(), s)
	}
}

func flagsArg(flags uint32) []byte { return binary.NativeEndian.AppendUint32(nil, flags) }

func (f *calls) flags(name string) uint32 {
	f.t.Helper()
	arg := make([]byte, 4)
	if s := f.ioctl(by(0, 0, 0), name, unix.FS_IOC_GETFLAGS, arg); s != fuse.OK {
		f.t.Fatal(s)
	}
	return binary.NativeEndian.Uint32(arg)
}

// An older kernel passes on what anybody asks for: requests are made directly here.
func TestFlagsAreTheOwners(t *testing.T) {
	f, top := newCalled(t, false)
	f.needFlags(t)
	alicePid := program(t, credential(alice, staff))
	bobPid := program(t, credential(bob, bob))
	rootPid := program(t, credential(0, 0))
	nsPid := program(t, inUserNamespace(1000, 5000))
	otherNsPid := program(t, inUserNamespace(100000, 5000))
	xattr := func(name string, change func([]byte)) []byte {
		arg := make([]byte, fsxattrSize)
		if s := f.ioctl(by(0, 0, 0), name, sys.FSIocFSGetXattr, arg); s != fuse.OK {
			t.Fatal(s)
		}
		change(arg)
		return arg
	}
	for _, tt := range []struct {
		what string
		who  fuse.Caller
		cmd  uint32
		add  uint32 // to the flags
		want fuse.Status
	}{
		{"another user", by(bob, bob, bobPid), unix.FS_IOC_SETFLAGS, fsNodump, fuse.EPERM},
		{"one of the group", by(bob, staff, bobPid), unix.FS_IOC_SETFLAGS, fsNodump, fuse.EPERM},
		{"another user of whom /proc tells nothing", by(bob, bob, 0), unix.FS_IOC_SETFLAGS, fsNodump, fuse.EPERM},
		{"root of a namespace without the owner", by(100000, 100000, otherNsPid), unix.FS_IOC_SETFLAGS, fsNodump, fuse.EPERM},
		{"the owner, append-only", by(alice, staff, alicePid), unix.FS_IOC_SETFLAGS, fsAppend, fuse.EPERM},
		{"the owner, append-only, /proc tells nothing", by(alice, staff, 0), unix.FS_IOC_SETFLAGS, fsAppend, fuse.EPERM},
		{"uid 0 without a capability, append-only", by(0, 0, alicePid), unix.FS_IOC_SETFLAGS, fsAppend, fuse.EPERM},
		{"root of a namespace with the owner, append-only", by(1000, 1000, nsPid), unix.FS_IOC_SETFLAGS, fsAppend, fuse.EPERM},
		{"root of a namespace with the owner, project", by(1000, 1000, nsPid), unix.FS_IOC_SETFLAGS, fsProjInh, fuse.EINVAL},
		{"the owner, append-only, by fsxattr", by(alice, staff, alicePid), sys.FSIocFSSetXattr, 0x10, fuse.EPERM},
		{"another user, by fsxattr", by(bob, bob, bobPid), sys.FSIocFSSetXattr, 0x80, fuse.EPERM},
		{"another user, nothing changed", by(bob, bob, bobPid), sys.FSIocFSSetXattr, 0, fuse.EPERM},
	} {
		for _, name := range []string{"low", "up"} {
			before := f.flags(name)
			arg := flagsArg(before | tt.add)
			if tt.cmd == sys.FSIocFSSetXattr {
				arg = xattr(name, func(b []byte) {
					binary.NativeEndian.PutUint32(b, binary.NativeEndian.Uint32(b)|tt.add)
				})
			}
			if got := f.ioctl(tt.who, name, tt.cmd, arg); got != tt.want {
				t.Errorf("%s, %s: %v, want %v", name, tt.what, got, tt.want)
			}
			if after := f.flags(name); after != before {
				t.Fatalf("%s, %s: flags %#x, before %#x", name, tt.what, after, before)
			}
		}
		if _, err := os.Lstat(top + "/u/low"); err == nil {
			t.Fatalf("%s: the lower file was copied up", tt.what)
		}
	}
	for _, tt := range []struct {
		what string
		who  fuse.Caller
	}{
		{"the owner", by(alice, staff, alicePid)},
		{"the owner, /proc tells nothing", by(alice, staff, 0)},
		{"root", by(0, 0, rootPid)},
		{"root, /proc tells nothing", by(0, 0, 0)},
		{"root of a namespace with the owner", by(1000, 1000, nsPid)},
	} {
		for _, name := range []string{"up", "low"} {
			want := f.flags(name) ^ fsNodump
			if s := f.ioctl(tt.who, name, unix.FS_IOC_SETFLAGS, flagsArg(want)); s != fuse.OK {
				t.Errorf("%s, %s: %v", name, tt.what, s)
			} else if got := f.flags(name); got != want {
				t.Errorf("%s, %s: flags %#x, want %#x", name, tt.what, got, want)
			}
		}
	}
}

func TestFlagsOfAReadOnlyUnion(t *testing.T) {
	f, _ := newCalled(t, true)
	for _, uid := range []uint32{0, alice, bob} {
		if s := f.ioctl(by(uid, uid, 0), "low", unix.FS_IOC_SETFLAGS, flagsArg(fsNodump)); s != fuse.EROFS {
			t.Errorf("by %d: %v, want EROFS", uid, s)
		}
	}
}

// Who owns a file is decided by what is shown.
func TestFlagsOfAMappedOwner(t *testing.T) {
	f, _ := newCalled(t, false)
	f.needFlags(t)
	f.ids.uids = IDMap{{Container: alice, Host: bob, Size: 1}}
	now := flagsArg(f.flags("up") | fsNodump)
	if s := f.ioctl(by(alice, staff, 0), "up", unix.FS_IOC_SETFLAGS, bytes.Clone(now)); s != fuse.EPERM {
		t.Errorf("by the owner as stored: %v, want EPERM", s)
	}
	if s := f.ioctl(by(bob, bob, 0), "up", unix.FS_IOC_SETFLAGS, now); s != fuse.OK {
		t.Errorf("by the owner as shown: %v", s)
	}
}
