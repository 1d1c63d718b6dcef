package uniontest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/internal/sys"
)

// scriptRequest is what the runner of a script asks of its helper, which holds the descriptors between commands.
type scriptRequest struct {
	Merged string // names the session
	Do     string // begin, release, end, list, absent, or a command of a script
	Args   []string
	Raw    string   // of sh
	Env    []string // of sh
}

type scriptReply struct {
	Out     string
	Objects []object // of list
	Code    int      // of sh
}

// session is the state of one script in its helper.
type session struct {
	root  int // the merged directory
	dir   string
	fds   map[string]int
	maps  map[string][]byte
	inos  map[string]uint64
	umask int
}

var (
	sessionsMu sync.Mutex
	sessions   = map[string]*session{}
)

func scriptOp(r scriptRequest) (reply scriptReply, err error) {
	sessionsMu.Lock()
	s := sessions[r.Merged]
	sessionsMu.Unlock()
	switch r.Do {
	case "begin":
		return reply, beginSession(r.Merged, s)
	case "release": // the merged directory, so that it can be unmounted; descriptors that the script has open stay
		unix.Close(s.root)
		s.root = -1
		return reply, nil
	case "end":
		if s != nil {
			s.end()
		}
		sessionsMu.Lock()
		delete(sessions, r.Merged)
		sessionsMu.Unlock()
		return reply, nil
	case "list":
		reply.Objects, err = listTree(r.Args[0])
		return reply, err
	case "absent": // which of the paths are there after all
		var found []string
		for _, p := range r.Args {
			var st unix.Stat_t
			if err := unix.Fstatat(s.root, p, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil || !errors.Is(err, unix.ENOENT) &&
				!errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
				found = append(found, fmt.Sprintf("%s (%v)", p, err))
			}
		}
		reply.Out = strings.Join(found, ", ")
		return reply, nil
	case "sh":
		return shell(s, r)
	}
	if s == nil {
		return reply, errors.New("no script has begun")
	}
	reply.Out, err = s.command(r.Do, r.Args)
	return reply, err
}

// beginSession opens the merged directory, for a new script or after a remount.
func beginSession(dir string, s *session) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if s != nil {
		s.root = fd
		return nil
	}
	s = &session{root: fd, dir: dir, fds: map[string]int{}, maps: map[string][]byte{}, inos: map[string]uint64{}}
	s.umask = unix.Umask(0o022)
	sessionsMu.Lock()
	defer sessionsMu.Unlock()
	sessions[dir] = s
	return nil
}

func (s *session) end() {
	for _, m := range s.maps {
		_ = unix.Munmap(m)
	}
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	if s.root >= 0 {
		unix.Close(s.root)
	}
	unix.Umask(s.umask)
}

func shell(s *session, r scriptRequest) (scriptReply, error) {
	cmd := exec.Command("sh", "-euc", r.Raw)
	cmd.Dir = r.Merged
	cmd.Env = append(os.Environ(), r.Env...)
	out, err := cmd.CombinedOutput()
	reply := scriptReply{Out: strings.TrimRight(string(out), "\n")}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		reply.Code = exit.ExitCode()
		err = nil
	}
	return reply, err
}

// command performs one command of a script. Its error is that of its system call.
func (s *session) command(name string, args []string) (out string, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a mapping of a file that is shorter: SIGBUS
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if name == "as" {
		return s.commandAs(args)
	}
	c, ok := commands[name]
	if !ok {
		return "", fmt.Errorf("no command is called %s", name)
	}
	if len(args) < c.min || c.max >= 0 && len(args) > c.max {
		return "", fmt.Errorf("%s takes %s", name, c.usage)
	}
	return c.run(s, args)
}

// commandAs performs a command with other ids: as UID:GID[:GROUP...] COMMAND. It does so in a thread of its own that
// ends with it, because a thread that has given up its ids does not get them back.
func (s *session) commandAs(args []string) (out string, err error) {
	var ids []int
	for f := range strings.SplitSeq(args[0], ":") {
		n, err := strconv.Atoi(f)
		if err != nil {
			return "", err
		}
		ids = append(ids, n)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		goruntime.LockOSThread()
		groups := []uint32{0}
		for _, g := range ids[2:] {
			groups = append(groups, uint32(g))
		}
		groups = groups[1:]
		var p unsafe.Pointer
		if len(groups) > 0 {
			p = unsafe.Pointer(&groups[0])
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); e != 0 {
			err = fmt.Errorf("setgroups: %v", e)
			return
		}
		g, u := uintptr(ids[1]), uintptr(ids[0])
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); e != 0 {
			err = fmt.Errorf("setresgid: %v", e)
			return
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, u, u, u); e != 0 {
			err = fmt.Errorf("setresuid: %v", e)
			return
		}
		out, err = s.command(args[1], args[2:])
	}()
	<-done
	return out, err
}

type scriptCommand struct {
	min, max int // number of arguments; max -1 is any
	usage    string
	run      func(s *session, a []string) (string, error)
}

func octal(a []string, i int, otherwise uint32) (uint32, error) {
	if i >= len(a) {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(a[i], 8, 32)
	return uint32(n), err
}

func rename(flags uint) func(*session, []string) (string, error) {
	return func(s *session, a []string) (string, error) {
		return "", unix.Renameat2(s.root, a[0], s.root, a[1], flags)
	}
}

// commands are what a script can do: each makes the one system call it is called after, besides opening and closing.
// Paths are below the merged directory.
var commands = map[string]scriptCommand{
	"mv":           {2, 2, "OLD NEW", rename(0)},
	"mv-noreplace": {2, 2, "OLD NEW", rename(unix.RENAME_NOREPLACE)},
	"mv-exchange":  {2, 2, "A B", rename(unix.RENAME_EXCHANGE)},
	"mv-whiteout":  {2, 2, "OLD NEW", rename(unix.RENAME_WHITEOUT)},
	"rm":           {1, 1, "PATH", func(s *session, a []string) (string, error) { return "", unix.Unlinkat(s.root, a[0], 0) }},
	"rmdir": {1, 1, "PATH", func(s *session, a []string) (string, error) {
		return "", unix.Unlinkat(s.root, a[0], unix.AT_REMOVEDIR)
	}},
	"mkdir": {1, 2, "PATH [MODE]", func(s *session, a []string) (string, error) {
		mode, err := octal(a, 1, 0o755)
		if err != nil {
			return "", err
		}
		return "", unix.Mkdirat(s.root, a[0], mode)
	}},
	"create":   {1, 2, "PATH [MODE]", create},
	"write":    {2, 2, "PATH CONTENT", writeFile(unix.O_CREAT | unix.O_TRUNC)},
	"append":   {2, 2, "PATH CONTENT", writeFile(unix.O_APPEND)},
	"pwrite":   {3, 3, "FD OFFSET CONTENT", pwrite},
	"trunc":    {2, 2, "PATH SIZE", truncate},
	"chmod":    {2, 2, "PATH MODE", chmod},
	"chown":    {2, 2, "PATH UID:GID", chown},
	"ln":       {2, 2, "OLD NEW", func(s *session, a []string) (string, error) { return "", unix.Linkat(s.root, a[0], s.root, a[1], 0) }},
	"symlink":  {2, 2, "TARGET PATH", func(s *session, a []string) (string, error) { return "", unix.Symlinkat(a[0], s.root, a[1]) }},
	"mknod":    {2, 5, "PATH fifo|sock|reg|char|block [MAJOR MINOR] [MODE]", mknod},
	"setxattr": {3, 4, "PATH NAME VALUE [create|replace]", setxattr},
	"rmxattr":  {2, 2, "PATH NAME", func(s *session, a []string) (string, error) { return "", unix.Lremovexattr(s.path(a[0]), a[1]) }},
	"getxattr": {2, 2, "PATH NAME", getxattr},
	"listxattr": {1, 1, "PATH", func(s *session, a []string) (string, error) {
		m, msg := readXattrs(s.path(a[0]))
		if msg != "" {
			return "", errors.New(msg)
		}
		var names []string
		for k := range plainXattrs(m) {
			names = append(names, k)
		}
		slices.Sort(names)
		return strings.Join(names, " "), nil
	}},
	"utimes":   {3, 3, "PATH ATIME MTIME (seconds, now or omit)", utimes},
	"cat":      {1, 1, "PATH", cat},
	"ls":       {1, 1, "PATH", ls},
	"count":    {1, 1, "PATH", count},
	"readlink": {1, 1, "PATH", readlink},
	"stat":     {1, 1, "PATH -> KEY=VALUE...", func(s *session, a []string) (string, error) { return statLine(s.root, a[0], unix.AT_SYMLINK_NOFOLLOW) }},
	"access":   {2, 2, "PATH rwx", access},
	"same-ino": {2, 2, "A B", sameIno},
	"other-ino": {2, 2, "A B", func(s *session, a []string) (string, error) {
		if _, err := sameIno(s, a); err == nil {
			return "", errors.New("have the same inode number")
		}
		return "", nil
	}},
	"keep":  {2, 2, "NAME PATH", keepIno},
	"kept":  {2, 2, "NAME PATH", keptIno},
	"umask": {1, 1, "MODE", umask},
	"fill":  {2, 3, "DIR COUNT [PREFIX]", fill},
	"deep":  {2, 2, "NAME DEPTH", deep},

	"open":      {3, 4, "FD PATH FLAG[,FLAG...] [MODE]", openFD},
	"close":     {1, 1, "FD", closeFD},
	"read":      {1, 3, "FD [OFFSET LENGTH]", readFD},
	"fstat":     {1, 1, "FD -> KEY=VALUE...", func(s *session, a []string) (string, error) { return statLine(s.fd(a[0]), "", unix.AT_EMPTY_PATH) }},
	"ftruncate": {2, 2, "FD SIZE", ftruncate},
	"fchmod":    {2, 2, "FD MODE", fchmod},
	"fsync":     {1, 1, "FD", func(s *session, a []string) (string, error) { return "", unix.Fsync(s.fd(a[0])) }},
	"fls":       {1, 1, "FD", fls},
	"fexists":   {2, 2, "FD NAME", fexists},
	"fsetxattr": {3, 3, "FD NAME VALUE", func(s *session, a []string) (string, error) {
		return "", unix.Fsetxattr(s.fd(a[0]), a[1], []byte(a[2]), 0)
	}},
	"linkfd": {2, 2, "FD PATH", func(s *session, a []string) (string, error) {
		return "", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", s.fd(a[0])), s.root, a[1], unix.AT_SYMLINK_FOLLOW)
	}},
	"mmap":      {3, 3, "NAME FD r|rw", mmap},
	"mread":     {3, 3, "NAME OFFSET LENGTH", mread},
	"mwrite":    {3, 3, "NAME OFFSET CONTENT", mwrite},
	"munmap":    {1, 1, "NAME", munmap},
	"seek":      {3, 3, "FD hole|data OFFSET", seek},
	"fallocate": {4, 4, "FD MODE OFFSET LENGTH", fallocate},
	"copyrange": {3, 3, "FROM TO LENGTH", copyRange},
	"flock":     {2, 2, "FD sh|ex|un", flock},
}

// path is a path of the merged tree for the calls that have no *at form. It goes by the descriptor, so that the
// length of the mount point's path does not count.
func (s *session) path(p string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", s.root, p) }

// fd is the descriptor that a script calls name, -1 where there is none: the call then says EBADF.
func (s *session) fd(name string) int {
	if fd, ok := s.fds[name]; ok {
		return fd
	}
	return -1
}

func create(s *session, a []string) (string, error) {
	mode, err := octal(a, 1, 0o644)
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(s.root, a[0], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, mode)
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

func writeFile(flags int) func(*session, []string) (string, error) {
	return func(s *session, a []string) (string, error) {
		data, err := content(a[1])
		if err != nil {
			return "", err
		}
		fd, err := unix.Openat(s.root, a[0], unix.O_WRONLY|unix.O_CLOEXEC|flags, 0o644)
		if err != nil {
			return "", err
		}
		if err := writeAll(fd, []byte(data)); err != nil {
			unix.Close(fd)
			return "", err
		}
		return "", unix.Close(fd)
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func pwrite(s *session, a []string) (string, error) {
	off, err := parseSize(a[1])
	if err != nil {
		return "", err
	}
	_, err = unix.Pwrite(s.fd(a[0]), []byte(a[2]), off)
	return "", err
}

func truncate(s *session, a []string) (string, error) {
	n, err := parseSize(a[1])
	if err != nil {
		return "", err
	}
	return "", unix.Truncate(s.path(a[0]), n)
}

func ftruncate(s *session, a []string) (string, error) {
	n, err := parseSize(a[1])
	if err != nil {
		return "", err
	}
	return "", unix.Ftruncate(s.fd(a[0]), n)
}

func chmod(s *session, a []string) (string, error) {
	mode, err := octal(a, 1, 0)
	if err != nil {
		return "", err
	}
	return "", unix.Fchmodat(s.root, a[0], mode, 0)
}

func fchmod(s *session, a []string) (string, error) {
	mode, err := octal(a, 1, 0)
	if err != nil {
		return "", err
	}
	return "", unix.Fchmod(s.fd(a[0]), mode)
}

func chown(s *session, a []string) (string, error) {
	u, g, _ := strings.Cut(a[1], ":")
	uid, err1 := strconv.Atoi(u)
	gid, err2 := strconv.Atoi(g)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	return "", unix.Fchownat(s.root, a[0], uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func mknod(s *session, a []string) (string, error) {
	types := map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "reg": unix.S_IFREG, "char": unix.S_IFCHR, "block": unix.S_IFBLK}
	typ, ok := types[a[1]]
	if !ok {
		return "", fmt.Errorf("unknown type %s", a[1])
	}
	rest, dev := a[2:], 0
	if a[1] == "char" || a[1] == "block" {
		if len(rest) < 2 {
			return "", errors.New("a device has MAJOR MINOR")
		}
		ma, err1 := strconv.Atoi(rest[0])
		mi, err2 := strconv.Atoi(rest[1])
		if err := errors.Join(err1, err2); err != nil {
			return "", err
		}
		dev, rest = int(unix.Mkdev(uint32(ma), uint32(mi))), rest[2:]
	}
	mode, err := octal(rest, 0, 0o644)
	if err != nil {
		return "", err
	}
	return "", unix.Mknodat(s.root, a[0], typ|mode, dev)
}

func setxattr(s *session, a []string) (string, error) {
	flags := 0
	if len(a) == 4 {
		flags = map[string]int{"create": unix.XATTR_CREATE, "replace": unix.XATTR_REPLACE}[a[3]]
	}
	value, err := content(a[2])
	if err != nil {
		return "", err
	}
	return "", unix.Lsetxattr(s.path(a[0]), a[1], []byte(value), flags)
}

func getxattr(s *session, a []string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(s.path(a[0]), a[1], buf)
	return string(buf[:max(n, 0)]), err
}

func utimes(s *session, a []string) (string, error) {
	var ts [2]unix.Timespec
	for i := range ts {
		switch v := a[1+i]; v {
		case "now":
			ts[i].Nsec = unix.UTIME_NOW
		case "omit":
			ts[i].Nsec = unix.UTIME_OMIT
		default:
			sec, nsec, _ := strings.Cut(v, ".")
			n, err := strconv.ParseInt(sec, 10, 64)
			if err != nil {
				return "", err
			}
			ts[i].Sec = n
			if nsec != "" {
				if ts[i].Nsec, err = strconv.ParseInt((nsec + "000000000")[:9], 10, 64); err != nil {
					return "", err
				}
			}
		}
	}
	return "", unix.UtimesNanoAt(s.root, a[0], ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func cat(s *session, a []string) (string, error) {
	fd, err := unix.Openat(s.root, a[0], unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return readAll(fd)
}

func readAll(fd int) (string, error) {
	var out []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Pread(fd, buf, int64(len(out)))
		if err != nil || n == 0 {
			return shown(out), err
		}
		out = append(out, buf[:n]...)
	}
}

// shown is a content as a script would call it.
func shown(b []byte) string {
	if len(b) > smallContent {
		return fmt.Sprintf("%d bytes, sha256 %s", len(b), sum(string(b)))
	}
	return string(b)
}

func ls(s *session, a []string) (string, error) {
	fd, err := unix.Openat(s.root, a[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return listNames(fd)
}

func fls(s *session, a []string) (string, error) { return listNames(s.fd(a[0])) }

func listNames(fd int) (string, error) {
	entries, err := readEntries(fd)
	if err != nil {
		return "", err
	}
	var names []string
	for _, e := range entries {
		if e.name != "." && e.name != ".." {
			names = append(names, e.name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " "), nil
}

func count(s *session, a []string) (string, error) {
	names, err := ls(s, a)
	return strconv.Itoa(len(strings.Fields(names))), err
}

func readlink(s *session, a []string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(s.root, a[0], buf)
	return string(buf[:max(n, 0)]), err
}

// fexists looks a name up in a directory that is open, which may have been removed or moved since.
func fexists(s *session, a []string) (string, error) {
	var st unix.Stat_t
	return "", unix.Fstatat(s.fd(a[0]), a[1], &st, unix.AT_SYMLINK_NOFOLLOW)
}

func statLine(dirfd int, name string, flags int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, flags); err != nil {
		return "", err
	}
	types := map[uint32]string{unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
		unix.S_IFSOCK: "sock", unix.S_IFCHR: "char", unix.S_IFBLK: "block"}
	return fmt.Sprintf("type=%s mode=%04o uid=%d gid=%d size=%d nlink=%d blocks=%d atime=%d mtime=%d rdev=%d:%d mtimens=%d.%09d",
		types[st.Mode&unix.S_IFMT], st.Mode&0o7777, st.Uid, st.Gid, st.Size, st.Nlink, st.Blocks, st.Atim.Sec, st.Mtim.Sec,
		unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Mtim.Sec, st.Mtim.Nsec), nil
}

func access(s *session, a []string) (string, error) {
	mode := uint32(0)
	for _, c := range a[1] {
		mode |= map[rune]uint32{'r': unix.R_OK, 'w': unix.W_OK, 'x': unix.X_OK}[c]
	}
	return "", unix.Faccessat(s.root, a[0], mode, unix.AT_EACCESS)
}

func (s *session) ino(p string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstatat(s.root, p, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Ino, err
}

func sameIno(s *session, a []string) (string, error) {
	x, err1 := s.ino(a[0])
	y, err2 := s.ino(a[1])
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	if x != y {
		return "", fmt.Errorf("inode numbers are %d and %d", x, y)
	}
	return "", nil
}

func keepIno(s *session, a []string) (string, error) {
	ino, err := s.ino(a[1])
	s.inos[a[0]] = ino
	return "", err
}

func keptIno(s *session, a []string) (string, error) {
	ino, err := s.ino(a[1])
	if err == nil && ino != s.inos[a[0]] {
		err = fmt.Errorf("inode number is %d, was %d", ino, s.inos[a[0]])
	}
	return "", err
}

func umask(s *session, a []string) (string, error) {
	mode, err := octal(a, 0, 0)
	if err == nil {
		unix.Umask(int(mode))
	}
	return "", err
}

func fill(s *session, a []string) (string, error) {
	n, err := strconv.Atoi(a[1])
	if err != nil {
		return "", err
	}
	prefix := ""
	if len(a) == 3 {
		prefix = a[2]
	}
	for i := range n {
		if _, err := create(s, []string{fmt.Sprintf("%s/%s%d", a[0], prefix, i)}); err != nil {
			return "", err
		}
	}
	return "", nil
}

// deep makes directories called name, each in the one before, and a file f in the last, by descriptors: so it can go
// deeper than a path can be long. It then looks at all of them the same way.
func deep(s *session, a []string) (string, error) {
	n, err := strconv.Atoi(a[1])
	if err != nil {
		return "", err
	}
	fd, err := unix.Dup(s.root)
	if err != nil {
		return "", err
	}
	for i := range n {
		if err := unix.Mkdirat(fd, a[0], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			unix.Close(fd)
			return "", fmt.Errorf("mkdir at depth %d: %w", i, err)
		}
		next, err := unix.Openat(fd, a[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err != nil {
			return "", fmt.Errorf("open at depth %d: %w", i, err)
		}
		fd = next
	}
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "f", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	return "", unix.Close(f)
}

var openFlags = map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "append": unix.O_APPEND, "creat": unix.O_CREAT,
	"excl": unix.O_EXCL, "trunc": unix.O_TRUNC, "tmpfile": unix.O_TMPFILE, "path": unix.O_PATH, "direct": unix.O_DIRECT,
	"noatime": unix.O_NOATIME, "dir": unix.O_DIRECTORY, "nofollow": unix.O_NOFOLLOW, "nonblock": unix.O_NONBLOCK, "sync": unix.O_SYNC}

func openFD(s *session, a []string) (string, error) {
	flags := unix.O_CLOEXEC
	for f := range strings.SplitSeq(a[2], ",") {
		bit, ok := openFlags[f]
		if !ok {
			return "", fmt.Errorf("unknown flag %s", f)
		}
		flags |= bit
	}
	mode, err := octal(a, 3, 0o644)
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(s.root, a[1], flags, mode)
	if err != nil {
		return "", err
	}
	if old, ok := s.fds[a[0]]; ok {
		unix.Close(old)
	}
	s.fds[a[0]] = fd
	return "", nil
}

func closeFD(s *session, a []string) (string, error) {
	fd := s.fd(a[0])
	delete(s.fds, a[0])
	return "", unix.Close(fd)
}

func readFD(s *session, a []string) (string, error) {
	if len(a) < 3 {
		return readAll(s.fd(a[0]))
	}
	off, err1 := parseSize(a[1])
	n, err2 := parseSize(a[2])
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	buf := make([]byte, n)
	got, err := unix.Pread(s.fd(a[0]), buf, off)
	return shown(buf[:max(got, 0)]), err
}

func mmap(s *session, a []string) (string, error) {
	prot := unix.PROT_READ
	if a[2] == "rw" {
		prot |= unix.PROT_WRITE
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd(a[1]), &st); err != nil {
		return "", err
	}
	m, err := unix.Mmap(s.fd(a[1]), 0, int(st.Size), prot, unix.MAP_SHARED)
	if err == nil {
		s.maps[a[0]] = m
	}
	return "", err
}

func mread(s *session, a []string) (string, error) {
	off, err1 := strconv.Atoi(a[1])
	n, err2 := strconv.Atoi(a[2])
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	return string(slices.Clone(s.maps[a[0]][off : off+n])), nil
}

func mwrite(s *session, a []string) (string, error) {
	off, err := strconv.Atoi(a[1])
	if err == nil {
		copy(s.maps[a[0]][off:], a[2])
		err = unix.Msync(s.maps[a[0]], unix.MS_SYNC)
	}
	return "", err
}

func munmap(s *session, a []string) (string, error) {
	m := s.maps[a[0]]
	delete(s.maps, a[0])
	return "", unix.Munmap(m)
}

func seek(s *session, a []string) (string, error) {
	off, err := parseSize(a[2])
	if err != nil {
		return "", err
	}
	whence := map[string]int{"hole": unix.SEEK_HOLE, "data": unix.SEEK_DATA}[a[1]]
	n, err := unix.Seek(s.fd(a[0]), off, whence)
	return strconv.FormatInt(n, 10), err
}

func fallocate(s *session, a []string) (string, error) {
	mode := map[string]uint32{"alloc": 0, "keep": unix.FALLOC_FL_KEEP_SIZE, "punch": unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		"zero": unix.FALLOC_FL_ZERO_RANGE}[a[1]]
	off, err1 := parseSize(a[2])
	n, err2 := parseSize(a[3])
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	return "", sys.Fallocate(s.fd(a[0]), mode, off, n)
}

func copyRange(s *session, a []string) (string, error) {
	n, err := parseSize(a[2])
	if err != nil {
		return "", err
	}
	var in, out int64
	got, err := unix.CopyFileRange(s.fd(a[0]), &in, s.fd(a[1]), &out, int(n), 0)
	return strconv.Itoa(got), err
}

func flock(s *session, a []string) (string, error) {
	how := map[string]int{"sh": syscall.LOCK_SH, "ex": syscall.LOCK_EX, "un": syscall.LOCK_UN}[a[1]]
	return "", syscall.Flock(s.fd(a[0]), how|syscall.LOCK_NB)
}
