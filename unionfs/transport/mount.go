package transport

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/packet"
	"github.com/laminafs/lamina/internal/sys"
)

const (
	// Subtype is what follows "fuse." in the type of the mount.
	Subtype = "laminafs"

	// DefaultMaxWrite is the size, in bytes, of the largest READ or WRITE request.
	DefaultMaxWrite = 1 << 20
)

// Options are the properties of a mount that the union does not know of. The zero value is a writable mount with the
// defaults of who mounts.
type Options struct {
	// FSName is shown as the source of the mount. Default: Subtype.
	FSName string

	// Set and Clear are mount(2) flags that change the defaults: root's mounts are suid, and dev outside of user
	// namespaces; all others are nosuid and nodev.
	Set, Clear uintptr

	// AllowOther opens the mount to everybody, as root's always is. AllowRoot opens it to its owner and root only.
	AllowOther, AllowRoot bool

	// Contexts are "context=LABEL" and its relatives, for the security module of the kernel.
	Contexts []string

	// MaxWrite is the size of the largest request in bytes; 0 is DefaultMaxWrite.
	MaxWrite int

	// SingleThreaded handles one request at a time.
	SingleThreaded bool

	// Transport says how requests are read and answered: one of Names. Empty is Auto.
	Transport string

	// Writeback lets the kernel collect small writes; NoACL keeps it from enforcing POSIX ACLs.
	Writeback, NoACL bool

	// Passthrough lets the filesystem have the kernel read and write files by itself (Notifier.OpenBacking).
	Passthrough bool
}

func (o *Options) maxWrite() int {
	if o.MaxWrite == 0 {
		return DefaultMaxWrite
	}
	return o.MaxWrite
}

func (o *Options) fsName() string {
	if o.FSName == "" {
		return Subtype
	}
	return o.FSName
}

// flags are the mount(2) flags for a caller that is root or not, of a user namespace or of the machine.
func (o *Options) flags(root, userns bool) uintptr {
	var f uintptr
	switch {
	case !root:
		f = unix.MS_NOSUID | unix.MS_NODEV
	case userns:
		f = unix.MS_NODEV
	}
	return f&^o.Clear | o.Set
}

// Mount is a mounted filesystem that is not served yet.
type Mount struct {
	// Target is the absolute path of the mount point without symbolic links, empty where the caller has mounted and
	// has passed the descriptor only.
	Target string

	// Minor is the minor number of its device, whose major is 0. It is 0 where Target is empty.
	Minor uint32

	// Fd is the /dev/fuse descriptor. Serve takes it over.
	Fd int

	opts     Options
	notifier Notifier
}

// Notifier is the way from what serves the mount to the kernel.
func (m *Mount) Notifier() *Notifier { return &m.notifier }

// New mounts on the directory target: by mount(2) where the caller may, else by fusermount3. The target "/dev/fd/N"
// means that the caller has mounted already and has passed the /dev/fuse descriptor as N, as libfuse has it.
//
// Until Serve answers, whoever touches the mount waits.
func New(target string, o Options) (*Mount, error) {
	path, err := CheckTarget(target)
	if err != nil {
		return nil, err
	}
	return NewOn(path, target, o)
}

// NewOn is New for a target that CheckTarget has found to be path, perhaps in another process.
func NewOn(path, target string, o Options) (*Mount, error) {
	if fd, ok := passedFd(target); ok {
		return &Mount{Fd: fd, opts: o}, nil
	}
	fd, err := mountDirect(path, &o)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		direct := err
		if fd, err = mountByHelper(path, &o); err != nil && os.Geteuid() == 0 {
			err = fmt.Errorf("%w; %w", direct, err) // for others mount(2) was not expected to work
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mountpoint %s: %w", target, err)
	}
	m := &Mount{Target: path, Fd: fd, opts: o}
	if on, ours, err := mountedOn(path); err == nil && ours {
		m.Minor = on.Minor
	}
	return m, nil
}

// Send passes the mount to another process through the UNIX socket sock, where Received takes it.
func (m *Mount) Send(sock int) error { return packet.Send(sock, fmt.Appendf(nil, "%d", m.Minor), m.Fd) }

// Received is the mount at target that another process has sent, as the descriptor and the bytes of its message.
func Received(target string, fd int, msg []byte, o Options) (*Mount, error) {
	minor, err := strconv.ParseUint(string(msg), 10, 32)
	if err != nil {
		return nil, err
	}
	return &Mount{Target: target, Minor: uint32(minor), Fd: fd, opts: o}, nil
}

// passedFd is the descriptor that a target "/dev/fd/N" stands for.
func passedFd(target string) (int, bool) {
	s, ok := strings.CutPrefix(target, "/dev/fd/")
	if !ok {
		return -1, false
	}
	fd, err := strconv.Atoi(s)
	return fd, err == nil && fd >= 0
}

func checkFd(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || unix.Major(st.Rdev) != 10) {
		err = errors.New("not a /dev/fuse descriptor")
	}
	if err != nil {
		return fmt.Errorf("mountpoint /dev/fd/%d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	return nil
}

// mountDirect mounts by mount(2).
func mountDirect(path string, o *Options) (fd int, err error) {
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	data := o.mountData(fd, os.Geteuid() == 0)
	flags := o.flags(os.Geteuid() == 0, inUserNamespace())
	if err := unix.Mount(o.fsName(), path, "fuse."+Subtype, flags, data); err != nil {
		_ = unix.Close(fd) // nothing was read from it
		return -1, fmt.Errorf("mount %s type fuse.%s flags %s data %q: %w", o.fsName(), Subtype, flagNames(flags), data, err)
	}
	return fd, nil
}

// mountData is the string that the kernel's fuse filesystem reads: fs/fuse/inode.c, fuse_fs_parameters. It holds
// nothing that grows with the number of layers, so a page always suffices.
func (o *Options) mountData(fd int, root bool) string {
	data := []string{
		"fd=" + strconv.Itoa(fd),
		"rootmode=40000", // S_IFDIR, octal
		"user_id=" + strconv.Itoa(os.Geteuid()),
		"group_id=" + strconv.Itoa(os.Getegid()),
	}
	return strings.Join(append(data, o.common(root)...), ",")
}

// common are the options that mount(2) and fusermount3 both take.
func (o *Options) common(root bool) []string {
	list := []string{"default_permissions", fmt.Sprintf("max_read=%d", o.maxWrite())}
	if root || o.AllowOther || o.AllowRoot {
		list = append(list, "allow_other")
	}
	if haveSELinux() {
		for _, c := range o.Contexts {
			list = append(list, quoteComma(c))
		}
	}
	return list
}

// quoteComma puts the value of "key=a,b" into the quotes in which security labels carry commas.
func quoteComma(opt string) string {
	key, value, _ := strings.Cut(opt, "=")
	if !strings.Contains(value, ",") {
		return opt
	}
	return key + `="` + value + `"`
}

// haveSELinux tells whether the kernel understands context=; without SELinux it refuses the mount.
func haveSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// inUserNamespace tells whether we are in a user namespace that is not the first one. The first maps all ids to
// themselves (user_namespaces(7)); one that does the same is one for all that matters here.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// mountFlags names the flags of mount(2) in the words of mount(8).
var mountFlags = []struct {
	flag uintptr
	name string
}{
	{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
	{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"}, {unix.MS_NOSYMFOLLOW, "nosymfollow"},
	{unix.MS_NOATIME, "noatime"}, {unix.MS_NODIRATIME, "nodiratime"}, {unix.MS_RELATIME, "relatime"},
	{unix.MS_STRICTATIME, "strictatime"}, {unix.MS_LAZYTIME, "lazytime"},
}

func flagNames(flags uintptr) string {
	var names []string
	for _, f := range mountFlags {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// Unmount takes the mount out of the namespace of the calling process; with lazy even while it is in use, in which
// case it is served on until the last user is gone. It never unmounts something else that is on the same path.
func (m *Mount) Unmount(lazy bool) error { return Unmount(m.Target, lazy) }

// Unmount is the method of the same name for a mount that is known by its path.
func Unmount(target string, lazy bool) error {
	if target == "" {
		return errors.New("unmount: whoever mounted has not said where")
	}
	if _, ok, err := mountedOn(target); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	} else if !ok {
		return fmt.Errorf("unmount %s: not ours: %w", target, unix.EINVAL)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(target, flags)
	if err == unix.EPERM {
		return unmountByHelper(target, lazy)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// mountedOn returns the last mount on target, and whether it is of ours. The calling thread may be in a namespace of
// its own.
func mountedOn(target string) (m sys.MountPoint, ours bool, err error) {
	list, err := sys.Mounts()
	if err != nil {
		return m, false, err
	}
	for _, m = range slices.Backward(list) {
		if m.Path == target {
			return m, m.FSType == "fuse."+Subtype, nil
		}
	}
	return m, false, nil
}
