package unionfs

import (
	"encoding/binary"
	"hash/fnv"

	"golang.org/x/sys/unix"
)

// Inode numbers. Where all layers are on one filesystem an object has the number it has there. Else the number of
// its device among those of the mount stands in the bits above inoBits, as kernel overlayfs does with xino; numbers
// that need these bits themselves are hashed with the device. Either way a number is the same after a remount.
const inoBits = 56

// number makes the inode number shown for an object from its device number and st_ino in the layer.
func (fs *FS) number(device int, ino uint64) uint64 {
	if len(fs.devices) == 1 || fs.cfg.NoXino {
		return ino
	}
	if ino>>inoBits != 0 || device >= 1<<(63-inoBits) {
		return hashIno(uint64(device), ino)
	}
	return uint64(device)<<inoBits | ino
}

// inoOf makes the inode number of an object of layer l that was not copied up. An object that lies on another
// device than its layer, as the subvolumes of btrfs do, gets a number of its own kind.
func (fs *FS) inoOf(l *layer, st *unix.Stat_t) uint64 {
	if st.Dev != l.dev && !fs.cfg.NoXino {
		return hashIno(st.Dev, st.Ino)
	}
	return fs.number(l.device, st.Ino)
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
