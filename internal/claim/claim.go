// Package claim is the hold that a mount has on its upper and on its work directory, so that no other mount writes to
// them meanwhile.
//
// The hold is a lock on the open directory (flock(2)). Beside it the holder says how far it is, by locking a byte of
// the directory for reading (fcntl(2), F_OFD_SETLK): nothing is written, there is nothing to read, and both locks die
// with the process.
//
//	byte                the holder
//	0                   makes its mount
//	1 + MINOR           serves it; MINOR is the minor number of its device, whose major is 0
//	1 << 40             finishes what it was about when the mount went, and lets go then
//	1 << 41 + TIME      (beside the second) had its mount by then; TIME is in milliseconds since 1970
//
// umount(8) returns when the kernel has let go of the mount, which is a moment before the server has. So who wants the
// directory next has to tell a holder whose mount lives, and will, from one that is about to end. It looks at the bytes,
// and for the device among the mounts of the machine. The number of a device is given out again as soon as it is free;
// so its age counts, where the kernel tells it.
package claim

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// The bytes that are locked.
const (
	making     = 0
	firstMinor = 1
	ending     = 1 << 40
	firstTime  = 1 << 41
)

// A state is what can be said of a holder.
type state int

const (
	unknown state = iota // it may be either
	live                 // its mount is there
	seen                 // a mount on its device is there: its own, or by now another's
	leaving              // its mount is gone
)

// How long a holder is waited for, by what is known of it. A mount that lives may be on its way out, where its mount
// namespace ends or its last user goes. Who leaves is waited for without a limit.
var patience = map[state]time.Duration{
	live:    500 * time.Millisecond,
	seen:    2 * time.Second,
	unknown: 4 * time.Second,
}

// pause is how often is looked.
const pause = 10 * time.Millisecond

// Take takes hold of the directory fd, open for reading, and waits for a holder that leaves.
//
// Errors: EBUSY where another mount has it.
func Take(fd int) error {
	was, since, late := unknown, time.Now(), false
	for ; ; time.Sleep(pause) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			mark(fd, making)
			return nil
		}
		if err == unix.EINTR {
			continue
		}
		if err != unix.EWOULDBLOCK {
			return err
		}
		// A holder that lets go, or goes on to its next state, is seen as one of whom nothing is known for a moment. So each
		// state has its own time, and what is seen when that is over has to be seen twice.
		if holder := look(fd); holder != was {
			was, since, late = holder, time.Now(), false
			continue
		}
		if limit, ok := patience[was]; ok && time.Since(since) > limit {
			if late {
				return fmt.Errorf("in use by another mount: %w", unix.EBUSY)
			}
			late = true
		}
	}
}

// Serving says that the mount for which fd was taken is there, on a device with this minor number.
func Serving(fd int, minor uint32) {
	lock(fd, unix.F_RDLCK, firstTime+time.Now().UnixMilli()+1, 1) // the next one: not before it
	mark(fd, firstMinor+int64(minor))
}

// Ending says that the mount for which fd was taken is gone. The holder may still write for a while.
func Ending(fd int) {
	mark(fd, ending)
}

// Release lets go of fd: from now on the directory may be another's. Closing fd does so too.
func Release(fd int) {
	lock(fd, unix.F_UNLCK, 0, 0)
	_ = unix.Flock(fd, unix.LOCK_UN) // cannot fail for a lock that we have
}

// mark locks byte b, and no other of those that stand for a state.
func mark(fd int, b int64) {
	lock(fd, unix.F_RDLCK, b, 1)
	if b > 0 {
		lock(fd, unix.F_UNLCK, 0, b)
	}
	lock(fd, unix.F_UNLCK, b+1, firstTime-b-1)
}

// lock sets a lock. A filesystem that has none leaves the others in doubt.
func lock(fd int, typ int16, start, length int64) {
	_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Start: start, Len: length})
}

// look tells what is known of the holder of fd.
func look(fd int) state {
	if _, is := locked(fd, ending, 1); is {
		return leaving
	}
	b, is := locked(fd, firstMinor, ending-firstMinor)
	if !is {
		return unknown
	}
	ms, _ := locked(fd, firstTime, 0)
	return stateOf(uint32(b-firstMinor), time.UnixMilli(ms-firstTime))
}

// locked returns the first byte that another has locked among length from start on, or from there to the end.
func locked(fd int, start, length int64) (int64, bool) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: length}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil || l.Type == unix.F_UNLCK {
		return 0, false
	}
	return l.Start, true
}

// connections is where the kernel lists the FUSE connections that live, by the minor number of their device.
var connections = "/sys/fs/fuse/connections"

// fuseCtlMagic is FUSE_CTL_SUPER_MAGIC of fs/fuse/control.c.
const fuseCtlMagic = 0x65735543

// listedBefore tells whether the list of connections was there at a time. What is in it when it is mounted gets the time of that
// (fs/fuse/control.c, fuse_ctl_fill_super), as does the list itself; later its change time moves when a connection goes (since 6.17), and its
// access time when somebody lists it.
func listedBefore(when time.Time) bool {
	var st unix.Stat_t
	if err := unix.Lstat(connections, &st); err != nil {
		return false
	}
	return slices.ContainsFunc([]unix.Timespec{st.Atim, st.Mtim, st.Ctim}, func(t unix.Timespec) bool {
		return !time.Unix(t.Unix()).After(when)
	})
}

// stateOf is the state of a holder that had a mount on the device 0:minor at a time. Without the list of connections
// nothing is known of a mount that is not in our mount namespace: it may be in another, or detached and in use.
func stateOf(minor uint32, had time.Time) state {
	var fs unix.Statfs_t
	if err := unix.Statfs(connections, &fs); err == nil && fs.Type == fuseCtlMagic {
		fi, err := os.Lstat(connections + "/" + strconv.FormatUint(uint64(minor), 10))
		switch {
		case os.IsNotExist(err): // nobody's
			return leaving
		case err == nil && !fi.ModTime().After(had):
			return live
		case err == nil && listedBefore(had): // another's, made later
			return leaving
		}
	}
	mounts, err := sys.Mounts()
	if err != nil {
		return unknown
	}
	for _, m := range mounts {
		if m.Major == 0 && m.Minor == minor && strings.HasPrefix(m.FSType, "fuse") {
			return seen
		}
	}
	return unknown
}
