package unionfs

import (
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// offers is a kernel with what INIT has offered.
type offers struct {
	nobody
	caps uint64
}

func (o offers) Offers(caps uint64) bool { return o.caps&caps == caps }

// An older kernel passes on what one outside a directory's group asks for: an executable that runs as the group.
func TestSetGIDInADirectoryOfAnotherGroup(t *testing.T) {
	inStaff := program(t, credential(alice, alice, staff))
	outside := program(t, credential(alice, alice, bob))
	for _, tt := range []struct {
		what   string
		who    fuse.Caller
		offers uint64
		mode   uint32
		want   uint32
	}{
		{"outside the group", by(alice, alice, outside), 0, 0o2755, 0o755},
		{"/proc tells nothing", by(alice, alice, 0), 0, 0o2755, 0o755},
		{"a supplementary group", by(alice, alice, inStaff), 0, 0o2755, 0o2755},
		{"the group itself", by(alice, staff, outside), 0, 0o2755, 0o2755},
		{"root", by(0, 0, 0), 0, 0o2755, 0o2755},
		{"no executable", by(alice, alice, outside), 0, 0o2744, 0o2744},
		{"a device", by(alice, alice, outside), 0, unix.S_IFIFO | 0o2755, 0o755},
		{"the kernel has looked", by(alice, alice, outside), fuse.CAP_CREATE_SUPP_GROUP, 0o2755, 0o2755},
	} {
		f, top := newCalled(t, false)
		f.SetNotifier(offers{caps: tt.offers})
		if err := os.Mkdir(top+"/u/d", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(top+"/u/d", 0, staff); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(top+"/u/d", 0o2777); err != nil {
			t.Fatal(err)
		}
		if tt.mode&unix.S_IFMT == 0 {
			tt.mode |= unix.S_IFREG
		}
		in := fuse.MknodIn{Mode: tt.mode}
		in.NodeId, in.Caller = f.lookup(f.root, "d"), tt.who
		if s := f.Mknod(nil, &in, "f", new(fuse.EntryOut)); s != fuse.OK {
			t.Fatalf("%s: %v", tt.what, s)
		}
		var st unix.Stat_t
		if err := unix.Stat(top+"/u/d/f", &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != tt.want || st.Gid != staff {
			t.Errorf("%s: mode %o, group %d, want %o, %d", tt.what, st.Mode&0o7777, st.Gid, tt.want, staff)
		}
	}
}
