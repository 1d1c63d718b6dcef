package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
	"github.com/laminafs/lamina/runtime/idmap"
)

// union is a mounted rootfs. We are the mounter of the picture in cmd/laminafs, and the server is our child, in a mount
// namespace of its own: one in ours would keep it, and the mount, alive when we die.
//
// The mount is there at once. Who uses it before laminafs has opened the layers waits in the kernel, so that what
// needs no file of the container is done meanwhile.
type union struct {
	sock     packet.Conn // to the server
	server   process
	target   string        // what it is mounted on, empty before that
	ready    chan struct{} // closed when it answers, or never will: err
	err      error
	syncOnce sync.Once       // of syncs
	syncs    chan struct{}   // closed when all that is still to be done is the disk's
	closed   chan struct{}   // closed when nothing is written to the upper any more: because laminafs has said so, if said
	said     bool            // after closed
	gone     chan struct{}   // closed when laminafs has let go of all it had, and only the kernel is busy with it
	ended    chan struct{}   // closed when laminafs has ended, and is reaped
	stderr   bytes.Buffer    // what it has said, once it has ended
	state    unix.WaitStatus // how it has ended
}

// newUnion starts the server of the container with that ID, which begins while it is not known yet what it is to serve: a program
// of Go takes longer for that than everything else does. One that is not needed in the end is dropped.
//
// Preconditions: cutMounts.
func (s *Store) newUnion(id string) (_ *union, err error) {
	bin, err := s.laminafs()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := packet.Pair()
	if err != nil {
		return nil, err
	}
	end := os.NewFile(uintptr(theirs), "laminafs")
	defer end.Close() // the server has it
	sock, err := packet.New(ours)
	if err != nil {
		return nil, err
	}
	u := &union{
		sock:  sock,
		ready: make(chan struct{}), syncs: make(chan struct{}), closed: make(chan struct{}), gone: make(chan struct{}), ended: make(chan struct{}),
	}
	env, err := s.serverEnv()
	if err == nil {
		args := []string{bin, mountSource, filepath.Join(s.dir(), id)} // for ps(1)
		err = u.start(bin, args, env, s.images.LayersDir(), end)
	}
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("%s: %w", bin, err)
	}
	return u, nil
}

// drop ends a server that has nothing to serve.
func (u *union) drop() {
	u.sock.Close()
	<-u.ended
}

// mount mounts the container's layers on the merged directory, in the mount namespace of this process, which is to be
// one of our own: nobody else sees the mount, and it ends with us. After an error the server is dropped.
//
// The layers are named relative to the folder that has the short links: 127 of them fit the option.
func (u *union) mount(c *Container) (err error) {
	defer func() {
		if err != nil {
			u.drop()
		}
	}()
	m, err := c.s.images.Mount(c.r.ID)
	if err != nil {
		return err
	}
	if err := u.command("-o", unionOptions(m, c), mountSource, m.Merged); err != nil {
		return fmt.Errorf("tell laminafs the container's layers: %w", err)
	}
	u.target = m.Merged
	if err := mountFuse(m.Merged, u.sock); err != nil {
		return fmt.Errorf("mount the container's layers: %w", err)
	}
	go func() {
		u.err = u.greet()
		close(u.ready)
		if u.said = u.err == nil && u.saysClosed(); !u.said {
			<-u.ended
		}
		close(u.closed)
		_, _, _ = u.sock.Receive(make([]byte, 1)) // the end: its descriptors are closed
		close(u.gone)
		u.sock.Close()
	}()
	return nil
}

// command tells the server its arguments.
func (u *union) command(args ...string) error {
	return whileItLives(u.sock.Send([]byte(strings.Join(args, "\x00")+"\x00"), -1))
}

// start starts the server. What it says is read until nobody can say anything more.
func (u *union) start(bin string, args, env []string, dir string, sock *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close() // the server has its own
	says, said, err := pipe(true)
	if err != nil {
		return err
	}
	pid, err := sys.StartProgram(bin, args, env, dir, []*os.File{null, null, said, sock},
		&syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}) // what is in it stays a slave, see cutMounts
	_ = said.Close()
	if err != nil {
		_ = says.Close()
		return err
	}
	u.server = identify(pid)
	go func() {
		_, _ = u.stderr.ReadFrom(says)
		_ = says.Close() // read only
		u.state, _ = sys.WaitProgram(pid)
		close(u.ended)
	}()
	return nil
}

// unionPatience is how long a server may take to end.
var unionPatience = reapPatience * time.Millisecond

// mountSource is what the mount is called in /proc/mounts.
const mountSource = "lamina"

// Messages of a server to its mounter: cmd/laminafs/roles.go.
const (
	serverLayers = 'l' // it has opened the layers
	serverReady  = 'r' // it answers
	serverSyncs  = 's' // it writes nothing any more, and waits for the disk
	serverClosed = 'c' // all is written to the upper
	serverFailed = 'e' // the text of an error follows
)

// serverEnv has laminafs begin as the server ("guest") for a mount that we make: the socket is descriptor 3, we are not its
// child, and it finds the mount in our namespace. What it serves is told on the socket.
func (s *Store) serverEnv() ([]string, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &ns); err != nil {
		return nil, fmt.Errorf("/proc/self/ns/mnt: %w", err)
	}
	env := os.Environ()
	if os.Getenv("XDG_RUNTIME_DIR") == "" {
		env = append(env, "XDG_RUNTIME_DIR="+s.o.RunDir) // so that it is told of the mount, for Mounts to find
	}
	return append(env, fmt.Sprintf("_LAMINAFS_ROLE=guest:3:0:%d:", ns.Ino)), nil
}

// greet waits until the server answers.
func (u *union) greet() error {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := u.sock.Receive(buf)
		switch {
		case err == io.EOF:
			<-u.ended
			return u.whyEnded()
		case err != nil:
			return fmt.Errorf("laminafs: %w", err)
		case buf[0] == serverFailed:
			return fmt.Errorf("laminafs: %s", buf[1:n])
		case buf[0] == serverReady:
			return nil
		case buf[0] == serverSyncs: // it was unmounted at once
			u.syncing()
		case buf[0] != serverLayers:
			return fmt.Errorf("laminafs: message %q", buf[0])
		}
	}
}

// saysClosed waits until the server says that nothing more is written. One that ends before that does not.
func (u *union) saysClosed() bool {
	buf := make([]byte, 1)
	_, _, err := u.sock.Receive(buf)
	if err == nil && buf[0] == serverSyncs {
		u.syncing()
		_, _, err = u.sock.Receive(buf)
	}
	return err == nil && buf[0] == serverClosed
}

// syncing is told by the server, before or after all else.
func (u *union) syncing() { u.syncOnce.Do(func() { close(u.syncs) }) }

// whyEnded is why a server has ended that did not say so on the socket.
func (u *union) whyEnded() error {
	if text := strings.TrimSpace(u.stderr.String()); text != "" {
		return errors.New(text)
	}
	switch {
	case u.state.Signaled():
		return fmt.Errorf("laminafs: %v", u.state.Signal())
	case u.state != 0:
		return fmt.Errorf("laminafs: exit status %d", u.state.ExitStatus())
	}
	return errors.New("laminafs ended before it answered")
}

// wait waits until the tree can be looked at.
func (u *union) wait() error {
	<-u.ready
	return u.err
}

// mountFuse mounts on target and passes the descriptor of the connection, and the minor number of its device, to the
// server at the other end of sock.
//
// Source: unionfs/transport, which the launcher does not import.
func mountFuse(target string, sock packet.Conn) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	defer unix.Close(fd) // the server has its own
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd, 1<<20)
	var flags uintptr
	if identity().Kind != idmap.Root {
		flags = unix.MS_NODEV // the kernel sets it in a user namespace, and a bind of it has to repeat it
	}
	if err := unix.Mount(mountSource, target, "fuse.laminafs", flags, data); err != nil {
		return fmt.Errorf("mount %s on %s type fuse.laminafs data %q: %w", mountSource, target, data, err)
	}
	var st unix.Statx_t // of what the kernel knows: the server is asked for nothing
	err = unix.Statx(unix.AT_FDCWD, target, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO, &st)
	if err == nil {
		err = whileItLives(sock.Send([]byte(strconv.Itoa(int(st.Dev_minor))), fd))
	}
	if err != nil {
		_ = unix.Unmount(target, unix.MNT_DETACH) // the error at hand says more
	}
	return err
}

// whileItLives takes it for no error that a server has ended before it is told something: greet says why it has.
func whileItLives(err error) error {
	if packet.Gone(err) {
		return nil
	}
	return err
}

// hasEnded tells whether laminafs has ended.
func (u *union) hasEnded() bool {
	select {
	case <-u.ended:
		return true
	default:
		return false
	}
}

// unmount takes the mount away and waits until nothing more is written to the upper. What still uses the mount, which
// nothing should, does so no longer. The server is about to end then: see end.
func (u *union) unmount() error {
	err := unix.Unmount(u.target, 0)
	if err == unix.EBUSY {
		err = unix.Unmount(u.target, unix.MNT_DETACH)
	}
	if err == unix.EINVAL {
		err = nil // it has gone with its server
	}
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", u.target, err)
	}
	return errors.Join(err, u.await(u.closed))
}

// end waits until laminafs has let go of everything. What the kernel still does before it is reaped, to its mount namespace
// above all, takes longer than all that and concerns nobody.
func (u *union) end() error { return u.await(u.gone) }

// await waits for what laminafs does by itself once it is unmounted, and kills one that does not. What a disk takes for all that
// is to be written, other programs' data too, is no fault of its own, and is not ended by a kill either.
func (u *union) await(done <-chan struct{}) error {
	patience, syncs := time.After(unionPatience), u.syncs
	for {
		select {
		case <-done:
		case <-syncs:
		case <-patience:
		}
		select { // of several at once, what it has said counts
		case <-done:
			return nil
		case <-syncs:
			<-u.closed
			patience, syncs = time.After(unionPatience), nil
		default:
			err := u.server.kill()
			<-u.ended
			<-u.closed
			return err
		}
	}
}
