package unionfs

import (
	"encoding/binary"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// POSIX ACLs as extended attributes: a version, then entries of tag, permissions and id, little endian
// (linux/posix_acl_xattr.h; acl(5)).
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"

	aclHeaderSize = 4
	aclEntrySize  = 8

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// inheritACL returns what a new object gets of its directory's default ACL: the access ACL, nil where the mode says
// it all, and the mode with the bits taken away that the ACL does not grant. The default ACL replaces the umask.
//
// Source: acl(5), "OBJECT CREATION AND DEFAULT ACLs"; kernel fs/posix_acl.c, posix_acl_create_masq.
func inheritACL(def []byte, mode uint32) (access []byte, masked uint32, err error) {
	if len(def) < aclHeaderSize || (len(def)-aclHeaderSize)%aclEntrySize != 0 {
		return nil, 0, unix.EINVAL
	}
	access = append([]byte(nil), def...)
	var group, mask []byte // the entries' permission fields
	extended := false
	for off := aclHeaderSize; off < len(access); off += aclEntrySize {
		perm := access[off+2 : off+4]
		p := uint32(binary.LittleEndian.Uint16(perm))
		switch binary.LittleEndian.Uint16(access[off:]) {
		case aclUserObj:
			p &= mode >> 6
			mode = mode&^0o700 | p<<6
			binary.LittleEndian.PutUint16(perm, uint16(p))
		case aclOther:
			p &= mode
			mode = mode&^0o007 | p
			binary.LittleEndian.PutUint16(perm, uint16(p))
		case aclGroupObj:
			group = perm
		case aclMask:
			mask, extended = perm, true
		case aclUser, aclGroup:
			extended = true
		default:
			return nil, 0, unix.EINVAL
		}
	}
	if mask == nil {
		mask = group
	}
	if mask == nil {
		return nil, 0, unix.EINVAL
	}
	p := uint32(binary.LittleEndian.Uint16(mask)) & (mode >> 3)
	binary.LittleEndian.PutUint16(mask, uint16(p))
	mode = mode&^0o070 | p<<3
	if !extended {
		return nil, mode, nil
	}
	return access, mode, nil
}

// defaultACL returns the default ACL of the upper directory p, nil where it has none. at is its descriptor.
func (fs *FS) defaultACL(p *node, fd int) ([]byte, error) {
	if p.dir.acl.Load() == aclNone {
		return nil, nil
	}
	v, err := sys.XattrValue(sys.Fd(fd), aclDefault)
	if err == unix.ENODATA || err == unix.ENOTSUP {
		p.dir.acl.Store(aclNone)
		return nil, nil
	}
	if err == nil {
		p.dir.acl.Store(aclSome)
	}
	return v, err
}

// mapACL translates the ids in an ACL's named entries by a function. What is no ACL is returned as it is: the
// kernel will refuse it.
func mapACL(acl []byte, user, group func(uint32) (uint32, error)) ([]byte, error) {
	if len(acl) < aclHeaderSize || (len(acl)-aclHeaderSize)%aclEntrySize != 0 {
		return acl, nil
	}
	out := append([]byte(nil), acl...)
	for off := aclHeaderSize; off < len(out); off += aclEntrySize {
		translate := user
		switch binary.LittleEndian.Uint16(out[off:]) {
		case aclUser:
		case aclGroup:
			translate = group
		default:
			continue
		}
		id, err := translate(binary.LittleEndian.Uint32(out[off+4:]))
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(out[off+4:], id)
	}
	return out, nil
}
