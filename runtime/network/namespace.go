package network

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// openNamespace opens the network namespace to connect, which must not be our own: its addresses would be changed.
func openNamespace(o *Options) (*os.File, error) {
	path := o.NetNS
	if path == "" {
		path = fmt.Sprintf("/proc/%d/ns/net", o.Pid)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	var theirs, ours unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &theirs); err != nil {
		_ = f.Close() // read-only
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &ours); err == nil && ours.Dev == theirs.Dev && ours.Ino == theirs.Ino {
		_ = f.Close() // read-only
		return nil, fmt.Errorf("network namespace %s is that of the machine", path)
	}
	return f, nil
}

// inside is a thread in the container's network namespace. Sockets that are made there belong to it, whoever uses them.
//
// When it is not needed any more the thread goes back instead of being thrown away: the end of a thread sends the
// parent-death signal to all that were started on it (prctl(2), PR_SET_PDEATHSIG). Root of a user namespace may not go
// back to the machine's network; then the thread sleeps for as long as the process lives.
type inside struct {
	calls chan func()
}

// enter puts a thread into the namespace.
func enter(ns *os.File) (*inside, error) {
	in := &inside{calls: make(chan func())}
	entered := make(chan error)
	go func() {
		goruntime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if entered <- err; err != nil {
			goruntime.UnlockOSThread()
			return
		}
		for fn := range in.calls {
			fn()
		}
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) != nil {
			_ = own.Close() // read-only
			select {}       // locked: nothing else may run here
		}
		goruntime.UnlockOSThread()
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("network namespace: setns: %w", err)
	}
	return in, nil
}

// do calls fn on the thread.
func (in *inside) do(fn func()) {
	done := make(chan struct{})
	in.calls <- func() {
		defer close(done)
		fn()
	}
	<-done
}

// leave lets the thread go; do must not be called any more.
func (in *inside) leave() { close(in.calls) }

// loopbackUp gives the namespace a working 127.0.0.1.
func loopbackUp(ns *os.File) error {
	in, err := enter(ns)
	if err != nil {
		return err
	}
	defer in.leave()
	in.do(func() { err = interfaceUp("lo") })
	return err
}

// interfaceUp sets the flag of an interface of the thread's namespace (netdevice(7)).
func interfaceUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("interface %s: socket: %w", name, err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("interface %s: SIOCGIFFLAGS: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("interface %s: SIOCSIFFLAGS: %w", name, err)
	}
	return nil
}
