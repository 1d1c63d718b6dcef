package unionfs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// With static_nlink every answer says 1, the one to mkdir(2) too: the kernel keeps it.
func TestStaticNlink(t *testing.T) {
	st := unix.Stat_t{Mode: unix.S_IFDIR | 0o755, Nlink: 7}
	for _, static := range []bool{false, true} {
		fs := &FS{cfg: Config{StaticNlink: static}}
		var out fuse.Attr
		fs.fillAttr(&node{typ: unix.DT_DIR, dir: &dirState{}}, &st, &out)
		if want := map[bool]uint32{false: 7, true: 1}[static]; out.Nlink != want {
			t.Errorf("static_nlink %v: %d links of a directory, want %d", static, out.Nlink, want)
		}
		fs.fillAttr(&node{typ: unix.DT_REG}, &st, &out)
		if out.Nlink != 7 {
			t.Errorf("static_nlink %v: %d links of a file, want 7", static, out.Nlink)
		}
	}
}

func TestIDMap(t *testing.T) {
	m := IDMap{{Container: 0, Host: 100000, Size: 1}, {Container: 5, Host: 200000, Size: 10}}
	for _, tt := range []struct{ stored, shown uint32 }{{0, 100000}, {5, 200000}, {14, 200009}, {15, overflowID}, {1, overflowID}} {
		if got := m.shown(tt.stored); got != tt.shown {
			t.Errorf("id %d is shown as %d, want %d", tt.stored, got, tt.shown)
		}
		if tt.shown == overflowID {
			continue
		}
		if got, err := m.stored(tt.shown); err != nil || got != tt.stored {
			t.Errorf("id %d is stored as %d, %v, want %d", tt.shown, got, err, tt.stored)
		}
	}
	if _, err := m.stored(overflowID); err != unix.EINVAL {
		t.Errorf("an id of no range can be stored: %v", err)
	}
}

func TestInheritACL(t *testing.T) {
	acl := func(entries ...uint16) []byte { // tag and permissions in turn
		b := []byte{2, 0, 0, 0}
		for i := 0; i < len(entries); i += 2 {
			b = append(b, byte(entries[i]), 0, byte(entries[i+1]), 0, 0xe8, 3, 0, 0)
		}
		return b
	}
	tests := []struct {
		name   string
		def    []byte
		mode   uint32
		masked uint32
		access []byte // nil where the mode says it all
	}{
		{"mode alone", acl(aclUserObj, 7, aclGroupObj, 5, aclOther, 0), 0o666, 0o640, nil},
		{"a named user", acl(aclUserObj, 7, aclUser, 7, aclGroupObj, 5, aclMask, 7, aclOther, 5), 0o640, 0o640,
			acl(aclUserObj, 6, aclUser, 7, aclGroupObj, 5, aclMask, 4, aclOther, 0)},
	}
	for _, tt := range tests {
		access, masked, err := inheritACL(tt.def, tt.mode)
		if err != nil || masked != tt.masked || string(access) != string(tt.access) {
			t.Errorf("%s: % x, %o, %v; want % x, %o", tt.name, access, masked, err, tt.access, tt.masked)
		}
	}
	if _, _, err := inheritACL([]byte{2, 0, 0}, 0o666); err != unix.EINVAL {
		t.Errorf("a damaged ACL: %v", err)
	}
}
