package unionfs

import (
	"os"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// aliceReads is an ACL (linux/posix_acl_xattr.h): a version, then tag, permissions and id of each entry.
const aliceReads = "\x02\x00\x00\x00" +
	"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\xd1\x07\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
	"\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"

// A kernel that has offered FUSE_SETXATTR_EXT says by itself when set-gid falls.
func TestSetGIDFallsWithAnACL(t *testing.T) {
	inStaff := program(t, credential(alice, alice, bob, staff))
	outside := program(t, credential(alice, alice, bob))
	root := program(t, credential(0, 0))
	for _, tt := range []struct {
		what  string
		who   fuse.Caller
		told  bool
		attr  string
		keeps bool
	}{
		{"outside the group", by(alice, alice, outside), false, aclAccess, false},
		{"/proc tells nothing", by(alice, alice, 0), false, aclAccess, false},
		{"uid 0 without a capability", by(0, 0, outside), false, aclAccess, false},
		{"a supplementary group", by(alice, alice, inStaff), false, aclAccess, true},
		{"the group itself", by(alice, staff, outside), false, aclAccess, true},
		{"root", by(0, 0, root), false, aclAccess, true},
		{"root, /proc tells nothing", by(0, 0, 0), false, aclAccess, true},
		{"not an ACL", by(alice, alice, outside), false, "user.x", true},
		{"the kernel would have said so", by(alice, alice, outside), true, aclAccess, true},
	} {
		t.Run(strings.ReplaceAll(tt.what, "/", ""), func(t *testing.T) {
			f, top := newCalled(t, false)
			if tt.told {
				f.SetNotifier(offers{caps: fuse.CAP_SETXATTR_EXT})
			}
			for _, name := range []string{"low", "up"} {
				in := fuse.SetXAttrIn{Size: uint32(len(aliceReads))}
				in.NodeId, in.Caller = f.lookup(f.root, name), tt.who
				if s := f.SetXAttr(nil, &in, tt.attr, []byte(aliceReads)); s == fuse.Status(unix.EOPNOTSUPP) {
					t.Skipf("no %s in %s", tt.attr, os.TempDir())
				} else if s != fuse.OK {
					t.Fatal(s)
				}
				var st unix.Stat_t
				if err := unix.Stat(top+"/u/"+name, &st); err != nil {
					t.Fatal(err)
				}
				if keeps := st.Mode&unix.S_ISGID != 0; keeps != tt.keeps || st.Mode&0o777 != 0o755 {
					t.Errorf("%s: mode %o", name, st.Mode)
				}
			}
		})
	}
}
