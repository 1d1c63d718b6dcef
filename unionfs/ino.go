package unionfs

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/laminafs/lamina/internal/sys"
	"golang.org/x/sys/unix"
)

// Inode numbers. Where all layers are on one filesystem an object has the number it has there. Else the number of
// its device among those of the mount stands in the bits above inoBits, as kernel overlayfs does with xino; numbers
// that need these bits themselves are hashed with the device. Either way a number is the same after a remount.
const inoBits = 56

// foreignDevice stands for the device of what lies on another one than its layer does, as the subvolumes of btrfs do. The
// number that goes with it is made of both, and is the one shown. Layers' own devices have lower numbers.
const foreignDevice = 1<<16 - 1

// number makes the inode number shown for an object from its device number and st_ino in the layer.
func (fs *FS) number(device int, ino uint64) uint64 {
	if len(fs.devices) == 1 || fs.cfg.NoXino || device == foreignDevice {
		return ino
	}
	if ino>>inoBits != 0 || device >= 1<<(63-inoBits) {
		return hashIno(uint64(device), ino)
	}
	return uint64(device)<<inoBits | ino
}

// inoOf makes the inode number of an object of layer l that was not copied up.
func (fs *FS) inoOf(l *layer, st *unix.Stat_t) uint64 {
	id := fs.originIn(l, st)
	return fs.number(id.device, id.ino)
}

// originIn returns what is recorded as the origin of a copy of an object of layer l.
func (fs *FS) originIn(l *layer, st *unix.Stat_t) lowerID {
	if fs.cfg.NoXino {
		return lowerID{l.device, st.Ino}
	}
	return fs.identity(l, st)
}

// identity tells an object of layer l from all others of all lower layers.
func (fs *FS) identity(l *layer, st *unix.Stat_t) lowerID {
	if st.Dev == l.dev {
		return lowerID{l.device, st.Ino}
	}
	dev := st.Dev
	if id, ok := fs.foreign.Load(dev); ok {
		dev = id.(uint64)
	}
	return lowerID{foreignDevice, hashIno(dev, st.Ino)}
}

// meet notes by what the device dev of the object at of layer l, where it is not that of the layer, is known from one mount to
// the next: by the number that statfs(2) has for the filesystem. st_dev is another one after the next boot.
func (fs *FS) meet(l *layer, at sys.At, dev uint64) {
	if dev == l.dev {
		return
	}
	if _, known := fs.foreign.Load(dev); known {
		return
	}
	id := dev
	if own, err := fsid(sys.Fd(l.fd)); err == nil {
		if other, err := fsid(at); err == nil && other != 0 && other != own {
			id = other
		}
	}
	fs.foreign.Store(dev, id)
}

// fsid returns f_fsid of the filesystem that the object is on.
func fsid(at sys.At) (uint64, error) {
	fd, err := sys.Open(at, unix.O_PATH, 0)
	if err != nil {
		return 0, err
	}
	defer sys.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	return uint64(uint32(st.Fsid.Val[0]))<<32 | uint64(uint32(st.Fsid.Val[1])), nil
}

// hashIno maps a device and an inode number to a number with the top bit but one set, where number puts none.
func hashIno(dev, ino uint64) uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], dev)
	binary.LittleEndian.PutUint64(b[8:], ino)
	h := fnv.New64a()
	_, _ = h.Write(b[:]) // never fails
	return h.Sum64()>>2 | 1<<62
}
