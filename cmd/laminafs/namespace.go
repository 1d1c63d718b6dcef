package main

import (
	"errors"
	"fmt"
	"path/filepath"
	goruntime "runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/unionfs/transport"
)

// initialNamespace is the number of the first mount namespace of the machine, on kernels where it is always the same:
// MNT_NS_INIT_INO of linux/nsfs.h (6.17). Process 1 may be out of our sight, behind another user namespace.
const initialNamespace = 0xEFFFFFF8

// mustLeave returns the number of our mount namespace if a server in it would keep it alive although it is to end
// with its last program, and 0 otherwise. The namespace of process 1 is not such a one. Only root, of the machine or
// of a user namespace, can leave.
func mustLeave() uint64 {
	ours, err := namespaceOf("self")
	if err != nil {
		return 0 // no /proc: nothing to find out
	}
	if first, err := namespaceOf("1"); err == nil && first == ours || ours == initialNamespace || !hasSysAdmin() {
		return 0
	}
	return ours
}

// hasSysAdmin tells whether we have CAP_SYS_ADMIN in our user namespace.
func hasSysAdmin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// namespaceOf is the number of a process' mount namespace.
func namespaceOf(pid string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+pid+"/ns/mnt", &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// leave moves the calling thread into a copy of its mount namespace, in which nothing shows up that is mounted in the
// old one from now on. The thread is locked and about to execute something.
func leave() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leave the mount namespace: %w", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("leave the mount namespace: make / private: %w", err)
	}
	return nil
}

// prune takes everything out of the namespace of a server that has left its caller's, so that nothing stays in use
// there that is unmounted elsewhere. Layers are open by now and stay so. Kept are the root and /proc, through which
// descriptors are opened anew. A mount that was handed down by a more privileged namespace cannot be taken out.
func prune() {
	mounts, err := sys.Mounts()
	if err != nil {
		return // it stays as it is
	}
	for _, m := range slices.Backward(mounts) {
		if m.Path == "/" || m.Path == "/proc" {
			continue
		}
		_ = unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // what cannot go stays
	}
}

// unmountIn unmounts target in the mount namespace ns, which we have left. Somebody has to be in it: it would be gone
// otherwise, and the mount with it.
func unmountIn(ns uint64, target string, lazy bool) error {
	procs, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		return err
	}
	for _, path := range procs {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it has ended, or is not ours to look at
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Ino != ns {
			_ = unix.Close(fd) // of another namespace
			continue
		}
		defer unix.Close(fd) // and with it the namespace stays, whatever becomes of the process
		done := make(chan error, 1)
		go func() {
			goruntime.LockOSThread() // never given back: the thread ends with the goroutine
			done <- enterAndUnmount(fd, target, lazy)
		}()
		return <-done
	}
	return errors.New("nobody is left in its mount namespace")
}

func enterAndUnmount(fd int, target string, lazy bool) error {
	// Root and working directory, which setns(2) changes, must not be those of other threads.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return transport.Unmount(target, lazy)
}
